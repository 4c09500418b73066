"""A vector field's ledger: what each channel, and each pair of channels, contributes to each derivative."""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from bcos_core.explanation import explanation_mode
from bcos_core.run.error import InputError
from jaxtyping import Float
from torch import Tensor

from bcos_ode.encoding import ConstantChannel
from bcos_ode.model import VariableModel

View = Literal["W", "J"]
"""W: the linear map that the network applied, W(e) e. J: the true Jacobian's J(e) e / p. Both add up exactly."""


@dataclass(frozen=True)
class Ledger:
    """Contributions to the derivatives at n states; they add up, and ``completeness_error`` says how exactly."""

    equations: tuple[str, ...]
    """The d variables whose derivatives are accounted for."""
    channels: tuple[str, ...]
    """The m channels that contribute."""
    inputs: Float[Tensor, "n m"]
    """Values of the channels."""
    contributions: Float[Tensor, "n d *channels"]
    """(n, d, m), or (n, d, m, m) of products of channels."""
    derivatives: Float[Tensor, "n d"]

    @property
    def cancellation(self) -> Float[Tensor, "d"]:
        """Sum of |contributions| / sum of |derivatives| of each equation, over the states: 1 where nothing cancels."""
        size = self.derivatives.abs().sum(0).clamp(min=torch.finfo(self.derivatives.dtype).tiny)
        return self.contributions.flatten(2).abs().sum((0, 2)) / size

    @property
    def completeness_error(self) -> Float[Tensor, "n d"]:
        """|sum of contributions - derivative| / sum of |contributions|: where a derivative is zero, too, a number."""
        parts = self.contributions.flatten(2)
        size = parts.abs().sum(-1).clamp(min=torch.finfo(parts.dtype).tiny)
        return (parts.sum(-1) - self.derivatives).abs() / size


def ledger(field: VariableModel, z: Float[Tensor, "n d"], view: View = "J", *, order: float | None = None) -> Ledger:
    """What each channel contributes to each derivative, by one forward and one backward pass over all equations.

    The two views are different ways to divide the same derivatives (docs/maths.md, "Accounts of a vector field").
    J depends on the function alone, W on the network that computes it.

    Args:
        field: Without biases (model "bcos" or "degree").
        z: States.
        view: W or J.
        order: Order q of what view J divides, by default the field's degree p. Of a monomial of exponents a and degree
            r a variable is given a_k / q and the constant (q - r) / q: with the order of the equations each product is
            divided among its factors, and no constant has to take back what they were given too much.

    Raises:
        InputError: If the field has no exact ledger, the view is unknown, or an order is asked for that it cannot have.

    Example:
        >>> from bcos_ode.config import NetworkConfig
        >>> from bcos_ode.model import DataScales, create_model
        >>> scales = DataScales.of(torch.rand(9, 2).double(), torch.rand(9, 2).double())
        >>> field = create_model(NetworkConfig(), ["x", "y"], ["x", "y"], scales)
        >>> found = ledger(field, torch.rand(5, 2).double(), "W")
        >>> found.contributions.shape, bool((found.completeness_error < 1e-12).all())
        (torch.Size([5, 2, 3]), True)
    """
    e = encoded(field, z)
    matrix, derivatives = linear_map(field, e, view, order)
    return Ledger(field.outputs, field.channels, e, matrix * e[:, None], derivatives)


def product_ledger(field: VariableModel, z: Float[Tensor, "n d"]) -> Ledger:
    """What each product of two channels contributes: e_k e_l ∂²f_i/∂e_k∂e_l / (p (p-1)), symmetric in k and l.

    Its sums over l are the J view's contributions.

    Args:
        field: Of a degree p of at least 2 (model "degree").
        z: States.

    Raises:
        InputError: If the field is not of such a degree: at degree one, Σ_l e_l ∂²f/∂e_k∂e_l is zero for every k.
    """
    p = degree_of(field)
    if p < 2:
        raise InputError(
            f"product_ledger: the field is of degree {p:g}, where second derivatives add up to zero; expected a degree "
            'of at least 2 (model "degree")'
        )
    e = encoded(field, z)
    n, m, d = len(e), e.shape[1], len(field.outputs)
    with torch.inference_mode(False), torch.enable_grad():
        copies = e.detach().repeat(d * m, 1).requires_grad_()
        values = field.network(copies).unflatten(0, (d, m, n))
        own = torch.diagonal(values, dim1=0, dim2=3)  # (m, n, d): each copy of the batch asks one equation
        (first,) = torch.autograd.grad(own.sum(), copies, create_graph=True)
        by_channel = torch.diagonal(first.unflatten(0, (d, m, n)), dim1=1, dim2=3)
        (second,) = torch.autograd.grad(by_channel.sum(), copies)
    hessian = second.unflatten(0, (d, m, n)).permute(2, 0, 1, 3)
    products = hessian * (e[:, :, None] * e[:, None, :])[:, None] / (p * (p - 1))
    return Ledger(field.outputs, field.channels, e, products, own[0].detach())


def linear_map(
    field: VariableModel, e: Float[Tensor, "n m"], view: View, order: float | None = None
) -> tuple[Float[Tensor, "n d m"], Float[Tensor, "n d"]]:
    """The matrices W(e), or J(e) / p, whose product with e is f(e), and f(e); detached.

    Raises:
        InputError: If the field has no exact ledger, or the view is unknown.
    """
    p = degree_of(field)
    if view not in get_args(View):
        raise InputError(f'view: expected "W" or "J", got "{view}"')
    n, d = len(e), len(field.outputs)
    with torch.inference_mode(False), torch.enable_grad(), explanation_mode(field) if view == "W" else nullcontext():
        copies = e.detach().repeat(d, 1).requires_grad_()
        values = field.network(copies).unflatten(0, (d, n))
        own = torch.diagonal(values, dim1=0, dim2=2)  # each copy of the batch asks one equation
        (gradient,) = torch.autograd.grad(own.sum(), copies)
    matrix = gradient.unflatten(0, (d, n)).transpose(0, 1)
    if order is None or order == p:
        return (matrix if view == "W" else matrix / p), own.detach()
    if view == "W":
        raise InputError("order: the view W has none; it is what the network applied")
    return _of_order(matrix, e, p, order_of(field, order)), own.detach()


def _of_order(jacobian: Float[Tensor, "n d m"], e: Float[Tensor, "n m"], p: float, order: float) -> Tensor:
    """J / p with each variable's part scaled to J / q; the constant's takes up the difference, from J alone."""
    variables = jacobian[..., :-1] * e[:, None, :-1]
    moved = variables.sum(-1, keepdim=True) * (1 / p - 1 / order) / e[:, None, -1:]
    return torch.cat([jacobian[..., :-1] / order, jacobian[..., -1:] / p + moved], -1)


def order_of(field: VariableModel, order: float | None) -> float:
    """The order that is meant: a given one, or the field's degree.

    Raises:
        InputError: If it is not positive, or the field has no constant channel to take up the difference.
    """
    if order is None:
        return degree_of(field)
    if not 0 < order < math.inf:
        raise InputError(f"order: expected a positive number, got {order}")
    if not isinstance(field.encoding, ConstantChannel) or not field.encoding.constant:
        raise InputError(f'order: needs a constant channel, which encoding "{field.config.encoding}" does not have')
    return float(order)


def encoded(field: VariableModel, z: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
    """Channels of a batch of states.

    Raises:
        InputError: If it is no batch of the field's variables.
    """
    if z.dim() != 2 or z.shape[1] != len(field.inputs):
        raise InputError(f"z: expected states of shape (n, {len(field.inputs)}), got {tuple(z.shape)}")
    return field.encode(z.detach())


def degree_of(field: VariableModel) -> float:
    """The field's degree of homogeneity p.

    Raises:
        InputError: If it has none: the gates of a tanh and the biases belong to no channel, and nothing adds up.
    """
    if field.degree is None:
        raise InputError(
            f'field: a network of model "{field.config.model}" has no exact ledger; expected "bcos" or "degree"'
        )
    return field.degree
