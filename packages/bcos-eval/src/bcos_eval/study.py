"""A study: arms, and the units of work that compare them. What it is made of, and where it is kept."""

import copy
import dataclasses
import math
import pathlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bcos_core.run.error import InputError
from bcos_core.run.seed import derive_seed
from bcos_core.run.tracking import project_root

from .design import Design

PLAN = "study.json"
"""What a study asks, in its folder."""


def make_key() -> str:
    """A name that no other study has."""
    return uuid.uuid4().hex[:12]


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
class Job:
    """One training, wholly decided: what a process of its own is given."""

    package: str
    """The adapter's name."""
    values: Mapping[str, Any]
    """Configuration, nested plain values."""
    unit: Unit
    """Whose fold and seed it has."""
    folds: int
    """Folds of the study, 1 for the configuration's own split."""
    inner: tuple[int, int] | None
    """Inner folds, and which of them is the test."""
    id: str
    """What the training is called within its study."""
    key: str
    """Of the study: with the id, what the run is found by in MLflow."""
    experiment: str
    arm: str
    tags: Mapping[str, str]
    fingerprint: str
    """Of the data that was planned with, where other data is to be refused."""


@dataclass(frozen=True)
class Search:
    """Options to choose by trials."""

    space: Mapping[str, Mapping[str, Any]]
    """Dotted option -> what to choose from; see :func:`bcos_eval.space.read_space`."""
    trials: int
    folds: int
    """Parts that the training samples are cut into; a trial's value is its mean over them."""


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
    alpha: float = 0.05
    """Level of the tests; intervals have confidence 1 - alpha."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the data is: name, fingerprint, number of images, classes."""
    search: Search | None = None
    """Options to choose in every unit by trials inside its training samples (nested cross-validation)."""
    command: str = ""
    """The command line that asked."""
    created: str = ""
    """Date and time, ISO 8601."""

    key: str = field(default_factory=make_key)
    """What its runs are found by in MLflow: another study of the same name has others."""

    def __post_init__(self) -> None:
        """Refuse studies that cannot answer.

        Raises:
            InputError: Naming what is wrong.
        """
        _check_name(self.name)
        if len(self.arms) < 2:
            raise InputError(f"--arm: a comparison needs at least two arms, got {len(self.arms)}")
        if len({slug(arm) for arm in self.arms}) < len(self.arms):
            raise InputError(f"--arm: names too much alike: {', '.join(self.arms)}")
        for arm in {self.control, *(arm for pair in self.contrasts for arm in pair)}:
            if arm not in self.arms:
                raise InputError(f'no arm "{arm}"; there are {", ".join(self.arms)}')
        for pair in self.contrasts:
            if pair[0] == pair[1] or self.contrasts.count(pair) > 1:
                raise InputError(f"--contrast {','.join(pair)}: expected two arms, and each pair once")
        if self.num_runs < 2:
            raise InputError("one fold and one seed are one value: no variance to compare with; --folds or --seeds")
        if not 0 <= self.rope < math.inf:
            raise InputError(f"--rope: expected a difference of at least 0, got {self.rope}")
        if not 0 < self.alpha < 1:
            raise InputError(f"--alpha: expected a level between 0 and 1, got {self.alpha}")

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

    def job(self, unit: Unit, options: Mapping[str, Any] | None = None) -> Job:
        """The training of a unit, with the options that a search chose for it."""
        values = overlay(self.arms[unit.arm], options or {})
        tags = {"study": self.name, "repeat": str(unit.repeat), "unit": unit.id, "arm_name": unit.arm}
        return Job(
            self.package, values, unit, self.design.folds, None, unit.id, self.key, self.experiment, unit.arm, tags,
            self.data.get("fingerprints", {}).get(unit.arm, ""),
        )  # fmt: skip

    def inner_job(self, unit: Unit, trial: int, options: Mapping[str, Any], fold: int) -> Job:
        """One inner fold of a trial of a unit's search."""
        assert self.search is not None
        return _inner_job(
            self, self.arms[unit.arm], unit, self.design.folds, f"{unit.id}-t{trial}", self.search.folds, fold, options,
            f"{self.experiment}/search",
        )  # fmt: skip


@dataclass(frozen=True)
class Tuning:
    """A search over options on one split of the data, all of it inside the training samples."""

    name: str
    package: str
    values: Mapping[str, Any]
    """Configuration that the trials change, as nested plain values."""
    search: Search
    metric: str
    """What trials are compared by; its mean over the inner folds."""
    preset: str | None = None
    """Of the training, if one was named; otherwise that of the data."""
    seed: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    created: str = ""
    key: str = field(default_factory=make_key)

    def __post_init__(self) -> None:
        """Refuse what cannot be called so.

        Raises:
            InputError: Naming what is wrong.
        """
        _check_name(self.name)

    @property
    def experiment(self) -> str:
        """The MLflow experiment that holds its runs."""
        return f"tune/{self.name}"

    def units(self) -> list[Unit]:
        """A unit for each trial; which options it tries is asked when it begins."""
        return [Unit("trial", repeat=i, seed=self.seed) for i in range(self.search.trials)]

    def inner_job(self, unit: Unit, options: Mapping[str, Any], fold: int) -> Job:
        """One inner fold of a trial; the seeds are the same for all trials, so that they are paired."""
        of_all = Unit("trial", seed=self.seed)
        folds = self.search.folds
        return _inner_job(self, self.values, of_all, 1, unit.id, folds, fold, options, self.experiment)


Plan = Study | Tuning


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {"kind": type(plan).__name__, **dataclasses.asdict(plan)}


def plan_from_dict(values: Mapping[str, Any]) -> Plan:
    """What :func:`plan_to_dict` gave, JSON or not in between."""
    fields = dict(values)
    kind = fields.pop("kind")
    if fields["search"] is not None:
        fields["search"] = Search(**fields["search"])
    if kind == "Tuning":
        return Tuning(**fields)
    fields["design"] = Design(**{**fields["design"], "seeds": tuple(fields["design"]["seeds"])})
    fields["contrasts"] = tuple((arm, control) for arm, control in fields["contrasts"])
    return Study(**fields)


def overlay(values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with dotted options put over them.

    Example:
        >>> overlay({"b": 2.0, "optim": {"lr": 0.1}}, {"optim.lr": 0.01})
        {'b': 2.0, 'optim': {'lr': 0.01}}
    """
    changed = copy.deepcopy(dict(values))
    for name, value in options.items():
        *groups, last = name.split(".")
        place = changed
        for group in groups:
            place = place[group]
        place[last] = value
    return changed


def _inner_job(
    plan: "Study | Tuning",
    values: Mapping[str, Any],
    unit: Unit,
    folds: int,
    trial: str,
    inner_folds: int,
    fold: int,
    options: Mapping[str, Any],
    experiment: str,
) -> Job:
    short = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in options.items()}
    said = ", ".join(f"{name}={value}" for name, value in short.items())
    tags = {"unit": f"{trial}-i{fold}", "trial": trial, "options": said, "inner_fold": str(fold)}
    return Job(
        plan.package, overlay(values, options), unit, folds, (inner_folds, fold), tags["unit"], plan.key, experiment,
        said, tags, "",
    )  # fmt: skip


def _check_name(name: str) -> None:
    if slug(name) != name or name.startswith("."):
        raise InputError(f'--name: expected letters, digits, ".", "_" and "-", got "{name}"')


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
