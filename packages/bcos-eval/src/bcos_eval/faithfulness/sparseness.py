"""How few pixels an explanation needs."""

import torch
from jaxtyping import Float
from torch import Tensor


def gini_index(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n"]:
    """Gini index of absolute values (Chalasani et al., ICML 2020, arXiv 1810.06583; Hurley & Rickard, 2009).

    0 if all are equal, 1 - 1/n if a single one of n is not zero; not a number for a map of zeros. Higher is sparser,
    which is easier to read and by itself no more faithful.

    Example:
        >>> gini_index(torch.tensor([[[0.0, 0.0], [0.0, -3.0]]]))
        tensor([0.7500], dtype=torch.float64)
    """
    values = maps.double().abs().flatten(1).sort(1).values
    n = values.shape[1]
    weights = (n - torch.arange(1, n + 1, device=maps.device) + 0.5) / n
    return 1 - 2 * (values * weights).sum(1) / values.sum(1)
