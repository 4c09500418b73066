"""A study: arms, and the units of work that compare them. What it is made of, and where it is kept."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bcos_core.run import config as configuration
from bcos_core.run.error import InputError
from bcos_core.run.seed import derive_seed
from bcos_core.run.tracking import project_root

from .scores import Design


@dataclass(frozen=True)
class Unit:
    """One training of a study: an arm, on one fold of one cut of the data, with one seed."""

    arm: str
    repeat: int = 0
    fold: int = 0
    seed: int = 0

    @property
    def id(self) -> str:
        """What the unit is called in the queue, in MLflow and in file names."""
        return f"{slug(self.arm)}-r{self.repeat}-f{self.fold}-s{self.seed}"

    @property
    def training_seed(self) -> int:
        """The seed of its training: another for each fold, the same for every arm, so that arms are paired."""
        return derive_seed(self.seed, "repeat", self.repeat, "fold", self.fold) % 2**31


@dataclass(frozen=True)
class Study:
    """What is asked, and of what."""

    name: str
    package: str
    """Whose training it is: the adapter's name."""
    arms: Mapping[str, Mapping[str, Any]]
    """Each arm's configuration, as nested plain values, of the package's own dataclass."""
    design: Design
    metric: str
    """What the arms are compared by."""
    control: str
    """The arm that the others are compared with."""
    rope: float
    """Differences of the metric up to this size count as none: the region of practical equivalence."""
    contrasts: tuple[tuple[str, str], ...] = ()
    """Planned contrasts, (arm, control); by default every arm against ``control``."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the data is: name, fingerprint, number of images, classes."""
    search: Mapping[str, Any] | None = None
    """Options to choose in every unit by trials inside its training images (nested cross-validation)."""
    command: str = ""
    """The command line that asked."""
    created: str = ""
    """Date and time, ISO 8601."""

    def __post_init__(self) -> None:
        """Refuse studies that cannot answer.

        Raises:
            InputError: Naming what is wrong.
        """
        if slug(self.name) != self.name:
            raise InputError(f'--name: expected letters, digits, ".", "_" and "-", got "{self.name}"')
        if len(self.arms) < 2:
            raise InputError(f"--arm: a comparison needs at least two arms, got {len(self.arms)}")
        if len({slug(arm) for arm in self.arms}) < len(self.arms):
            raise InputError(f"--arm: names too much alike: {', '.join(self.arms)}")
        for arm in {self.control, *(arm for pair in self.contrasts for arm in pair)}:
            if arm not in self.arms:
                raise InputError(f'no arm "{arm}"; there are {", ".join(self.arms)}')
        if self.num_runs < 2:
            raise InputError("one fold and one seed are one value: no variance to compare with; --folds or --seeds")
        if not self.rope >= 0:
            raise InputError(f"--rope: expected a difference of at least 0, got {self.rope}")

    @property
    def num_runs(self) -> int:
        """Trainings of each arm."""
        return self.design.repeats * self.design.folds * len(self.design.seeds)

    @property
    def experiment(self) -> str:
        """The MLflow experiment that holds its runs."""
        return f"study/{self.name}"

    @property
    def planned(self) -> tuple[tuple[str, str], ...]:
        """The contrasts that are tested."""
        return self.contrasts or tuple((arm, self.control) for arm in self.arms if arm != self.control)

    def units(self) -> list[Unit]:
        """All units; the arms of one fold one after the other, so that an unfinished study has whole pairs."""
        d = self.design
        return [
            Unit(arm, repeat, fold, seed)
            for repeat in range(d.repeats)
            for fold in range(d.folds)
            for seed in d.seeds
            for arm in self.arms
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Study":
        """What :meth:`to_dict` gave, JSON or not in between."""
        design = {**values["design"], "seeds": tuple(values["design"]["seeds"])}
        contrasts = tuple((arm, control) for arm, control in values["contrasts"])
        return cls(**{**values, "design": Design(**design), "contrasts": contrasts})

    def same_question(self, other: "Study") -> bool:
        """Whether two studies would train the same."""
        parts = ("package", "arms", "design", "search")
        mine, theirs = ({k: s.to_dict()[k] for k in parts} for s in (self, other))
        return configuration.fingerprint(repr(mine)) == configuration.fingerprint(repr(theirs))


def study_folder(name: str) -> pathlib.Path:
    """Where a study keeps its queue, logs, scores and report: ``studies/NAME`` in the project's root."""
    return project_root() / "studies" / name


def slug(text: str) -> str:
    """The text in letters that a file name takes.

    Example:
        >>> slug("B = 1.5, no bias")
        'B-1.5-no-bias'
    """
    return re.sub(r"[^\w.]+", "-", text).strip("-")
