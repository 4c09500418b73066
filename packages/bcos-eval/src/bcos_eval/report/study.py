"""What a report is made of."""

import datetime
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..scores import ScoreTable
from ..stats.result import Comparison


@dataclass(frozen=True)
class Picture:
    """A PNG or SVG file with its caption."""

    path: pathlib.Path
    caption: str


@dataclass(frozen=True)
class MissingUnit:
    """A unit of the design without scores."""

    arm: str
    repeat: int
    fold: int
    seed: int
    reason: str
    """"not run yet", or how it failed."""


@dataclass(frozen=True)
class Data:
    """What was trained on."""

    name: str
    fingerprint: str
    counts: Mapping[str, int]
    """"images": 1797, say."""
    classes: Sequence[str] = ()


@dataclass(frozen=True)
class Timings:
    """Where the study's time went."""

    training_seconds: float
    """Of all training loops, added up."""
    run_seconds: float
    """Of all runs, added up: training with data, evaluation and tracking."""
    wall_seconds: float
    """From the first start to the last end."""
    workers: int

    @property
    def overhead(self) -> float:
        """Time of the workers beyond that of the runs, as a share of the runs'."""
        return max(0.0, self.wall_seconds * self.workers / self.run_seconds - 1) if self.run_seconds else 0.0


@dataclass(frozen=True)
class StudyReport:
    """A study from question to answer; the page is a function of this alone."""

    title: str
    question: str
    """"Is A better than B on ...?", a sentence."""
    made: datetime.date
    arms: Mapping[str, Mapping[str, object]]
    """Each arm's configuration: options by dotted name."""
    data: Data
    table: ScoreTable
    """What was scored; its design says what was planned."""
    comparisons: Sequence[Comparison]
    """One for each metric, the one that answers first; none if there is nothing to compare yet."""
    says: Mapping[str, str] = field(default_factory=dict)
    """What a metric is, where its name leaves that open."""
    pictures: Sequence[Picture] = ()
    """Of the scores; :func:`~bcos_eval.report.pictures.draw_pictures` makes them."""
    galleries: Sequence[Picture] = ()
    """Of explanations."""
    missing: Sequence[MissingUnit] = ()
    timings: Timings | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    """What to type to run this again."""
    tracking: str = ""
    """Where the runs are: name of the MLflow experiment and how to open it."""

    @property
    def planned(self) -> int:
        """Units that the design asks of all arms together."""
        design = self.table.design
        return len(self.arms) * design.repeats * design.folds * len(design.seeds)
