"""Two fitted models on the same images: McNemar's test, and what becomes of it over folds."""

from typing import Any

import numpy as np
from jaxtyping import Bool
from statsmodels.stats.contingency_tables import mcnemar as _mcnemar

from .result import TestResult

FEWEST_FOR_CHI_SQUARE = 25
"""Images on which just one model is right, below which the test is exact."""


def mcnemar(arm: Bool[np.ndarray, " images"], control: Bool[np.ndarray, " images"], *, folds: int = 1) -> TestResult:
    """McNemar's test: of the images that one model alone gets right, is it one model as often as the other?

    Exact (binomial) where such images are fewer than 25, else chi-square with continuity correction.

    Args:
        arm: Whether each image was classified right.
        control: The same of the other model, on the same images in the same order.
        folds: How many models of each arm predicted them; 1, or each image by the model of its fold.

    Raises:
        ValueError: If these are not booleans of one shape.

    Example:
        >>> arm, control = np.arange(20) < 18, np.arange(20) < 12
        >>> test = mcnemar(arm, control)
        >>> test.name, test.p  # 6 of 6: 2 / 2^6
        ('McNemar, exact', 0.03125)
    """
    if arm.dtype != bool or control.dtype != bool or arm.ndim != 1 or arm.shape != control.shape:
        got = f"{arm.dtype} {arm.shape} and {control.dtype} {control.shape}"
        raise ValueError(f"predictions: expected a boolean (right or wrong) for each of the same images, got {got}")
    b, c = int((arm & ~control).sum()), int((~arm & control).sum())
    exact = b + c < FEWEST_FOR_CHI_SQUARE
    table = [[int((arm & control).sum()), b], [c, int((~arm & ~control).sum())]]
    found: Any = _mcnemar(table, exact=exact)
    says = f"Of {len(arm)} images the arm alone is right on {b}, the control alone on {c}; " + (
        "speaks of these two fitted models on other images, not of training again."
        if folds == 1
        else f"pools {folds} models of each arm, every image predicted by the one that was not trained on it. Their "
        "training sets overlap, and p takes the images for independent: descriptive."
    )
    name = "McNemar, exact" if exact else "McNemar"
    return TestResult(name, float(found.statistic), None if exact else 1, float(found.pvalue), says)
