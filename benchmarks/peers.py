"""What is compared: four functions of the same input and weight.

- ``plain``: the linear layer that the B-cos layer replaces, with all its MaxOut filters: the limit;
- ``operator``: `bcos_core.functional`, the product;
- ``formula``: the formula in plain PyTorch, call by call;
- ``compiled``: the formula through `torch.compile` in its default mode.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from bcos_core import functional
from torch import Tensor

from .cases import Case
from .formula import bcos_formula

PEERS = ("plain", "operator", "formula", "compiled")

Layer = Callable[[Tensor, Tensor, float | Tensor], Tensor]
"""From input, weight and B to the output."""


class Unavailable(Exception):
    """A peer that cannot run this case, and why."""


def layer(case: Case, peer: str) -> Layer:
    """The function behind a peer's name.

    Raises:
        Unavailable: If the operator cannot train B.
    """
    if peer == "plain":
        return functools.partial(_plain, case)
    if peer == "operator":
        if case.trainable_b and not operator_trains_b(case.linear):
            raise Unavailable("the operator has no gradient for b")
        return functools.partial(_operator, case)
    formula = functools.partial(bcos_formula, case)
    if peer == "formula":
        return formula
    torch._dynamo.reset()  # each case is compiled for its own shapes, not made dynamic by the case before
    return torch.compile(formula)


def _plain(case: Case, x: Tensor, weight: Tensor, _b: float | Tensor) -> Tensor:
    if case.linear:
        return F.linear(x, weight)
    return F.conv2d(x, weight, None, case.stride, case.padding, case.dilation, case.groups)


def _operator(case: Case, x: Tensor, weight: Tensor, b: float | Tensor) -> Tensor:
    exponent: Any = b  # whether a tensor will do is what `operator_trains_b` finds out
    if case.linear:
        return functional.bcos_linear(x, weight, b=exponent, max_out=case.max_out)
    return functional.bcos_conv2d(
        x,
        weight,
        b=exponent,
        stride=case.stride,
        padding=case.padding,
        dilation=case.dilation,
        groups=case.groups,
        max_out=case.max_out,
    )


@functools.cache
def operator_trains_b(linear: bool) -> bool:
    """Whether a tensor B reaches the operator with its gradient: it may be refused, or read as a number."""
    b = torch.tensor(1.75, requires_grad=True)
    shape = (2, 4) if linear else (2, 4, 1, 1)
    case = Case("probe", 2, 2, 4, 1, 2, linear=linear)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of reading a number from a tensor that wants a gradient
        try:
            y = _operator(case, torch.ones(shape).requires_grad_(), torch.ones(shape), b)
        except (TypeError, ValueError, RuntimeError):
            return False
        return torch.autograd.grad(y.sum(), b, allow_unused=True)[0] is not None
