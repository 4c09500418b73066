"""How far a layer is from the formula in float64."""

import math

import torch
from torch import Tensor

from .buffers import Buffers
from .cases import Case
from .formula import bcos_formula
from .peers import Layer
from .roofline import multiply_adds

MAX_MULTIPLY_ADDS = 2e9
"""Of the float64 evaluation: it takes as many of the batch's first images as fit, one at least."""


def largest_error(case: Case, layer: Layer, buffers: Buffers, mode: str) -> float:
    """The largest max|a - e| / max|e| over output and gradients, a computed and e in float64 from the same inputs.

    The layer computes the whole batch, as it is timed. Only the first images have an output gradient, so that the
    weight's gradient too is that of the images evaluated in float64. With MaxOut a short float may choose another
    winner than float64 does; its gradient then goes to another filter, and the error says so.
    """
    images = max(1, min(case.batch, int(MAX_MULTIPLY_ADDS / (multiply_adds(case) / case.batch))))
    x, weight = (t.detach().double().cpu().requires_grad_() for t in (buffers.x[0][:images], buffers.weight))
    b = buffers.b
    inputs = [x, weight]
    if isinstance(b, Tensor):
        b = b.detach().double().cpu().requires_grad_()
        inputs.append(b)
    expected = bcos_formula(case, x, weight, b)
    if mode == "forward":
        with torch.no_grad():
            return relative_error(buffers.forward(layer, 0)[:images], expected.detach())

    grad = buffers.grads[case.out_channels][0].clone()
    grad[images:] = 0
    y = buffers.forward(layer, 0)
    grad_x, *grad_inputs = buffers.backward(y, 0, grad)
    gradients = torch.autograd.grad(expected, inputs, grad[:images].double().cpu())
    pairs = zip((y.detach()[:images], grad_x[:images], *grad_inputs), (expected.detach(), *gradients), strict=True)
    return max(relative_error(actual, right) for actual, right in pairs)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value; infinite where anything is not a number."""
    error = ((actual.double().cpu() - expected).abs().max() / expected.abs().max()).item()
    return error if math.isfinite(error) else math.inf
