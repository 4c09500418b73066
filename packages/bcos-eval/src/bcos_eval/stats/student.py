"""Student's t in five forms: a mean, its standard error and degrees of freedom give test, interval and posterior."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from .result import TestResult

Scores = Float[np.ndarray, " n"]
ROUNDING = 1e-12
"""Relative size up to which differences of scores are rounding error: what varies by less does not vary."""


@dataclass(frozen=True)
class Estimate:
    """A mean (difference) that follows Student's t; where nothing varied, ``se`` is 0.

    Example:
        >>> Estimate("t", mean=1.58, se=0.388961, df=9, says="").p  # Student's sleep data (1908)
        0.002832...
    """

    name: str
    mean: float
    se: float
    df: float
    says: str

    @property
    def statistic(self) -> float:
        """t; 0 if nothing differs, NaN where a difference without variance leaves nothing to test by."""
        if self.se == 0:
            return 0.0 if self.mean == 0 else math.nan
        return self.mean / self.se

    @property
    def p(self) -> float:
        """Two-sided p; 1 if nothing differs, NaN as the statistic is."""
        return float(2 * stats.t.sf(abs(self.statistic), self.df))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Ends of the confidence interval of the mean; NaN of a mean without variance that is not 0."""
        if self.se == 0 and self.mean != 0:
            return math.nan, math.nan
        half = float(stats.t.isf((1 - confidence) / 2, self.df)) * self.se
        return self.mean - half, self.mean + half

    def test(self) -> TestResult:
        """The test of a mean of zero."""
        return TestResult(self.name, self.statistic, self.df, self.p, self.says)


def round_off(x: Float[np.ndarray, "..."], scale: float) -> Float[np.ndarray, "..."]:
    """Values that are equal where they differ by rounding error alone, on the scale of the scores they come from.

    Example:
        >>> scores = np.array([0.3, 0.1 + 0.2])
        >>> len(set(scores)), len(set(round_off(scores, 0.3)))
        (2, 1)
    """
    return np.round(x, -math.ceil(math.log10(ROUNDING * scale))) if scale else x


def paired_t(arm: Scores, control: Scores) -> Estimate:
    """Paired t: differences, standard error s / sqrt(n), n - 1 degrees of freedom.

    Args:
        arm: Scores, shape (n,), n at least 2.
        control: Scores of the same units in the same order, shape (n,).

    Example:
        >>> paired_t(np.array([0.93, 0.95, 0.94]), np.array([0.92, 0.93, 0.93])).statistic
        4.0...
    """
    mean, variance = _spread(arm - control, score_scale(arm, control))
    says = "Takes the differences for independent and near normal."
    return Estimate("paired t", mean, math.sqrt(variance / len(arm)), len(arm) - 1, says)


def corrected_t(arm: Scores, control: Scores, ratio: float) -> Estimate:
    """Corrected resampled t: the standard error of a paired t, for folds that share training samples.

    se² = (1/n + n_test/n_train) s², n - 1 degrees of freedom (Nadeau and Bengio, Machine Learning 52, 2003, sec. 4.2.3;
    Bouckaert and Frank, PAKDD 2004, for repeated cross-validation). The correction is the one for differences
    correlated by n_test / (n_train + n_test) from fold to fold.

    Args:
        arm: A score for each fold of each repeat, shape (n,), n at least 2.
        control: Scores of the same folds in the same order, shape (n,).
        ratio: n_test / n_train.

    Example:
        >>> scores = np.array([0.93, 0.95, 0.94, 0.96, 0.95]), np.array([0.92, 0.93, 0.93, 0.95, 0.95])
        >>> corrected_t(*scores, ratio=1 / 4).p > paired_t(*scores).p
        True
    """
    mean, variance = _spread(arm - control, score_scale(arm, control))
    says = (
        "Takes differences for near normal, and correlated from fold to fold by the share of samples tested (Nadeau "
        "and Bengio); a rule of thumb, and safe where folds agree less than that."
    )
    return Estimate("corrected resampled t", mean, math.sqrt((1 / len(arm) + ratio) * variance), len(arm) - 1, says)


def welch_t(arm: Scores, control: Scores) -> Estimate:
    """Welch's t: independent runs, a variance for each arm, Satterthwaite's degrees of freedom.

    Args:
        arm: Scores, shape (n,), n at least 2.
        control: Scores, shape (m,), m at least 2.
    """
    difference, (v, n), (w, m) = _independent(arm, control)
    parts = v / n, w / m
    df = sum(parts) ** 2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1)) if sum(parts) else n + m - 2
    says = "Takes all runs for independent and near normal; the arms' variances may differ."
    return Estimate("Welch t", difference, math.sqrt(sum(parts)), df, says)


def student_t(arm: Scores, control: Scores) -> Estimate:
    """Student's t of independent runs, with one variance for both arms.

    Args:
        arm: Scores, shape (n,), n at least 2.
        control: Scores, shape (m,), m at least 2.
    """
    difference, (v, n), (w, m) = _independent(arm, control)
    pooled = ((n - 1) * v + (m - 1) * w) / (n + m - 2)
    says = "Takes all runs for independent and near normal, with the same variance in both arms."
    return Estimate("Student t", difference, math.sqrt(pooled * (1 / n + 1 / m)), n + m - 2, says)


def _independent(arm: Scores, control: Scores) -> tuple[float, tuple[float, int], tuple[float, int]]:
    scale = score_scale(arm, control)
    (mean, v), (other, w) = _spread(arm, scale), _spread(control, scale)
    difference = mean - other
    return (
        (0.0 if v == w == 0 and abs(difference) <= ROUNDING * scale else difference),
        (v, len(arm)),
        (w, len(control)),
    )


def _spread(x: Scores, scale: float) -> tuple[float, float]:
    """Mean and variance, without what is rounding error on this scale."""
    mean, variance = float(x.mean()), float(x.var(ddof=1))
    if variance > (ROUNDING * scale) ** 2:
        return mean, variance
    return (0.0 if abs(mean) <= ROUNDING * scale else mean), 0.0


def score_scale(*scores: Scores) -> float:
    """The largest size among scores."""
    return float(max(np.abs(x).max() for x in scores))
