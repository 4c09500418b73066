"""Differences in units of spread."""

import numpy as np
from jaxtyping import Float
from statsmodels.stats.meta_analysis import effectsize_smd


def hedges_g(arm: Float[np.ndarray, " n"], control: Float[np.ndarray, " m"]) -> float:
    """Hedges g: difference of means over the pooled sd, times 1 - 3 / (4 (n + m) - 9) for small samples.

    The factor is Hedges' approximation (J. Educational Statistics 6, 1981) of the exact one of Gamma functions: at
    n = m = 2 it is 1.3% too large, at 5 less than 0.1%.

    Args:
        arm: Scores, at least 2, not all the same as each other in both arms.
        control: Scores, at least 2.

    Example:
        >>> hedges_g(np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0, 3.0]))  # 2 sd apart, times 0.8
        1.6
    """
    both = [f(x) for x in (arm, control) for f in (np.mean, lambda x: np.std(x, ddof=1), len)]
    return float(effectsize_smd(*both)[0])


def paired_d(arm: Float[np.ndarray, " n"], control: Float[np.ndarray, " n"]) -> float:
    """Mean of paired differences over their own sd (Cohen's d_z): larger than g where the pairs go together.

    Example:
        >>> paired_d(np.array([3.0, 5.0, 7.0]), np.array([1.0, 2.0, 3.0]))
        3.0
    """
    differences = arm - control
    return float(differences.mean() / differences.std(ddof=1))
