"""Two tests made for five repeats of a twofold cross-validation, and for nothing else."""

import numpy as np
from jaxtyping import Float
from scipy import stats

from .result import TestResult


def five_by_two_t(differences: Float[np.ndarray, "5 2"]) -> TestResult:
    """5x2cv paired t: the first fold's difference over the spread within repeats.

    t = p_11 / sqrt(mean_i s_i²) with s_i² = (p_i1 - p_i2)² / 2; 5 degrees of freedom (Dietterich, Neural Computation
    10, 1998, sec. 3.5).

    Args:
        differences: Of scores, arm minus control; repeats by folds.

    Raises:
        ValueError: If the shape is not (5, 2).

    Example:
        >>> five_by_two_t(np.array([[3, 1], [2, 0], [2, 4], [1, 3], [5, 3]]) / 100).statistic  # s_i² = 2e-4
        2.12132...
    """
    statistic = _ratio(differences[0, 0], np.sqrt(_within(differences).mean()))
    says = "Uses one fold's difference against the spread within five twofold repeats (Dietterich): low power."
    return TestResult("5x2cv t", statistic, 5, float(2 * stats.t.sf(abs(statistic), 5)), says)


def five_by_two_f(differences: Float[np.ndarray, "5 2"]) -> TestResult:
    """Combined 5x2cv F: all ten differences over the spread within repeats.

    F = sum_ij p_ij² / (2 sum_i s_i²) on 10 and 5 degrees of freedom (Alpaydin, Neural Computation 11, 1999).

    Args:
        differences: Of scores, arm minus control; repeats by folds.

    Raises:
        ValueError: If the shape is not (5, 2).

    Example:
        >>> five_by_two_f(np.array([[3, 1], [2, 0], [2, 4], [1, 3], [5, 3]]) / 100).statistic  # 78e-4 / (2 * 10e-4)
        3.9...
    """
    statistic = _ratio((differences**2).sum(), 2 * _within(differences).sum())
    says = "F on 10 and 5 degrees of freedom from five twofold repeats (Alpaydin)."
    return TestResult("5x2cv F", statistic, None, float(stats.f.sf(statistic, 10, 5)), says)


def _within(differences: Float[np.ndarray, "5 2"]) -> Float[np.ndarray, " 5"]:
    if differences.shape != (5, 2):
        raise ValueError(f"differences: expected shape (5, 2), five repeats of two folds, got {differences.shape}")
    return differences.var(axis=1, ddof=1)


def _ratio(above: float, below: float) -> float:
    """The quotient; 0 if nothing differs, NaN where nothing varies to test by."""
    return float(above / below) if below > 0 else 0.0 if above == 0 else np.nan
