"""Intervals of an arm's mean."""

import numpy as np
from jaxtyping import Float

from .student import corrected_t, paired_t


def interval_method(ratio: float | None) -> str:
    """Which interval :func:`mean_interval` makes."""
    return "t of the seeds" if ratio is None else "t with the variance of the corrected resampled t"


def mean_interval(
    values: Float[np.ndarray, " n"], *, ratio: float | None = None, confidence: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of a mean score, by t: for few seeds the bootstrap covers less (docs/results/statistics.md).

    Args:
        values: At least 2.
        ratio: n_test / n_train, for folds, whose variance is corrected
            (:func:`~bcos_eval.stats.student.corrected_t`); None for seeds.
        confidence: In (0, 1).

    Example:
        >>> low, high = mean_interval(np.array([0.90, 0.92, 0.94]))
        >>> round(low, 4), round(high, 4)
        (0.8703, 0.9697)
    """
    zero = np.zeros_like(values)
    estimate = paired_t(values, zero) if ratio is None else corrected_t(values, zero, ratio)
    return estimate.interval(confidence)
