"""Uncentred batch norm in training as one operator: schema, twin, fake and autograd, once for every device.

y = weight · x / sqrt(var + eps) + bias, with var each channel's biased variance about its mean over N, H and W. In
plain PyTorch autograd keeps several copies of x; here it keeps x and two numbers for each channel. Half-precision
inputs are computed in float32 and rounded once at the end. The derivation is in docs/maths.md.
"""

import torch
from torch import Tensor

from .ops import _library
from .reference import computing_dtype

_library.define(
    "batch_norm(Tensor x, Tensor? weight, Tensor? bias, float eps, bool detach) -> (Tensor y, Tensor mean, Tensor var)",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.define(
    "batch_norm_backward(Tensor grad, Tensor x, Tensor? weight, Tensor mean, Tensor var, float eps, bool detach,"
    " bool need_x, bool need_weight, bool need_bias) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
    tags=torch.Tag.pt2_compliant_tag,
)

_DIMS = (0, 2, 3)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel."""
    var, mean = torch.var_mean(x.to(computing_dtype(x.dtype)), _DIMS, correction=0)
    return mean, var


def twin(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    detach: bool,  # noqa: ARG001 - part of the operator's signature
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator in plain PyTorch: (y, mean, var), the statistics in float32 at least.

    ``detach`` does not change the values; it is what the operator's backward reads.
    """
    mean, var = _statistics(x)
    factor = (var + eps).rsqrt()
    if weight is not None:
        factor = factor * weight.to(factor.dtype)
    y = x.to(factor.dtype) * factor.view(-1, 1, 1)
    if bias is not None:
        y = y + bias.to(factor.dtype).view(-1, 1, 1)
    return torch.empty_like(x).copy_(y), mean, var  # in the layout of x, as the kernels do


def twin_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    var: Tensor,
    eps: float,
    detach: bool,
    need_x: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to x, weight and bias; an empty tensor for what is not needed.

    With ``detach`` the variance is a constant. Differentiable, whatever the order; those of weight and bias come in
    the dtype of the statistics.
    """
    g, wide = grad.to(var.dtype), x.to(var.dtype)
    inverse = ((var.detach() if detach else var) + eps).rsqrt()
    factor = inverse if weight is None else inverse * weight.to(var.dtype)
    products = (g * wide).sum(_DIMS)
    grad_x, grad_weight, grad_bias = x.new_empty(0), var.new_empty(0), var.new_empty(0)
    if need_x:
        grad_x = g * factor.view(-1, 1, 1)
        if not detach:
            pull = -factor * inverse.square() * products * (x.shape[1] / x.numel())
            grad_x = grad_x + (wide - mean.view(-1, 1, 1)) * pull.view(-1, 1, 1)
        grad_x = grad_x.to(x.dtype)
    if need_weight:
        grad_weight = inverse * products
    if need_bias:
        grad_bias = g.sum(_DIMS)
    return grad_x, grad_weight, grad_bias


def _twin_backward(grad, x, *arguments):  # noqa: ANN001, ANN002, ANN202
    grad_x, *others = twin_backward(grad, x, *arguments)
    # the kernels answer in the layout of the tensor that the gradient belongs to
    return torch.empty_like(x).copy_(grad_x) if grad_x.shape == x.shape else grad_x, *others


_library.impl("batch_norm", twin, "CompositeExplicitAutograd")
_library.impl("batch_norm_backward", _twin_backward, "CompositeExplicitAutograd")


@torch.library.register_fake("bcos_kernels::batch_norm", lib=_library)
def _(x, weight, bias, eps, detach):  # noqa: ANN001, ANN202, ARG001
    mean, var = (x.new_empty(x.shape[1], dtype=computing_dtype(x.dtype)) for _ in range(2))
    return torch.empty_like(x), mean, var


@torch.library.register_fake("bcos_kernels::batch_norm_backward", lib=_library)
def _(grad, x, weight, mean, var, eps, detach, need_x, need_weight, need_bias):  # noqa: ANN001, ANN202, ARG001
    grad_x = torch.empty_like(x) if need_x else x.new_empty(0)
    return grad_x, *(var.new_empty(x.shape[1] if need else 0) for need in (need_weight, need_bias))


def _setup_context(ctx, inputs, output) -> None:  # noqa: ANN001
    x, weight, bias, *ctx.options = inputs
    _, mean, var = output
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.mark_non_differentiable(mean, var)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, mean, var)


def _backward(ctx, grad, _grad_mean, _grad_var):  # noqa: ANN001, ANN202
    if grad is None:
        return None, None, None, None, None
    x, weight, mean, var = ctx.saved_tensors
    needs = ctx.needs_input_grad[:3]
    if torch.is_grad_enabled():  # create_graph=True: the formula itself, so that it can be differentiated again
        found = twin_backward(grad, x, weight, *_statistics(x), *ctx.options, *needs)
    else:
        found = torch.ops.bcos_kernels.batch_norm_backward(grad, x, weight, mean, var, *ctx.options, *needs)
    grad_x, grad_weight, grad_bias = (g if need else None for g, need in zip(found, needs, strict=True))
    if grad_weight is not None and weight is not None:
        grad_weight = grad_weight.to(weight.dtype)
    if grad_bias is not None and ctx.bias_dtype is not None:
        grad_bias = grad_bias.to(ctx.bias_dtype)
    return grad_x, grad_weight, grad_bias, None, None


torch.library.register_autograd("bcos_kernels::batch_norm", _backward, setup_context=_setup_context, lib=_library)


def uncentred_batch_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    detach: bool = False,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm without centring, by the statistics of this batch: y = weight · x / sqrt(var + eps) + bias.

    Source: Böhle et al., TPAMI 2024, sec. 3 (arXiv 2306.10898).

    Args:
        x: Input, shape (N, C, H, W), with at least one value for each channel.
        weight: Shape (C,), of any floating-point dtype; ones if None.
        bias: Shape (C,), likewise; zeros if None.
        detach: Explanation mode: backward treats the variance as a constant.
        eps: Added to the variance.

    Returns:
        y, with shape, dtype and memory format of ``x``; mean and biased variance of each channel, shape (C,) and
        float32 at least. Gradients flow through y alone.

    Raises:
        ValueError: If a shape, dtype or device does not fit.

    Example:
        >>> y, mean, var = uncentred_batch_norm(torch.randn(2, 3, 8, 8), torch.ones(3))
        >>> y.shape, var.shape
        (torch.Size([2, 3, 8, 8]), torch.Size([3]))
    """
    if x.dim() != 4:
        raise ValueError(f"x: expected 4 dimensions (N, C, H, W), got shape {tuple(x.shape)}")
    if not x.dtype.is_floating_point:
        raise ValueError(f"x: expected a floating-point dtype, got {x.dtype}")
    if x.numel() == 0:
        raise ValueError(f"x: expected at least one value per channel, got shape {tuple(x.shape)}")
    for name, t in (("weight", weight), ("bias", bias)):
        if t is None:
            continue
        if t.shape != (x.shape[1],) or not t.dtype.is_floating_point:
            raise ValueError(f"{name}: expected floats of shape ({x.shape[1]},), got {t.dtype} of {tuple(t.shape)}")
        if t.device != x.device:
            raise ValueError(f"{name}: expected the device of x, {x.device}, got {t.device}")
    return torch.ops.bcos_kernels.batch_norm(x, weight, bias, float(eps), detach)
