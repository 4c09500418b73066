"""Sign flips: a test of paired differences that needs no normal distribution."""

import numpy as np
from jaxtyping import Float
from scipy import stats

from .result import TestResult

MOST_FLIPS = 2**15
"""Sign patterns up to which all are tried; beyond, this many are drawn."""


def sign_flip(differences: Float[np.ndarray, " n"], *, seed: int = 0, num_flips: int = MOST_FLIPS) -> TestResult:
    """Sign-flip permutation test of a mean difference of zero, two-sided.

    All 2^n patterns of signs if they are at most ``num_flips``, else as many random ones (whose p counts the observed
    pattern among them and so is never 0).

    Args:
        differences: Paired differences, shape (n,).
        seed: Of the draw.
        num_flips: Most patterns tried.

    Example:
        >>> sign_flip(np.array([1.0, 2.0, 3.0, 4.0, 5.0])).p  # 2 of 2^5 patterns are as extreme
        0.0625
    """
    exact = 2 ** len(differences) <= num_flips
    found = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=num_flips - (not exact),  # with the observed pattern, which SciPy adds to random ones
        rng=np.random.default_rng(seed),
    )
    how = f"all {2 ** len(differences)} patterns of signs" if exact else f"{num_flips - 1} random patterns of signs"
    says = f"Tried {how}; takes the differences for independent and symmetric, normal or not."
    return TestResult("sign-flip permutation", float(found.statistic), None, float(found.pvalue), says)
