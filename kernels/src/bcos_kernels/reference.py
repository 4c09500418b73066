"""The layers in plain PyTorch: the fallback where nothing is compiled, and the twin the kernels are held against.

Notation (docs/maths.md): u = w/|w| the filter's direction, l = conv(x, u) the linear response, n the norm of the patch
under it, c = |l| / n the cosine, y = l * s with the scale s = (c + delta)^(B-1). For a fixed B = 2 the formula is exact
(delta = 0), for B = 1 there is no scale; otherwise delta = 1e-6 keeps the power's slope finite at c = 0.

``forward`` and ``backward`` are the operators; ``gradients`` is the same gradient computed from x and w instead of the
saved y, differentiable whatever the order: what double backward runs. ``formula`` is y alone, by operations that
PyTorch differentiates in every mode and that exporters know. Each takes a :class:`Convolution` or a :class:`Product`,
the two kinds of layer. Half-precision inputs are computed in float32 and rounded at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

COSINE_OFFSET = 1e-6
"""delta: added to the cosine before the power, unless B is the number 1 or 2."""


class Needs(NamedTuple):
    """Whose gradients are wanted."""

    x: bool = True
    weight: bool = True
    exponent: bool = False


class Gradients(NamedTuple):
    """With respect to x, weight and exponent; None where not wanted."""

    x: Tensor | None
    weight: Tensor | None
    exponent: Tensor | None


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype the arithmetic runs in: float64 for float64, float32 for everything shorter."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Convolution:
    """What sets a convolution apart: (N, C, H, W) to (N, O, P, Q), one norm for each position and channel group."""

    kernel_size: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int

    channels = 1
    """The dimension of the channels."""

    def respond(self, x: Tensor, unit: Tensor) -> Tensor:
        """The linear response l."""
        window = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups)
        return torch.ops.aten.convolution(x, unit, None, *window)

    def pull_back(self, grad: Tensor, x: Tensor, unit: Tensor, needs: Needs) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of l with respect to x and the filters."""
        if not (needs.x or needs.weight):
            return None, None
        window = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups)
        mask = (needs.x, needs.weight, False)
        return torch.ops.aten.convolution_backward(grad, x, unit, None, *window, mask)[:2]

    def norm(self, x: Tensor, eps: float) -> Tensor:
        """Norm of the input under each position of the window, shape (N, G, P, Q): sqrt(sum of squares + eps)."""
        n, c, h, w = x.shape
        squares = x.to(computing_dtype(x.dtype)).square()
        energy = squares.reshape(n, self.groups, c // self.groups, h, w).sum(2)
        window = energy.new_ones(self.groups, 1, *self.kernel_size)  # a box sum, one channel per group
        return (F.conv2d(energy, window, None, self.stride, self.padding, self.dilation, self.groups) + eps).sqrt()

    def over_groups(self, t: Tensor) -> Tensor:
        """Sum over the outputs of each group: (N, O, P, Q) -> (N, G, P, Q)."""
        return t.unflatten(1, (self.groups, t.shape[1] // self.groups)).sum(2)

    def per_channel(self, t: Tensor, channels: int) -> Tensor:
        """(N, G, ...) -> a shape that broadcasts against (N, channels, ...)."""
        return t if self.groups == 1 else t.repeat_interleave(channels // self.groups, dim=1)

    def spread(self, r: Tensor, x: Tensor) -> Tensor:
        """Adjoint of the box sum, (N, G, P, Q) -> (N, G, H, W), in a shape that broadcasts against x."""
        window = r.new_ones(self.groups, 1, *self.kernel_size)
        reached = [
            (r.shape[2 + i] - 1) * self.stride[i]
            - 2 * self.padding[i]
            + self.dilation[i] * (self.kernel_size[i] - 1)
            + 1
            for i in range(2)
        ]
        rest = [x.shape[2 + i] - reached[i] for i in range(2)]  # what the strided window left over at the far edge
        spread = F.conv_transpose2d(r, window, None, self.stride, self.padding, rest, self.groups, self.dilation)
        return self.per_channel(spread, x.shape[1])

    def exponent_for_outputs(self, exponent: Tensor) -> Tensor:
        """An exponent of shape (O,) or () in a shape that broadcasts against y."""
        return exponent.view(-1, 1, 1) if exponent.dim() else exponent

    def empty_output(self, lin: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """A tensor for ``outputs`` channels in the memory format of ``lin``, which may have more."""
        if outputs == lin.shape[1]:
            return torch.empty_like(lin, dtype=dtype)
        channels_last = lin.stride(1) == 1 and lin.stride(3) == lin.shape[1]
        return torch.empty(
            (lin.shape[0], outputs, *lin.shape[2:]),
            dtype=dtype,
            device=lin.device,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )


@dataclass(frozen=True)
class Product:
    """What sets a linear layer apart: (..., F) to (..., O), one norm for each row."""

    channels = -1
    groups = 1

    def respond(self, x: Tensor, unit: Tensor) -> Tensor:
        """The linear response l."""
        return F.linear(x, unit)

    def pull_back(self, grad: Tensor, x: Tensor, unit: Tensor, needs: Needs) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of l with respect to x and the weights."""
        rows = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        return grad @ unit if needs.x else None, rows[0].mT @ rows[1] if needs.weight else None

    def norm(self, x: Tensor, eps: float) -> Tensor:
        """Norm of each row, shape (..., 1): sqrt(sum of squares + eps)."""
        return (x.to(computing_dtype(x.dtype)).square().sum(-1, keepdim=True) + eps).sqrt()

    def over_groups(self, t: Tensor) -> Tensor:
        """Sum over the outputs."""
        return t.sum(-1, keepdim=True)

    def per_channel(self, t: Tensor, channels: int) -> Tensor:
        """As it is: (..., 1) broadcasts against (..., O)."""
        return t

    def spread(self, r: Tensor, x: Tensor) -> Tensor:
        """As it is: a row's norm is that row's alone."""
        return r

    def exponent_for_outputs(self, exponent: Tensor) -> Tensor:
        """As it is: (O,) broadcasts against (..., O)."""
        return exponent

    def empty_output(self, lin: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """A tensor for ``outputs`` channels."""
        return lin.new_empty((*lin.shape[:-1], outputs), dtype=dtype)


def directions(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Filters scaled to norm one, and their norms, in float32 at least; a filter of zeros stays, and counts as 1."""
    w = weight.to(computing_dtype(weight.dtype))
    if not w.numel():
        return w, w
    dims = tuple(range(1, w.dim()))
    largest = w.detach().abs().amax(dims, keepdim=True)
    largest = torch.where(largest > 0, largest, 1)  # squares of what remains neither over- nor underflow
    scaled = w / largest
    squares = scaled.square().sum(dims, keepdim=True)
    length = torch.where(squares > 0, squares, 1).sqrt()
    return scaled / length, largest * length


def forward(
    layer: Convolution | Product,
    x: Tensor,
    weight: Tensor,
    exponent: Tensor | None,
    b: float,
    max_out: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Responses y, norms n and winners of MaxOut; n is empty where y = l, the winners are where max_out = 1.

    Args:
        layer: The kind of layer, with its window.
        x: Input, shape (N, C, H, W) or (..., F).
        weight: Filters of any norm, shape (O * max_out, C / groups, kh, kw) or (O * max_out, F).
        exponent: B as a tensor, shape () or (O,), or None.
        b: B where ``exponent`` is None.
        max_out: Number of neighbouring filters that compete for one output.
        eps: Added to the sum of squares.
    """
    if _widens(x):
        y, norm, winner = forward(layer, x.float(), _filters(x, weight), exponent, b, max_out, eps)
        return y.to(x.dtype), norm, winner
    lin = layer.respond(x, directions(weight)[0].to(x.dtype))
    dtype, outputs = computing_dtype(x.dtype), weight.shape[0] // max_out
    y = layer.empty_output(lin, outputs, x.dtype)
    winner, values = x.new_empty(0, dtype=torch.uint8), lin
    if max_out > 1:
        values, index = _units(layer, lin, max_out).max(_unit_dim(layer))
        winner = layer.empty_output(lin, outputs, torch.uint8).copy_(index)
    if exponent is None and b == 1:
        return y.copy_(values), x.new_empty(0, dtype=dtype), winner
    norm = layer.norm(x, eps).contiguous()
    values = values.to(dtype)
    cosine = values.abs() / layer.per_channel(norm, outputs)
    return y.copy_(values * _scale(layer, cosine, exponent, b)), norm, winner


def backward(
    layer: Convolution | Product,
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    exponent: Tensor | None,
    y: Tensor,
    norm: Tensor,
    winner: Tensor,
    b: float,
    max_out: int,
    detach: bool,
    needs: Needs,
) -> Gradients:
    """Gradients from what :func:`forward` left: |l| is recovered from y and n.

    Args:
        layer: As in :func:`forward`.
        grad: Gradient with respect to y.
        x: As in :func:`forward`.
        weight: As in :func:`forward`.
        exponent: As in :func:`forward`.
        y: Result of :func:`forward`; unused where y = l.
        norm: Likewise.
        winner: Result of :func:`forward`; unused where max_out is 1.
        b: As in :func:`forward`.
        max_out: As in :func:`forward`.
        detach: Whether the scale is a constant.
        needs: Whose gradients are wanted.
    """
    if _widens(x):
        wide = grad.float(), x.float()
        weight = _filters(x, weight)
        found = backward(layer, wide[0], wide[1], weight, exponent, y.float(), norm, winner, b, max_out, detach, needs)
        return found._replace(x=None if found.x is None else found.x.to(x.dtype))
    cosine, value = None, None
    if exponent is not None or b != 1:
        value = y.to(norm.dtype)
        ratio = value.abs() / layer.per_channel(norm, y.shape[layer.channels])
        cosine = ratio.sqrt() if exponent is None and b == 2 else _cosine(ratio, _exponent(layer, exponent, b, ratio))
    return _gradients(layer, grad, x, weight, exponent, cosine, value, norm, winner, b, max_out, detach, needs)


def gradients(
    layer: Convolution | Product,
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    exponent: Tensor | None,
    winner: Tensor,
    b: float,
    max_out: int,
    detach: bool,
    eps: float,
    needs: Needs,
) -> Gradients:
    """The same gradients from x and w alone, to be differentiated again; arguments as in :func:`backward`."""
    if _widens(x):
        wide = grad.float(), x.float()
        weight = _filters(x, weight)
        found = gradients(layer, wide[0], wide[1], weight, exponent, winner, b, max_out, detach, eps, needs)
        return found._replace(x=None if found.x is None else found.x.to(x.dtype))
    cosine, value, norm = None, None, None
    if exponent is not None or b != 1:
        lin = layer.respond(x, directions(weight)[0].to(x.dtype))
        if max_out > 1:
            index = winner.long().unsqueeze(_unit_dim(layer))
            lin = _units(layer, lin, max_out).gather(_unit_dim(layer), index).squeeze(_unit_dim(layer))
        norm = layer.norm(x, eps)
        lin = lin.to(norm.dtype)
        cosine = lin.abs() / layer.per_channel(norm, lin.shape[layer.channels])
        cosine = cosine.detach() if detach else cosine
        value = lin * _scale(layer, cosine, exponent, b)
    return _gradients(layer, grad, x, weight, exponent, cosine, value, norm, winner, b, max_out, detach, needs)


def formula(
    layer: Convolution | Product,
    x: Tensor,
    weight: Tensor,
    exponent: Tensor | None,
    b: float,
    max_out: int,
    detach: bool,
    eps: float,
) -> Tensor:
    """Y by PyTorch's own differentiable operations; arguments as in :func:`backward`."""
    if _widens(x):
        return formula(layer, x.float(), _filters(x, weight), exponent, b, max_out, detach, eps).to(x.dtype)
    lin = layer.respond(x, directions(weight)[0].to(x.dtype))
    if max_out > 1:
        lin = _units(layer, lin, max_out).amax(_unit_dim(layer))
    if exponent is None and b == 1:
        return lin
    norm = layer.norm(x, eps)
    lin = lin.to(norm.dtype)
    cosine = lin.abs() / layer.per_channel(norm, lin.shape[layer.channels])
    cosine = cosine.detach() if detach else cosine
    return (lin * _scale(layer, cosine, exponent, b)).to(x.dtype)


def _filters(x: Tensor, weight: Tensor) -> Tensor:
    """Filters in float32 beside bfloat16 are rounded to it, as any product in bfloat16 has them; their gradient is not.

    Those beside float16 stay: its range is too short for filters of any length.
    """
    if x.dtype != torch.bfloat16 or weight.dtype != torch.float32:
        return weight
    return weight + (weight.detach().to(x.dtype).to(weight.dtype) - weight.detach())


def _gradients(layer, grad, x, weight, exponent, cosine, value, norm, winner, b, max_out, detach, needs) -> Gradients:  # noqa: ANN001
    """From the cosines c and the responses y, however they were come by; without them y = l."""
    grad_lin, pull, grad_exponent = grad, None, None
    if cosine is not None:
        g = grad.to(norm.dtype)
        power = _exponent(layer, exponent, b, cosine) - 1
        rho = torch.ones_like(cosine) if exponent is None and b == 2 else cosine / (cosine + COSINE_OFFSET)
        scaled = g * _scale(layer, cosine, exponent, b)
        grad_lin = scaled if detach else scaled * (1 + power * rho)
        if not detach and needs.x:
            pull = layer.over_groups(power * rho * g * value) / norm.square()
        if needs.exponent and exponent is not None:
            terms = g * value * (cosine + COSINE_OFFSET).log()
            grad_exponent = _sum_to_outputs(layer, terms, exponent).to(exponent.dtype)
    if max_out > 1:
        index = winner.long().unsqueeze(_unit_dim(layer))
        shape = list(index.shape)
        shape[_unit_dim(layer)] = max_out
        zeros = grad_lin.new_zeros(shape)
        grad_lin = zeros.scatter(_unit_dim(layer), index, grad_lin.unsqueeze(_unit_dim(layer)))
        grad_lin = grad_lin.flatten(_unit_dim(layer) - 1, _unit_dim(layer))
    unit, length = directions(weight)
    grad_x, grad_unit = layer.pull_back(grad_lin.to(x.dtype), x, unit.to(x.dtype), needs)
    if pull is not None:
        grad_x = (grad_x.to(pull.dtype) - x.to(pull.dtype) * layer.spread(pull, x)).to(x.dtype)
    if grad_unit is not None:
        grad_unit = grad_unit.to(unit.dtype)
        dims = tuple(range(1, weight.dim()))
        across = grad_unit - unit * (unit * grad_unit).sum(dims, keepdim=True)
        is_zero = (weight == 0).all(dims, keepdim=True)  # no direction, and none to turn it
        grad_unit = torch.where(is_zero, 0, across / length).to(weight.dtype)
    return Gradients(grad_x, grad_unit, grad_exponent)


def _widens(x: Tensor) -> bool:
    """A CPU's products in half precision are slow, and round where float32 need not: see the compiled kernels."""
    return x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16)


def _unit_dim(layer: Convolution | Product) -> int:
    """Where :func:`_units` puts the competing units."""
    return 2 if layer.channels == 1 else -1


def _units(layer: Convolution | Product, lin: Tensor, max_out: int) -> Tensor:
    return lin.unflatten(layer.channels, (lin.shape[layer.channels] // max_out, max_out))


def _exponent(layer: Convolution | Product, exponent: Tensor | None, b: float, like: Tensor) -> Tensor | float:
    return b if exponent is None else layer.exponent_for_outputs(exponent.to(like.dtype))


def _scale(layer: Convolution | Product, cosine: Tensor, exponent: Tensor | None, b: float) -> Tensor:
    if exponent is None and b == 2:
        return cosine
    return (cosine + COSINE_OFFSET).pow(_exponent(layer, exponent, b, cosine) - 1)


def _cosine(ratio: Tensor, b: Tensor | float) -> Tensor:
    """Solve c (c + delta)^(B-1) = |y|/n by Newton steps on log c; docs/maths.md says why they converge."""
    target = ratio.log()
    b = torch.as_tensor(b, dtype=ratio.dtype, device=ratio.device)
    delta = torch.tensor(COSINE_OFFSET, dtype=ratio.dtype)
    bounds = target / b, target - (b - 1) * delta.log()
    root = torch.where(b >= 1, torch.minimum(*bounds), torch.maximum(*bounds))
    for _ in range(7 if ratio.dtype == torch.float64 else 3):
        c = root.exp()
        root = root - (root + (b - 1) * (c + delta).log() - target) / (1 + (b - 1) * c / (c + delta))
    return torch.where((ratio > 0) & ratio.isfinite(), root.exp(), ratio)  # 0, NaN, infinity: as they are


def _sum_to_outputs(layer: Convolution | Product, terms: Tensor, exponent: Tensor) -> Tensor:
    if not exponent.dim():
        return terms.sum()
    return terms.transpose(layer.channels, -1).flatten(0, -2).sum(0) if terms.dim() > 1 else terms
