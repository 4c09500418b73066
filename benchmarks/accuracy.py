"""How far a layer is from the formula in float64."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .buffers import Buffers
from .cases import Case
from .formula import bcos_formula
from .peers import Layer
from .roofline import multiply_adds

MAX_MULTIPLY_ADDS = 1e9
"""Of the float64 evaluation: it takes as many of the batch's first images as fit, one at least."""


@dataclass(frozen=True)
class Expected:
    """The formula in float64 on the batch's first images, from the same inputs as the layer's."""

    y: Tensor
    grad: Tensor | None
    """The whole batch's output gradient, zero beyond the first images; None for forward alone."""
    gradients: tuple[Tensor, ...]
    """Of those images, of the weight, and of a trainable B: the weight's is theirs alone, as ``grad`` has it."""


def expect(case: Case, buffers: Buffers, mode: str) -> Expected:
    images = max(1, min(case.batch, int(MAX_MULTIPLY_ADDS * case.batch / multiply_adds(case))))
    x, weight = (t.detach().double().cpu().requires_grad_() for t in (buffers.x[0][:images], buffers.weight))
    b, inputs = buffers.b, [x, weight]
    if isinstance(b, Tensor):
        b = b.detach().double().cpu().requires_grad_()
        inputs.append(b)
    if mode == "forward":
        with torch.no_grad():
            return Expected(bcos_formula(case, x, weight, b), None, ())
    grad = buffers.grads[case.out_channels][0].clone()
    grad[images:] = 0
    y = bcos_formula(case, x, weight, b)
    return Expected(y.detach(), grad, torch.autograd.grad(y, inputs, grad[:images].double().cpu()))


def largest_error(layer: Layer, buffers: Buffers, expected: Expected) -> float:
    """The largest max|a - e| / max|e| over output and gradients, a computed and e expected.

    The layer computes the whole batch, as it is timed. With MaxOut a short float may choose another winner than
    float64 does; its gradient then goes to another filter, and the error says so.
    """
    images = len(expected.y)
    if expected.grad is None:
        with torch.no_grad():
            return relative_error(buffers.forward(layer, 0)[:images], expected.y)
    y = buffers.forward(layer, 0)
    grad_x, *others = buffers.backward(y, 0, expected.grad)
    computed = (y.detach()[:images], grad_x[:images], *others)
    pairs = zip(computed, (expected.y, *expected.gradients), strict=True)
    return max(relative_error(actual, right) for actual, right in pairs)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value; infinite where anything is not a number."""
    error = ((actual.double().cpu() - expected).abs().max() / expected.abs().max()).item()
    return error if math.isfinite(error) else math.inf
