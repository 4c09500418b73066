"""What a regression run is made of. Light to import: the command line answers ``--help`` from here."""

from dataclasses import dataclass, field

from bcos_core.run.split import SplitConfig

from bcos_ode.config import FitConfig, NetworkConfig, short_name


@dataclass(frozen=True)
class RegressionConfig:
    """One regression: a table or a series, a network, a fit."""

    data: str = "diabetes"
    """diabetes or linnerud, as they come with scikit-learn; table:PATH.csv; series:PATH.csv, one trajectory at even
    times; or series:hare-lynx."""
    targets: str = ""
    """Columns of a table that are predicted, with commas between them; the others predict."""
    lags: int = 2
    """Observations of a series that predict, the last ones before the horizon."""
    horizon: int = 1
    """Steps of a series from the last of these to what is predicted."""
    seed: int = 0
    """Seed of the weights."""
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(depth=2, constant=10.0))
    fit: FitConfig = field(
        # tables are small and noisy, and L-BFGS would fit the noise
        default_factory=lambda: FitConfig(adam_steps=200, lbfgs_steps=0, weight_decay=2.0, max_samples=0)
    )
    split: SplitConfig = field(default_factory=lambda: SplitConfig(val=0.0))

    def __post_init__(self) -> None:
        """Refuse what no run can be.

        Raises:
            ValueError: Naming the option, what came and what is expected.
        """
        kind, colon, path = self.data.partition(":")
        if bool(path) != (kind in ("table", "series")) or (colon and not path):
            raise ValueError(f'--data: expected a name, table:PATH.csv or series:PATH.csv, got "{self.data}"')
        if (kind == "table") != bool(self.targets):
            expected = "columns of a table, with commas between them" if kind == "table" else "none, but for table:PATH"
            raise ValueError(f'--targets: expected {expected}, got "{self.targets}"')
        if not self.is_series and (self.lags, self.horizon) != (2, 1):
            raise ValueError(f'--lags, --horizon: they belong to a series, not to "{self.data}"')
        for name, least in (("lags", 1), ("horizon", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name}: expected at least {least}, got {getattr(self, name)}")
        self.split.check()
        if self.split.val:
            raise ValueError("--split.val: nothing is chosen while a network is fitted; --split.inner_folds can choose")
        if not self.split.test and not self.split.has_folds:
            raise ValueError("--split.test is 0: nothing is left to score")
        if self.is_series and self.split.seed:
            raise ValueError("--split.seed: a series is cut by time, nothing is drawn")

    @property
    def is_series(self) -> bool:
        """Whether samples follow each other in time."""
        return self.data.startswith("series:")

    @property
    def arm(self) -> str:
        """Readable name of what is compared, everything but seed and fold: what is not as usual stands in it."""
        network, usual = self.network.resolve(), type(self)().network
        unusual = [
            f"{self.lags} lags, horizon {self.horizon}" * self.is_series,
            f"B={network.b:g}" * (network.model == "bcos"),
            f"degree {network.degree}" * (network.model == "degree"),
            f"{network.depth}x{network.width}" * ((network.depth, network.width) != (usual.depth, usual.width)),
            network.encoding * (network.encoding != "constant"),
        ]
        return " ".join([f"{self.data_name} {network.model}", *filter(None, unusual)])

    @property
    def data_name(self) -> str:
        """The data as experiments call it: a file by its own name, not its path."""
        return short_name(self.data)
