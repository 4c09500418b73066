"""What a comparison found: numbers for the report, with the sentences that say what they mean."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ArmSummary:
    """One arm's scores."""

    arm: str
    values: tuple[float, ...]
    """A score for each fold (its mean over seeds) or, on one split, for each seed."""
    mean: float
    sd: float
    low: float
    """Lower end of the interval of the mean, by the method that the design calls for; NaN where scores do not vary."""
    high: float


@dataclass(frozen=True)
class TestResult:
    """One significance test."""

    __test__ = False  # pytest would collect a class of this name

    name: str
    """"corrected resampled t", "paired t", "Welch t", "5x2cv t", "McNemar", "sign-flip permutation", ..."""
    statistic: float
    df: float | None
    p: float
    says: str
    """What it assumes here, and when to trust it, in one sentence."""


@dataclass(frozen=True)
class Bayes:
    """Posterior shares of the mean difference."""

    rope: float
    """Differences up to this size count as none."""
    worse: float
    equivalent: float
    better: float


@dataclass(frozen=True)
class Power:
    """What the study could see, and what it would take."""

    detectable: float
    """Smallest mean difference found with ``power`` at level ``alpha``, in the metric's unit, were the observed sd the
    true one."""
    needed: int | None
    """Runs of each arm (or folds) that would find a difference of the size of the ROPE; None if more than 10 000, or if
    the ROPE is 0."""
    alpha: float = 0.05
    """Level of the comparison over the number of its contrasts: what Holm asks of the smallest p, and the most that it
    asks of any."""
    power: float = 0.8


@dataclass(frozen=True)
class Contrast:
    """One arm against another, for one metric."""

    metric: str
    arm: str
    control: str
    differences: tuple[float, ...]
    """arm minus control, a value for each pair; empty where runs are not paired."""
    mean: float
    """Mean difference, arm minus control."""
    low: float
    """Lower end of its interval; NaN where every difference is the same, and not 0."""
    high: float
    confidence: float
    estimand: str
    """What the difference is a difference of, and which variance the interval covers, in one sentence."""
    default: str
    """Name of the test that answers; the others are beside it."""
    tests: tuple[TestResult, ...]
    p: float
    """Of the default test; NaN as the interval is."""
    p_holm: float
    """The same, adjusted over the planned contrasts (Holm)."""
    hedges_g: float
    paired_d: float | None
    bayes: Bayes | None
    power: Power | None
    notes: tuple[str, ...] = ()
    """What a reader must know: assumption checks, zero variance, few values."""


@dataclass(frozen=True)
class Omnibus:
    """Three or more arms ranked over the same folds or seeds: an overview, no test to act on."""

    test: TestResult
    ranks: tuple[tuple[str, float], ...]
    """Arm and mean rank, best (nearest 1) first."""
    critical_difference: float
    """Mean ranks of independent data sets would differ by more than this in a share alpha of studies of equal arms."""


@dataclass(frozen=True)
class Comparison:
    """All of one metric's comparisons in a study."""

    metric: str
    higher_is_better: bool
    design: str
    """As a report calls it: "10x5-fold"."""
    rope: float
    alpha: float
    arms: tuple[ArmSummary, ...]
    interval: str
    """How the arms' intervals are made, and what there is to know of them."""
    contrasts: tuple[Contrast, ...]
    omnibus: Omnibus | None
    """None for two arms, or runs that are not paired."""
    notes: tuple[str, ...] = ()
    """What concerns the whole study: units that are missing, values of little use."""
