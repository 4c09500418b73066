"""The B-cos layers as operators: schema, fake, autograd, autocast and vmap, once for every device.

The twin in :mod:`bcos_kernels.reference` is registered for all devices; a compiled library adds its CPU and CUDA
kernels under the same names and the dispatcher prefers them. No caller asks which one is live.

Each forward operator answers (y, norm, winner) and each backward operator (grad_x, grad_weight, grad_exponent); what
there is not, or is not asked for, is an empty tensor of shape (0,).
"""

# ruff: noqa: ANN001, ANN002, ANN003, ANN202 - the operators' implementations take what their schemas say

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from . import reference
from .reference import Convolution, Needs, Product

_library = torch.library.Library("bcos_kernels", "DEF")

_LAYER = "Tensor x, Tensor weight, Tensor? exponent"
_SAVED = "Tensor y, Tensor norm, Tensor winner"
_WINDOW = "int[] stride, int[] padding, int[] dilation, int groups"
_OPTIONS = "int max_out, bool detach"
_NEEDS = "bool need_x, bool need_weight, bool need_exponent"
_GRADIENTS = "(Tensor grad_x, Tensor grad_weight, Tensor grad_exponent)"
for _schema in (
    f"conv2d({_LAYER}, float b, {_WINDOW}, {_OPTIONS}, float eps) -> ({_SAVED})",
    f"conv2d_backward(Tensor grad, {_LAYER}, {_SAVED}, float b, {_WINDOW}, {_OPTIONS}, {_NEEDS}) -> {_GRADIENTS}",
    f"linear({_LAYER}, float b, {_OPTIONS}, float eps) -> ({_SAVED})",
    f"linear_backward(Tensor grad, {_LAYER}, {_SAVED}, float b, {_OPTIONS}, {_NEEDS}) -> {_GRADIENTS}",
):
    _library.define(_schema, tags=torch.Tag.pt2_compliant_tag)
_operators = torch.ops.bcos_kernels


# ---- The twin ----


def _given_or_empty(gradients: reference.Gradients, x, weight, exponent) -> tuple[Tensor, Tensor, Tensor]:
    exponent_dtype = torch.float32 if exponent is None else exponent.dtype

    def given(g: Tensor | None, dtype: torch.dtype) -> Tensor:
        return x.new_empty(0, dtype=dtype) if g is None else g

    return given(gradients.x, x.dtype), given(gradients.weight, weight.dtype), given(gradients.exponent, exponent_dtype)


def _twin_backward(layer, grad, x, weight, exponent, y, norm, winner, b, max_out, detach, needs):
    needs = Needs(needs[0], needs[1], needs[2] and exponent is not None)
    found = reference.backward(layer, grad, x, weight, exponent, y, norm, winner, b, max_out, detach, needs)
    if found.weight is not None:  # in the weight's layout, as the kernels answer
        found = found._replace(weight=torch.empty_like(weight).copy_(found.weight))
    return _given_or_empty(found, x, weight, exponent)


def _twin_conv2d(x, weight, exponent, b, stride, padding, dilation, groups, max_out, detach, eps):  # noqa: ARG001
    layer = Convolution(weight.shape[2:], stride, padding, dilation, groups)
    return reference.forward(layer, x, _dense(weight), exponent, b, max_out, eps)


def _twin_conv2d_backward(
    grad, x, weight, exponent, y, norm, winner, b, stride, padding, dilation, groups, max_out, detach, *needs
):
    layer = Convolution(weight.shape[2:], stride, padding, dilation, groups)
    return _twin_backward(layer, grad, x, weight, exponent, y, norm, winner, b, max_out, detach, needs)


def _twin_linear(x, weight, exponent, b, max_out, detach, eps):  # noqa: ARG001
    return reference.forward(Product(), x, _dense(weight), exponent, b, max_out, eps)


def _twin_linear_backward(grad, x, weight, exponent, y, norm, winner, b, max_out, detach, *needs):
    return _twin_backward(Product(), grad, x, weight, exponent, y, norm, winner, b, max_out, detach, needs)


def _dense(weight: Tensor) -> Tensor:
    """With every filter in one piece; also decides the layout of the convolution's result."""
    channels_last = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return weight if channels_last else weight.contiguous()


_library.impl("conv2d", _twin_conv2d, "CompositeExplicitAutograd")
_library.impl("conv2d_backward", _twin_conv2d_backward, "CompositeExplicitAutograd")
_library.impl("linear", _twin_linear, "CompositeExplicitAutograd")
_library.impl("linear_backward", _twin_linear_backward, "CompositeExplicitAutograd")


# ---- Fake: shapes, dtypes and strides ----


def _fake_forward(layer, lin, x, exponent, b, max_out):
    dtype = reference.computing_dtype(x.dtype)
    outputs = lin.shape[layer.channels] // max_out
    norm_shape = (0,)
    if exponent is not None or b != 1:
        norm_shape = list(lin.shape)
        norm_shape[layer.channels] = layer.groups
    return (
        layer.empty_output(lin, outputs, x.dtype),
        lin.new_empty(norm_shape, dtype=dtype),
        layer.empty_output(lin, outputs, torch.uint8) if max_out > 1 else lin.new_empty(0, dtype=torch.uint8),
    )


@torch.library.register_fake("bcos_kernels::conv2d", lib=_library)
def _(x, weight, exponent, b, stride, padding, dilation, groups, max_out, detach, eps):  # noqa: ARG001
    layer = Convolution(weight.shape[2:], stride, padding, dilation, groups)
    lin = layer.respond(x, torch.empty_like(_dense(weight), dtype=x.dtype))
    return _fake_forward(layer, lin, x, exponent, b, max_out)


@torch.library.register_fake("bcos_kernels::linear", lib=_library)
def _(x, weight, exponent, b, max_out, detach, eps):  # noqa: ARG001
    lin = x.new_empty((*x.shape[:-1], weight.shape[0]))
    return _fake_forward(Product(), lin, x, exponent, b, max_out)


@torch.library.register_fake("bcos_kernels::conv2d_backward", lib=_library)
def _(grad, x, weight, exponent, y, norm, winner, b, stride, padding, dilation, groups, max_out, detach, *needs):  # noqa: ARG001
    needs = Needs(*needs)
    layer = Convolution(weight.shape[2:], stride, padding, dilation, groups)
    grad_lin = layer.empty_output(grad, weight.shape[0], x.dtype)
    unit = torch.empty_like(_dense(weight), dtype=x.dtype)
    grad_x, _ = layer.pull_back(grad_lin, x, unit, needs._replace(weight=False))
    return _fake_gradients(grad_x, x, weight, exponent, needs)


@torch.library.register_fake("bcos_kernels::linear_backward", lib=_library)
def _(grad, x, weight, exponent, y, norm, winner, b, max_out, detach, *needs):  # noqa: ARG001
    needs = Needs(*needs)
    return _fake_gradients(x.new_empty(x.shape) if needs.x else None, x, weight, exponent, needs)


def _fake_gradients(grad_x, x, weight, exponent, needs):
    grad_weight = torch.empty_like(weight) if needs.weight else None
    grad_exponent = exponent.new_empty(exponent.shape) if needs.exponent and exponent is not None else None
    return _given_or_empty(reference.Gradients(grad_x, grad_weight, grad_exponent), x, weight, exponent)


# ---- Autograd ----


class _Saved(NamedTuple):
    x: Tensor
    weight: Tensor
    exponent: Tensor | None
    y: Tensor
    norm: Tensor
    winner: Tensor


def _unpack(ctx) -> _Saved:
    try:
        return _Saved(*ctx.saved_tensors)
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        raise RuntimeError(
            "a B-cos layer's input, weight or output was changed in place, and its backward needs all three;"
            " is a ReLU(inplace=True) or the like behind it? Use inplace=False there"
        ) from error


def _save(ctx, inputs, output) -> None:
    x, weight, exponent, b, *_ = inputs
    y, norm, winner = output
    ctx.mark_non_differentiable(norm, winner)
    ctx.set_materialize_grads(False)
    # where y = l backward does not look at it
    ctx.save_for_backward(x, weight, exponent, norm if exponent is None and b == 1 else y, norm, winner)
    ctx.options = inputs[3:]


def _pull_back(ctx, grad, layer_of: Callable, backward: Callable):
    none = (None,) * len(ctx.options)
    if grad is None:
        return None, None, None, *none
    needs = Needs(*ctx.needs_input_grad[:3])
    saved = _unpack(ctx)
    b, *window, max_out, detach, eps = ctx.options
    if torch.is_grad_enabled():  # create_graph=True: the formula itself, so that it can be differentiated again
        with torch.autocast(grad.device.type, enabled=False):
            layer = layer_of(saved.weight, *window)
            found = reference.gradients(layer, grad, *saved[:3], saved.winner, b, max_out, detach, eps, needs)
    else:
        arguments = (grad, *saved, b, *window, max_out, detach, *needs)
        own = _products_for(saved.x)
        found = (own and own.backward(backward, arguments)) or backward(*arguments)
    return *(g if need else None for g, need in zip(found, needs, strict=True)), *none


def _below_autograd(operator: Callable, arguments):
    with torch._C._AutoDispatchBelowAutograd():
        if (own := _products_for(arguments[0])) and (found := own.forward(operator, arguments)):
            return found
        return operator(*arguments)


def _products_for(x: Tensor):
    """Products of ours that may be faster than the operators, which are those of libraries on a GPU."""
    return _gpu_product() if x.is_cuda else None


@functools.cache
def _gpu_product():
    try:  # Triton comes with torch where that is built for CUDA
        from . import gpu_product
    except ImportError:
        return None
    return gpu_product


def _record(ctx, operator: Callable, arguments):
    output = _below_autograd(operator, arguments)
    _save(ctx, arguments, output)
    return output


def _recording_nothing(operator: Callable, arguments):
    if torch.compiler.is_dynamo_compiling():  # it traces no guard of the dispatcher, and records nothing in forward
        return operator(*arguments)
    return _below_autograd(operator, arguments)


def _conv2d_backward(ctx, *grad_outputs) -> tuple[Tensor | None, ...]:
    return _pull_back(ctx, grad_outputs[0], _convolution, _operators.conv2d_backward)


def _linear_backward(ctx, *grad_outputs) -> tuple[Tensor | None, ...]:
    return _pull_back(ctx, grad_outputs[0], _product, _operators.linear_backward)


def _convolution(weight, *window):
    return Convolution(weight.shape[2:], *window)


def _product(_weight):
    return Product()


# Not by torch.library.register_autograd: torch.func cannot differentiate what that makes, and a forward-mode derivative
# would be zero without a word.


class _Conv2d(torch.autograd.Function):
    backward = staticmethod(_conv2d_backward)

    @staticmethod
    def forward(ctx, *arguments) -> tuple[Tensor, Tensor, Tensor]:
        return _record(ctx, _operators.conv2d, arguments)


class _Linear(torch.autograd.Function):
    backward = staticmethod(_linear_backward)

    @staticmethod
    def forward(ctx, *arguments) -> tuple[Tensor, Tensor, Tensor]:
        return _record(ctx, _operators.linear, arguments)


# The same as torch.func asks for them, with the context apart: PyTorch then binds the arguments to their names in each
# call, which takes as long as a small layer.


class _TransformedConv2d(torch.autograd.Function):
    generate_vmap_rule = True
    setup_context = staticmethod(_save)
    backward = staticmethod(_conv2d_backward)

    @staticmethod
    def forward(*arguments) -> tuple[Tensor, Tensor, Tensor]:
        return _recording_nothing(_operators.conv2d, arguments)


class _TransformedLinear(torch.autograd.Function):
    generate_vmap_rule = True
    setup_context = staticmethod(_save)
    backward = staticmethod(_linear_backward)

    @staticmethod
    def forward(*arguments) -> tuple[Tensor, Tensor, Tensor]:
        return _recording_nothing(_operators.linear, arguments)


def _differentiable(operator: Callable, function: type[torch.autograd.Function], arguments):
    # a forward-mode derivative, of the operators themselves, needs no requires_grad; the function says it knows none
    if (torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments[:3])) or forward_ad._current_level >= 0:
        return function.apply(*arguments)
    return _below_autograd(operator, arguments)


def _register_autograd(name: str, function: type[torch.autograd.Function]) -> None:
    operator = getattr(_operators, name)
    _library.impl(name, lambda *arguments: _differentiable(operator, function, arguments), "Autograd")


_register_autograd("conv2d", _Conv2d)
_register_autograd("linear", _Linear)


# ---- Autocast: x in the shorter dtype, the filters and B as they are ----


def _register_autocast(operator: str, device: str, key: str) -> None:
    overload = getattr(_operators, operator).default
    below = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def forward(x, weight, *rest):
        dtype = torch.get_autocast_dtype(device)
        if x.device.type == device and x.is_floating_point() and x.dtype != torch.float64:
            x = x.to(dtype)
            if weight.dtype not in (x.dtype, torch.float32):  # of another half precision
                weight = weight.to(dtype)
        with torch._C._ExcludeDispatchKeyGuard(below):
            return overload(x, weight, *rest)

    def backward(*arguments):  # inside an autocast region the products would be cast
        with torch._C._ExcludeDispatchKeyGuard(below):
            return overload(*arguments)

    _library.impl(operator, backward if operator.endswith("backward") else forward, key)


for _name in ("conv2d", "conv2d_backward", "linear", "linear_backward"):
    for _device, _key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
        _register_autocast(_name, _device, _key)


# ---- vmap: a batch of inputs joins the batch of the layer, anything else goes one by one ----


def _one_by_one(operator, batch_size, in_dims, arguments):
    def entry(i):
        return (t.select(d, i) if isinstance(d, int) else t for t, d in zip(arguments, in_dims, strict=True))

    results = [operator(*entry(i)) for i in range(batch_size)]
    return tuple(map(torch.stack, zip(*results, strict=True))), (0,) * 3


def _front(t: Tensor, dim: int | None, batch_size: int) -> Tensor:
    """With the mapped dimension in front, or without it where there is nothing in the tensor."""
    t = t.expand(batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
    return t[0] if t.shape[1:] == (0,) else t


def _unfolded(results, batch_size: int, fold: bool):
    """(results, out_dims) from results whose first dimension is the mapped one, or holds it folded in."""
    there = [t.shape != (0,) for t in results]
    if fold:
        sizes = [(batch_size, t.shape[0] // batch_size) for t in results]
        results = [t.unflatten(0, s) if h else t for t, h, s in zip(results, there, sizes, strict=True)]
    return tuple(results), tuple(0 if h else None for h in there)


def _register_vmap(name: str, fold: bool) -> None:
    """``fold``: the layer has one batch dimension, which takes the mapped one in; a linear layer takes any number."""

    def forward(info, in_dims, x, *rest):
        operator = getattr(_operators, name)
        if in_dims[1] is not None or in_dims[2] is not None or not info.batch_size:
            return _one_by_one(operator, info.batch_size, in_dims, (x, *rest))
        x = _front(x, in_dims[0], info.batch_size)
        return _unfolded(operator(x.flatten(0, 1) if fold else x, *rest), info.batch_size, fold)

    def backward(info, in_dims, grad, x, weight, exponent, y, norm, winner, *rest):
        operator = getattr(_operators, f"{name}_backward")
        shared = in_dims[2] is None and in_dims[3] is None
        if not shared or any(rest[-2:]) or not info.batch_size:  # each has its own gradient of the filters
            arguments = (grad, x, weight, exponent, y, norm, winner, *rest)
            return _one_by_one(operator, info.batch_size, in_dims, arguments)
        dims = (*in_dims[:2], *in_dims[4:7])
        maps = [_front(t, d, info.batch_size) for t, d in zip((grad, x, y, norm, winner), dims, strict=True)]
        if fold:
            maps = [t.flatten(0, 1) if t.dim() > 1 else t for t in maps]
        return _unfolded(operator(*maps[:2], weight, exponent, *maps[2:], *rest), info.batch_size, fold)

    torch.library.register_vmap(f"bcos_kernels::{name}", forward, lib=_library)
    torch.library.register_vmap(f"bcos_kernels::{name}_backward", backward, lib=_library)


_register_vmap("conv2d", fold=True)
_register_vmap("linear", fold=False)


# ---- What a layer costs, for torch.utils.flop_counter: its products ----


@register_flop_formula(_operators.conv2d)
def _conv2d_flop(x_shape, w_shape, *_, out_shape, **__) -> int:
    return conv_flop_count(x_shape, w_shape, out_shape[0])


@register_flop_formula(_operators.linear)
def _linear_flop(x_shape, w_shape, *_, **__) -> int:
    return 2 * w_shape[0] * torch.Size(x_shape).numel()


@register_flop_formula(_operators.conv2d_backward)
def _conv2d_backward_flop(y_shape, x_shape, w_shape, *arguments, **__) -> int:
    need_x, need_weight, _ = arguments[-3:]
    return conv_flop_count(x_shape, w_shape, y_shape) * (need_x + need_weight)


@register_flop_formula(_operators.linear_backward)
def _linear_backward_flop(_, x_shape, w_shape, *arguments, **__) -> int:
    need_x, need_weight, _ = arguments[-3:]
    return _linear_flop(x_shape, w_shape) * (need_x + need_weight)


# ---- The public functions ----


def conv2d(
    x: Tensor,
    weight: Tensor,
    *,
    b: float | Tensor = 2.0,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    max_out: int = 1,
    detach: bool = False,
    eps: float = 1e-6,
) -> Tensor:
    """B-cos convolution: y = l (|l| / n)^(B-1) with l = conv(x, w/|w|) and n the norm of the patch.

    n = sqrt(sum of x² over the patch and group + eps); for B other than 1 and 2 the factor is (|l|/n + 1e-6)^(B-1).
    Source: Böhle et al., CVPR 2022, eq. 3 (arXiv 2205.10268).

    Args:
        x: Input, shape (N, C, H, W).
        weight: Filters of any norm, shape (O * max_out, C / groups, kh, kw), in the dtype of x or float32; the
            ``max_out`` filters of one output lie side by side. A filter of zeros answers zero.
        b: Exponent B, a number of at least 1; or a tensor of shape () or (O,), float32 or float64, with a gradient of
            its own (its values are not looked at; the formula holds from 1/2 on).
        stride: Step of the window.
        padding: Zeros on each side.
        dilation: Spacing of the window's elements.
        groups: Channel groups; each has its own patch norm.
        max_out: Number of filters that compete for one output, up to 255; the largest signed response wins.
        detach: Explanation mode: backward treats the factor as a constant.
        eps: Added to the patch's sum of squares.

    Returns:
        y, shape (N, O, P, Q), with the dtype of x and the memory format of a plain convolution. Backward needs it:
        changing it in place is an error.

    Raises:
        ValueError: If b, max_out, a shape, a dtype or a device is out of range.

    Example:
        >>> conv2d(torch.randn(1, 6, 8, 8), torch.randn(4, 6, 3, 3), padding=(1, 1)).shape
        torch.Size([1, 4, 8, 8])
    """
    exponent, number = _split_exponent(b)
    if x.dim() != 4 or weight.dim() != 4:
        raise ValueError(
            f"x, weight: expected 4 dimensions each, got shapes {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    _check_layer(x, weight, exponent, x.shape[1], groups, max_out)
    _check_window(x, weight, stride, padding, dilation)
    options = (stride, padding, dilation, groups, max_out, detach, float(eps))
    return _call(_operators.conv2d, _Conv2d, _TransformedConv2d, x, weight, exponent, number, *options)


def linear(
    x: Tensor,
    weight: Tensor,
    *,
    b: float | Tensor = 2.0,
    max_out: int = 1,
    detach: bool = False,
    eps: float = 1e-6,
) -> Tensor:
    """B-cos linear layer: y = l (|l| / n)^(B-1) with l = (w/|w|)ᵀ x and n the norm of x.

    Source: Böhle et al., CVPR 2022, eq. 3 (arXiv 2205.10268); eps and B as in :func:`conv2d`.

    Args:
        x: Input, shape (..., F).
        weight: Shape (O * max_out, F), of any norm, in the dtype of x or float32.
        b: Exponent B, a number of at least 1, or a tensor of shape () or (O,).
        max_out: Number of units that compete for one output, up to 255.
        detach: Explanation mode: backward treats the factor as a constant.
        eps: Added to the sum of squares.

    Returns:
        y, shape (..., O), with the dtype of x. Backward needs it: changing it in place is an error.

    Raises:
        ValueError: If b, max_out, a shape, a dtype or a device is out of range.

    Example:
        >>> linear(torch.randn(2, 5, 16), torch.randn(8, 16), b=torch.tensor(1.5)).shape
        torch.Size([2, 5, 8])
    """
    exponent, number = _split_exponent(b)
    if weight.dim() != 2 or x.dim() < 1:
        raise ValueError(
            f"x, weight: expected shapes (..., F) and (O, F), got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    _check_layer(x, weight, exponent, x.shape[-1], 1, max_out)
    options = (max_out, detach, float(eps))
    return _call(_operators.linear, _Linear, _TransformedLinear, x, weight, exponent, number, *options)


def _call(operator, function, transformed, *arguments) -> Tensor:
    if forward_ad._current_level >= 0:
        return _forward_mode(_product if operator is _operators.linear else _convolution, *arguments)
    # torch.func differentiates an autograd function that it meets above the dispatcher, and none below it
    if torch._C._are_functorch_transforms_active():
        return transformed.apply(*arguments)[0]
    if torch.compiler.is_compiling() or torch._C._is_any_autocast_enabled() or torch._C._get_tracing_state():
        return operator(*arguments)[0]
    return _differentiable(operator, function, arguments)[0]  # what the dispatcher would come back to, by a long way


def _forward_mode(layer_of: Callable, x, weight, exponent, b, *options) -> Tensor:
    """Inside ``torch.func.jvp`` and the like: by the formula, as the operators know gradients alone."""
    *window, max_out, detach, eps = options
    device = x.device.type
    if _is_autocast(device) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(device))
    is_zero = (weight == 0).all(tuple(range(1, weight.dim())), keepdim=True)
    weight = torch.where(is_zero, 0, weight)  # no direction, and none to turn it
    with torch.autocast(device, enabled=False):
        return reference.formula(layer_of(weight, *window), x, weight, exponent, b, max_out, detach, eps)


def _split_exponent(b) -> tuple[Tensor | None, float]:
    if isinstance(b, Tensor):
        if b.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"b: expected a number or a tensor of float32 or float64, got {b.dtype}")
        return b, 0.0
    if not 1 <= b < float("inf"):  # false for NaN as well
        raise ValueError(f"b: expected a finite number >= 1, got {b}")
    return None, float(b)


def _check_layer(x, weight, exponent, channels, groups, max_out) -> None:
    filters = weight.shape[0]
    if not 1 <= max_out <= 255 or filters % max_out:
        raise ValueError(f"max_out: expected a positive divisor of the {filters} filters, up to 255, got {max_out}")
    outputs = filters // max_out
    if groups < 1 or channels % groups or outputs % groups:
        raise ValueError(
            f"groups: expected a positive divisor of the {channels} input channels and the {outputs} outputs, "
            f"got {groups}"
        )
    if weight.shape[1] * groups != channels:
        raise ValueError(
            f"x: expected {weight.shape[1] * groups} channels for a weight of shape {tuple(weight.shape)}"
            f" in {groups} group(s), got {channels}"
        )
    if not (x.is_floating_point() and weight.is_floating_point()):
        raise ValueError(f"x, weight: expected floating-point dtypes, got {x.dtype} and {weight.dtype}")
    if weight.dtype != x.dtype and not _is_autocast(x.device.type):
        is_half = x.dtype in (torch.float16, torch.bfloat16)
        if not (is_half and weight.dtype == torch.float32):
            also = " or torch.float32" if is_half else ""
            raise ValueError(f"weight: expected the dtype of x, {x.dtype}{also}, got {weight.dtype}")
    for name, t in (("weight", weight), ("b", exponent)):
        if t is not None and t.device != x.device:
            raise ValueError(f"{name}: expected the device of x, {x.device}, got {t.device}")
    if exponent is not None and exponent.dim() and exponent.shape != (outputs,):
        raise ValueError(f"b: expected a number or shape () or ({outputs},), got shape {tuple(exponent.shape)}")


def _is_autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _check_window(x, weight, stride, padding, dilation) -> None:
    for name, pair, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        if not isinstance(pair, tuple | list) or len(pair) != 2 or min(pair) < least:
            raise ValueError(f"{name}: expected two numbers >= {least} (height, width), got {pair}")
    for i in range(2):
        window = dilation[i] * (weight.shape[2 + i] - 1) + 1
        if weight.shape[2 + i] < 1 or x.shape[2 + i] + 2 * padding[i] < window:
            raise ValueError(
                f"weight: its window {tuple(weight.shape[2:])} does not fit into x of shape {tuple(x.shape)}"
                f" with padding {tuple(padding)} and dilation {tuple(dilation)}"
            )
