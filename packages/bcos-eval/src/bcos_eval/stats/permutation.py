"""Sign flips: a test of paired differences that needs no normal distribution."""

import numpy as np
from jaxtyping import Float
from scipy import stats

from .result import TestResult

MOST_PATTERNS = 2**15
"""Sign patterns up to which all are tried."""
NUM_DRAWN = 9999
"""Patterns drawn where there are more."""


def sign_flip(differences: Float[np.ndarray, " n"], *, seed: int = 0) -> TestResult:
    """Sign-flip permutation test of a mean difference of zero, two-sided.

    All 2^n patterns of signs up to n = 15, else 9999 random ones and the observed one.

    Args:
        differences: Paired differences, shape (n,).
        seed: Of the draw.

    Example:
        >>> sign_flip(np.array([1.0, 2.0, 3.0, 4.0, 5.0])).p  # 2 of 2^5 patterns are as extreme
        0.0625
    """
    patterns = 2 ** len(differences)
    exact = patterns <= MOST_PATTERNS
    found = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=patterns if exact else NUM_DRAWN,
        rng=np.random.default_rng(seed),
    )
    tried = f"all {patterns} patterns of signs" if exact else f"{NUM_DRAWN} random patterns of signs"
    least = f"; p is at least {2 / patterns:.2g} whatever the differences" if exact else ""
    says = f"Tried {tried}; takes the differences for independent and symmetric, normal or not{least}."
    return TestResult("sign-flip permutation", float(found.statistic), None, float(found.pvalue), says)
