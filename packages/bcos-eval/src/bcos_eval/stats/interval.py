"""Intervals of an arm's mean."""

import math

import numpy as np
from jaxtyping import Float

from .student import corrected_t, paired_t


def interval_method(ratio: float | None) -> str:
    """Which interval :func:`mean_interval` makes."""
    return "t of the seeds" if ratio is None else "t with the variance of the corrected resampled t"


def mean_interval(
    values: Float[np.ndarray, " n"],
    *,
    ratio: float | None = None,
    confidence: float = 0.95,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    """Confidence interval of a mean score, by t: for few seeds the bootstrap covers less (docs/results/statistics.md).

    Args:
        values: At least 2.
        ratio: n_test / n_train, for folds, whose variance is corrected
            (:func:`~bcos_eval.stats.student.corrected_t`); None for seeds.
        confidence: In (0, 1).
        within: What the values can be (:func:`~bcos_eval.stats.metric.value_range`). An interval of few values by t
            may reach beyond, where no mean can be: it is cut there, and covers the mean as often as before.

    Returns:
        The ends; NaN of values that do not vary.

    Example:
        >>> low, high = mean_interval(np.array([0.90, 0.92, 0.94]))
        >>> round(low, 4), round(high, 4)
        (0.8703, 0.9697)
    """
    zero = np.zeros_like(values)
    estimate = paired_t(values, zero) if ratio is None else corrected_t(values, zero, ratio)
    if estimate.se == 0:  # of a mean of 0, too: that is no difference here
        return math.nan, math.nan
    return cut(estimate.interval(confidence), within)


def cut(ends: tuple[float, float], within: tuple[float, float]) -> tuple[float, float]:
    """An interval without what lies beyond what there can be; as it is if it lies there altogether.

    Example:
        >>> cut((0.9, 1.1), (0.0, 1.0)), cut((98.0, 99.0), (0.0, 1.0))
        ((0.9, 1.0), (98.0, 99.0))
    """
    low, high = max(ends[0], within[0]), min(ends[1], within[1])
    return (low, high) if low <= high else ends
