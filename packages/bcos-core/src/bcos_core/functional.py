"""The B-cos transform's only home in Python, and the sole caller of the kernels.

y = |cos(x, w)|^(B-1) (w/|w|)ᵀ x, Böhle et al., CVPR 2022 (arXiv 2205.10268), eq. 3.
The conventions on eps and on non-integer B are those of docs/maths.md.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import bcos_kernels
import torch
import torch.nn.functional as F
from bcos_kernels import build_report as kernel_report
from bcos_kernels import reference, uncentred_batch_norm
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "IntOrPair",
    "bcos_conv2d",
    "bcos_linear",
    "check_exponent",
    "kernel_report",
    "thin_product",
    "uncentred_batch_norm",
    "written_out",
]

IntOrPair = int | tuple[int, int]

_FEW = 4  # features, or outputs, up to which calling a product costs more than computing it

_written_out: ContextVar[bool] = ContextVar("written_out", default=False)


@contextmanager
def written_out() -> Iterator[None]:
    """Compute the layers by PyTorch's own operators while the context is open, for graphs that leave this project.

    Values and gradients are those of the kernels, to rounding; an exported graph holds no operator of ours.

    Example:
        >>> import torch
        >>> x, weight = torch.randn(2, 16), torch.randn(8, 16)
        >>> with written_out():
        ...     y = bcos_linear(x, weight)
        >>> torch.allclose(y, bcos_linear(x, weight), atol=1e-6)
        True
    """
    token = _written_out.set(True)
    try:
        yield
    finally:
        _written_out.reset(token)


def bcos_conv2d(
    x: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "om c_per_group kh kw"],
    *,
    b: float | Tensor = 2.0,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    max_out: int = 1,
    detach: bool = False,
    eps: float = 1e-6,
) -> Float[Tensor, "n o p q"]:
    """B-cos convolution: y = l (|l|/n)^(B-1) with l = conv(x, w/|w|) and n the norm of the patch.

    Args:
        x: Input, shape (N, C, H, W). Pad beforehand for a padding mode other than zeros.
        weight: Filters of any norm, shape (O * max_out, C / groups, kh, kw); the ``max_out`` filters of one output
            lie side by side. A filter of zeros answers zero.
        b: Exponent B, at least 1; 1 is the plain convolution with filters of norm one. Or a tensor of shape () or
            (O,), float32 or float64, which gets a gradient.
        stride: Step of the window.
        padding: Zeros on each side, "valid", or "same" (stride 1 only; an odd remainder goes to the far side).
        dilation: Spacing of the window's elements.
        groups: Number of channel groups; each has its own patch norm.
        max_out: Number of filters that compete for one output; the largest response l wins.
        detach: Explanation mode: backward treats the scale (|l|/n)^(B-1) as a constant.
        eps: Added to the patch's sum of squares.

    Returns:
        Shape (N, O, P, Q).

    Raises:
        ValueError: If b, max_out, a shape, a dtype or a device is out of range.

    Example:
        >>> import torch
        >>> bcos_conv2d(torch.randn(1, 6, 8, 8), torch.randn(4, 6, 3, 3), padding=1).shape
        torch.Size([1, 4, 8, 8])
    """
    stride, dilation = _pair(stride), _pair(dilation)
    if isinstance(padding, str):
        x, padding = _resolve_padding(x, padding, tuple(weight.shape[2:]), stride, dilation)
    if _by_formula(x, b):
        layer = reference.Convolution(weight.shape[2:], stride, _pair(padding), dilation, groups)
        return _formula(layer, x, weight, b, max_out, detach, eps)
    return bcos_kernels.conv2d(
        x,
        weight,
        b=b,
        stride=stride,
        padding=_pair(padding),
        dilation=dilation,
        groups=groups,
        max_out=max_out,
        detach=detach,
        eps=eps,
    )


def bcos_linear(
    x: Float[Tensor, "*batch features"],
    weight: Float[Tensor, "om features"],
    *,
    b: float | Tensor = 2.0,
    max_out: int = 1,
    detach: bool = False,
    eps: float = 1e-6,
) -> Float[Tensor, "*batch out"]:
    """B-cos linear layer: y = l (|l|/n)^(B-1) with l = (w/|w|)ᵀ x and n the norm of x.

    Args:
        x: Input, shape (..., F).
        weight: Shape (O * max_out, F), of any norm.
        b: Exponent B, at least 1, or a tensor of shape () or (O,).
        max_out: Number of units that compete for one output.
        detach: Explanation mode: backward treats the scale as a constant.
        eps: Added to the sum of squares.

    Returns:
        Shape (..., O).

    Raises:
        ValueError: If b, max_out, a shape, a dtype or a device is out of range.

    Example:
        >>> import torch
        >>> bcos_linear(torch.randn(2, 5, 16), torch.randn(8, 16)).shape
        torch.Size([2, 5, 8])
    """
    if _by_formula(x, b):
        return _formula(_Product(), x, weight, b, max_out, detach, eps)
    return bcos_kernels.linear(x, weight, b=b, max_out=max_out, detach=detach, eps=eps)


def _by_formula(x: Tensor, b: float | Tensor) -> bool:
    """Whether PyTorch's own operators compute a layer: for export, and where they are several times faster.

    On a CPU their double-precision powers are vectorised, the kernels' are not (a backward has to solve for the cosine
    as well): seven to twelve times slower for small layers of B = 1.5 and 3.
    """
    if not isinstance(b, Tensor):
        check_exponent(b)
    is_power = isinstance(b, Tensor) or b not in (1, 2)
    return _written_out.get() or (is_power and x.dtype == torch.float64 and x.device.type == "cpu")


def thin_product(x: Float[Tensor, "*batch features"], weight: Float[Tensor, "out features"]) -> Tensor:
    """X wᵀ; for a compiler, where there are few features or outputs, as a sum that it fuses with what is around it."""
    if torch.compiler.is_compiling() and min(weight.shape) <= _FEW:
        return (x.unsqueeze(-2) * weight).sum(-1)
    return F.linear(x, weight)


class _Product(reference.Product):
    def respond(self, x: Tensor, unit: Tensor) -> Tensor:
        return thin_product(x, unit)


def _formula(
    layer: reference.Convolution | reference.Product,
    x: Tensor,
    weight: Tensor,
    b: float | Tensor,
    *options: Any,
) -> Tensor:
    exponent, number = (b, 0.0) if isinstance(b, Tensor) else (None, b)
    return reference.formula(layer, x, weight, exponent, number, *options)


def check_exponent(b: float) -> None:
    """Raise ValueError unless b is a finite number of at least 1."""
    if not 1 <= b < math.inf:  # false for NaN as well
        raise ValueError(f"b: expected a finite number >= 1, got {b}")


def _resolve_padding(
    x: Tensor, padding: str, kernel_size: tuple[int, ...], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    if padding == "valid":
        return x, (0, 0)
    if padding != "same":
        raise ValueError(f'padding: expected an integer, a pair, "valid" or "same", got "{padding}"')
    if stride != (1, 1):
        raise ValueError(f'padding: "same" needs stride 1, got stride {stride}')
    total = [dilation[i] * (kernel_size[i] - 1) for i in range(2)]
    if any(t % 2 for t in total):
        x = F.pad(x, (0, total[1] % 2, 0, total[0] % 2))
    return x, (total[0] // 2, total[1] // 2)


def _pair(value: IntOrPair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
