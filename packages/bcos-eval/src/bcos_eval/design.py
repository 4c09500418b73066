"""Which units a study has."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Design:
    """Which units every arm of a study has: repeats x folds x seeds."""

    folds: int = 5
    """Parts of the data, each the test once; 1 keeps the data's own split, and then only seeds vary."""
    repeats: int = 1
    """Times that the data is cut into folds anew."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of weights and shuffling, for each fold."""

    @property
    def is_crossval(self) -> bool:
        """Whether the data is cut into folds."""
        return self.folds > 1

    @property
    def name(self) -> str:
        """The design as a report calls it: "10x5-fold", "5-fold x 3 seeds", "8 seeds on one split"."""
        if not self.is_crossval:
            return f"{len(self.seeds)} seeds on one split"
        folds = f"{self.repeats}x{self.folds}-fold" if self.repeats > 1 else f"{self.folds}-fold"
        return folds + (f" x {len(self.seeds)} seeds" if len(self.seeds) > 1 else "")
