"""The operators in plain PyTorch: the fallback where nothing is compiled, and the twin the kernels are held against.

Notation (docs/maths.md): l = conv(x, w/|w|) the linear response, n the norm of the patch under it,
c = |l| / n the cosine, y = l * s with the scale s = (c + delta)^(b-1). For b = 2 the formula is exact (delta = 0);
otherwise delta = 1e-6 keeps the power's slope finite at c = 0.

Everything here is differentiable, whatever the order: the double backward of the compiled operators runs it.
Half-precision inputs are computed in float32 and rounded once at the end.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

COSINE_OFFSET = 1e-6
"""delta: added to the cosine before the power, for every b other than 2 (and 1, where there is no power)."""


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype the arithmetic runs in: float64 for float64, float32 for everything shorter."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def patch_norm(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    eps: float,
) -> Tensor:
    """Norm of the input under each position of a convolution's window: sqrt(sum of squares + eps).

    Args:
        x: Input, shape (N, C, H, W).
        kernel_size: Window (height, width); ``stride``, zero ``padding`` and ``dilation`` likewise.
        stride: Step of the window.
        padding: Zeros added on each side; they add nothing to the norm.
        dilation: Spacing of the window's elements.
        groups: Number of channel groups G; each has its own norm.
        eps: Added to the sum of squares.

    Returns:
        Shape (N, G, P, Q), float64 for a float64 input and float32 otherwise.
    """
    n, c, h, w = x.shape
    squares = x.to(computing_dtype(x.dtype)).square()
    energy = squares.reshape(n, groups, c // groups, h, w).sum(2)
    window = energy.new_ones(groups, 1, *kernel_size)
    energy = F.conv2d(energy, window, None, stride, padding, dilation, groups)  # a box sum, one channel per group
    return (energy + eps).sqrt()


def scale(
    lin: Tensor,
    x: Tensor,
    b: float,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    detach: bool,  # noqa: ARG001 - part of the operator's signature
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Scale linear responses by the power of the cosine: y = l (|l|/n)^(b-1); returns y and the patch norm n.

    ``detach`` does not change the values; it is what the operator's backward reads.
    """
    norm = patch_norm(x, kernel_size, stride, padding, dilation, groups, eps)
    linear = lin.to(norm.dtype)
    s = _scale_factor(linear, _per_channel(norm, lin.shape[1]), b)
    y = torch.empty_like(lin)  # keeps the layout of lin, as the kernels do
    return y.copy_(linear * s), norm


def scale_backward(
    grad: Tensor,
    lin: Tensor,
    x: Tensor,
    norm: Tensor,
    b: float,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    detach: bool,
    need_x: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`scale` with respect to ``lin`` and ``x``.

    With ``detach`` the scale is a constant: the gradient is that of y = s l alone. Where the gradient of x is
    not wanted (``need_x`` false) or zero by definition (``detach``), the second result is an empty tensor.
    """
    g, linear = grad.to(norm.dtype), lin.to(norm.dtype)
    n = _per_channel(norm, lin.shape[1])
    if detach:
        grad_lin = g * _scale_factor(linear.detach(), n.detach(), b)
        return grad_lin.to(lin.dtype), x.new_empty(0)
    s = _scale_factor(linear, n, b)
    c = linear.abs() / n
    rho = torch.ones_like(c) if b == 2 else c / (c + COSINE_OFFSET)
    grad_lin = g * s * (1 + (b - 1) * rho)
    if not need_x:
        return grad_lin.to(lin.dtype), x.new_empty(0)
    num, out_channels, p, q = lin.shape
    pull = (b - 1) * g * linear * s * rho
    r = pull.reshape(num, groups, out_channels // groups, p, q).sum(2) / norm.square()
    spread = _box_transpose(r, x.shape[2:], kernel_size, stride, padding, dilation)
    grad_x = -x.to(norm.dtype) * spread.repeat_interleave(x.shape[1] // groups, dim=1)
    return grad_lin.to(lin.dtype), grad_x.to(x.dtype)


def _scale_factor(linear: Tensor, norm: Tensor, b: float) -> Tensor:
    c = linear.abs() / norm
    return c if b == 2 else (c + COSINE_OFFSET).pow(b - 1)


def _per_channel(norm: Tensor, out_channels: int) -> Tensor:
    """(N, G, P, Q) -> a shape that broadcasts against (N, O, P, Q)."""
    groups = norm.shape[1]
    return norm if groups == 1 else norm.repeat_interleave(out_channels // groups, dim=1)


def _box_transpose(
    r: Tensor,
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Adjoint of the box sum: (N, G, P, Q) -> (N, G, H, W)."""
    groups = r.shape[1]
    window = r.new_ones(groups, 1, *kernel_size)
    # what the strided window left over at the far edge
    rest = [
        size[i] - ((r.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel_size[i] - 1) + 1)
        for i in range(2)
    ]
    return F.conv_transpose2d(r, window, None, stride, padding, rest, groups, dilation)
