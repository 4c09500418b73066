"""The B-cos transform as one writes it in plain PyTorch: a peer in the tables, and in float64 what is right.

Independent of the packages on purpose: y = l (|l|/n)^(B-1), Böhle et al., CVPR 2022 (arXiv 2205.10268), eq. 3, with
the conventions of docs/maths.md.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import Case

EPS = 1e-6
"""Added to the patch's sum of squares."""
DELTA = 1e-6
"""Added to the cosine before any power but 1: the slope at zero stays finite."""


def bcos_formula(case: Case, x: Tensor, weight: Tensor, b: float | Tensor) -> Tensor:
    unit = weight / torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True)
    if case.linear:
        lin = F.linear(x, unit)
        norm = (x.square().sum(1, keepdim=True) + EPS).sqrt()
    else:
        lin = F.conv2d(x, unit, None, case.stride, case.padding, case.dilation, case.groups)
        norm = _patch_norm(case, x)
    if case.max_out > 1:
        lin = lin.unflatten(1, (case.out_channels, case.max_out)).max(2).values
    cosine = lin.abs() / norm
    if isinstance(b, float) and b == 2:
        return lin * cosine
    return lin * (cosine + DELTA) ** (b - 1)


def _patch_norm(case: Case, x: Tensor) -> Tensor:
    """Box sum of the squares of each group's channels; one value for each output channel, or one for all."""
    energy = x.square().unflatten(1, (case.groups, -1)).sum(2)
    window = energy.new_ones(case.groups, 1, case.kernel_size, case.kernel_size)
    if case.kernel_size > 1 or case.stride > 1:
        energy = F.conv2d(energy, window, None, case.stride, case.padding, case.dilation, case.groups)
    norm = (energy + EPS).sqrt()
    return norm if case.groups == 1 else norm.repeat_interleave(case.out_channels // case.groups, dim=1)
