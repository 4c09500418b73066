"""Schema, fake and autograd of the operators, once for every device.

The twin in :mod:`bcos_kernels.reference` is registered for all devices; a compiled library adds its CPU and CUDA
kernels under the same names and the dispatcher prefers them. No caller asks which one is live.
"""

import torch
from torch import Tensor

from . import reference

_library = torch.library.Library("bcos_kernels", "DEF")

_WINDOW = "int[] kernel_size, int[] stride, int[] padding, int[] dilation, int groups"
_library.define(
    f"scale(Tensor lin, Tensor x, float b, {_WINDOW}, bool detach, float eps) -> (Tensor y, Tensor norm)",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.define(
    f"scale_backward(Tensor grad, Tensor lin, Tensor x, Tensor norm, float b, {_WINDOW}, bool detach, bool need_x)"
    " -> (Tensor grad_lin, Tensor grad_x)",
    tags=torch.Tag.pt2_compliant_tag,
)


def _twin_backward(grad, lin, x, norm, b, kernel_size, stride, padding, dilation, groups, detach, need_x):  # noqa: ANN001, ANN202
    grad_lin, grad_x = reference.scale_backward(
        grad, lin, x, norm, b, kernel_size, stride, padding, dilation, groups, detach, need_x
    )
    # the kernels answer in the layout of the tensor that the gradient belongs to
    grad_lin = torch.empty_like(lin).copy_(grad_lin)
    return grad_lin, torch.empty_like(x).copy_(grad_x) if grad_x.shape == x.shape else grad_x


_library.impl("scale", reference.scale, "CompositeExplicitAutograd")
_library.impl("scale_backward", _twin_backward, "CompositeExplicitAutograd")


@torch.library.register_fake("bcos_kernels::scale", lib=_library)
def _(lin, x, b, kernel_size, stride, padding, dilation, groups, detach, eps):  # noqa: ANN001, ANN202, ARG001
    norm_dtype = reference.computing_dtype(x.dtype)
    return torch.empty_like(lin), lin.new_empty((lin.shape[0], groups, *lin.shape[2:]), dtype=norm_dtype)


@torch.library.register_fake("bcos_kernels::scale_backward", lib=_library)
def _(grad, lin, x, norm, b, kernel_size, stride, padding, dilation, groups, detach, need_x):  # noqa: ANN001, ANN202, ARG001
    return torch.empty_like(lin), torch.empty_like(x) if need_x and not detach else x.new_empty(0)


def _setup_context(ctx, inputs, output) -> None:  # noqa: ANN001
    lin, x, *ctx.options = inputs
    norm = output[1]
    ctx.mark_non_differentiable(norm)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(lin, x, norm)


def _backward(ctx, grad, _grad_norm):  # noqa: ANN001, ANN202
    none = (None,) * len(ctx.options)
    if grad is None:
        return None, None, *none
    lin, x, norm = ctx.saved_tensors
    b, kernel_size, stride, padding, dilation, groups, detach, eps = ctx.options
    window = (kernel_size, stride, padding, dilation, groups)
    need_x = ctx.needs_input_grad[1]
    if torch.is_grad_enabled():  # create_graph=True: the formula itself, so that it can be differentiated again
        norm = reference.patch_norm(x, *window, eps)
        grad_lin, grad_x = reference.scale_backward(grad, lin, x, norm, b, *window, detach, need_x)
    else:
        grad_lin, grad_x = torch.ops.bcos_kernels.scale_backward(grad, lin, x, norm, b, *window, detach, need_x)
    return grad_lin, grad_x if need_x and not detach else None, *none


torch.library.register_autograd("bcos_kernels::scale", _backward, setup_context=_setup_context, lib=_library)


def scale(
    lin: Tensor,
    x: Tensor,
    *,
    b: float,
    kernel_size: tuple[int, int] = (1, 1),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    detach: bool = False,
    eps: float = 1e-6,
) -> Tensor:
    """Scale linear responses by the power of the cosine: y = l (|l| / n)^(b-1).

    n = sqrt(sum of x² over the patch and group + eps); for b other than 2 the factor is (|l|/n + 1e-6)^(b-1).
    Source: Böhle et al., CVPR 2022, eq. 3 (arXiv 2205.10268).

    Args:
        lin: Response l of a convolution of x with filters of norm one, shape (N, O, P, Q). O is a multiple of
            ``groups``; after MaxOut it is what remains of the channels.
        x: That convolution's input, shape (N, C, H, W), same dtype and device as ``lin``.
        b: Exponent, at least 1.
        kernel_size: Window of the convolution, (height, width).
        stride: Its stride.
        padding: Its zero padding.
        dilation: Its dilation.
        groups: Its groups.
        detach: Explanation mode: backward treats the factor as a constant.
        eps: Added to the sum of squares.

    Returns:
        y, with shape, dtype and memory format of ``lin``.

    Raises:
        ValueError: If the shapes, dtypes or devices do not fit each other, or b is not a finite number >= 1.

    Example:
        >>> x, w = torch.randn(1, 3, 8, 8), torch.nn.functional.normalize(torch.randn(4, 27)).view(4, 3, 3, 3)
        >>> lin = torch.nn.functional.conv2d(x, w, padding=1)
        >>> scale(lin, x, b=2, kernel_size=(3, 3), padding=(1, 1)).shape
        torch.Size([1, 4, 8, 8])
    """
    _check(lin, x, b, kernel_size, stride, padding, dilation, groups)
    return torch.ops.bcos_kernels.scale(
        lin, x, float(b), kernel_size, stride, padding, dilation, groups, detach, float(eps)
    )[0]


def _check(lin, x, b, kernel_size, stride, padding, dilation, groups) -> None:  # noqa: ANN001
    if not 1 <= b < float("inf"):
        raise ValueError(f"b: expected a finite number >= 1, got {b}")
    if x.dim() != 4 or lin.dim() != 4:
        raise ValueError(f"lin, x: expected 4 dimensions each, got shapes {tuple(lin.shape)} and {tuple(x.shape)}")
    if lin.dtype != x.dtype or not lin.dtype.is_floating_point:
        raise ValueError(f"lin, x: expected one floating-point dtype, got {lin.dtype} and {x.dtype}")
    if lin.device != x.device:
        raise ValueError(f"lin, x: expected one device, got {lin.device} and {x.device}")
    if groups < 1 or x.shape[1] % groups or lin.shape[1] % groups:
        raise ValueError(
            f"groups: expected a divisor of the channels of x and lin, got {groups} for {x.shape[1]} and {lin.shape[1]}"
        )
    size = [
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel_size[i] - 1) - 1) // stride[i] + 1 for i in range(2)
    ]
    expected = (x.shape[0], lin.shape[1], *size)
    if lin.shape != expected:
        raise ValueError(f"lin: expected shape {tuple(expected)} for this x and window, got {tuple(lin.shape)}")
