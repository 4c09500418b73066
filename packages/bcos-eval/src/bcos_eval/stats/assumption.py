"""What a reader should know of the values before a test's p; nothing here chooses the test."""

import numpy as np
from jaxtyping import Float
from scipy import stats

from .student import ROUNDING

FEW = 5


def assumption_notes(values: Float[np.ndarray, " n"], what: str) -> list[str]:
    """Notes on the values that a t test is made of.

    Args:
        values: Paired differences, or an arm's scores.
        what: What they are called in a note.

    Example:
        >>> assumption_notes(np.array([0.01, 0.02, 0.04]), "differences")
        ['only 3 differences: an interval from so few leans on their being normal']
    """
    if np.ptp(values) <= ROUNDING * np.abs(values).max():
        return [f"all {len(values)} {what} are the same"]
    if len(values) < FEW:
        return [f"only {len(values)} {what}: an interval from so few leans on their being normal"]
    p = float(stats.shapiro(values).pvalue)
    found = "not normal by their looks" if p < 0.05 else "nothing against normal"
    return [f"{what}: Shapiro-Wilk p = {p:.2g}, {found} (n = {len(values)}; the test is not chosen by it)"]
