"""Gradients cut down to size, after their backward and, in float16, their unscaling."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_SMALLEST_NORM = 1e-3  # of weights: units that are still zero could never leave it


@torch.no_grad()
def clip_to_weights_(parameters: Iterable[nn.Parameter], share: float) -> None:
    """Adaptive gradient clipping, in place: no unit's gradient is longer than a share of its weights.

    A unit is what makes one output: a row of a matrix, a filter of a convolution; a parameter of one dimension is one
    unit. G <- G · min(1, share · max(|W|, 1e-3) / |G|) for each.

    Source: Brock et al., 2021 (arXiv 2102.06171), eq. 3. They leave out the last layer; as in the code of B-cos v2
    nothing is left out here.

    Args:
        parameters: Those without a gradient are passed over.
        share: Largest norm of a gradient as a share of its weights' norm (lambda).

    Example:
        >>> weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
        >>> weight.grad = torch.tensor([[0.0, 10.0]])
        >>> clip_to_weights_([weight], 0.01)
        >>> weight.grad
        tensor([[0.0000, 0.0500]])
    """
    for parameter in parameters:
        if (gradient := parameter.grad) is not None:
            limit = _unit_norms(parameter).clamp(min=_SMALLEST_NORM).mul_(share)
            gradient.mul_(limit.div_(_unit_norms(gradient)).clamp_(max=1))  # x / 0 is inf, and 0 stays 0


def _unit_norms(tensor: Tensor) -> Tensor:
    dims = None if tensor.dim() <= 1 else tuple(range(1, tensor.dim()))
    return torch.linalg.vector_norm(tensor, dim=dims, keepdim=True)
