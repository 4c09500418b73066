"""Many arms at a glance: Friedman's test and the critical difference of mean ranks."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from .result import Omnibus, TestResult
from .student import round_off, score_scale


def critical_difference(num_arms: int, num_units: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks: q sqrt(k (k + 1) / (6 n)) (Demšar, JMLR 7, 2006, sec. 3.2.2).

    Example:
        >>> round(critical_difference(4, 14), 2)  # Demšar's example
        1.25
    """
    q = float(stats.studentized_range.ppf(1 - alpha, num_arms, np.inf)) / 2**0.5
    return q * (num_arms * (num_arms + 1) / (6 * num_units)) ** 0.5


def rank_arms(
    scores: Float[np.ndarray, "units arms"], arms: Sequence[str], *, higher_is_better: bool = True, alpha: float = 0.05
) -> Omnibus:
    """Mean ranks of three or more arms over the same units.

    Args:
        scores: A row for each fold or seed.
        arms: Their names.
        higher_is_better: Whether rank 1 is the highest score.
        alpha: Level of the critical difference.

    Example:
        >>> rank_arms(np.array([[0.9, 0.8, 0.7], [0.8, 0.9, 0.6]]), ["a", "b", "c"]).ranks
        (('a', 1.5), ('b', 1.5), ('c', 3.0))
    """
    scores = round_off(scores, score_scale(scores))
    ranks = stats.rankdata(-scores if higher_is_better else scores, axis=1).mean(0)
    if (scores == scores[:, :1]).all():  # every unit a tie: SciPy divides by zero
        statistic, p = 0.0, 1.0
    else:
        statistic, p = map(float, stats.friedmanchisquare(*scores.T))
    says = "Descriptive: takes folds or seeds for independent data sets. The contrasts are the tests."
    return Omnibus(
        TestResult("Friedman", statistic, len(arms) - 1, p, says),
        tuple(sorted(zip(arms, map(float, ranks), strict=True), key=lambda pair: pair[1])),
        critical_difference(len(arms), len(scores), alpha),
    )
