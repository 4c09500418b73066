"""The ledger of known equations, in the J view's convention, and how far a found one is from it."""

from dataclasses import dataclass

import torch
from bcos_core.run.error import InputError
from jaxtyping import Float
from torch import Tensor

from bcos_ode.encoding import ConstantChannel
from bcos_ode.model import VariableModel
from bcos_ode.systems import System

from .ledger import Ledger, degree_of, order_of

_ABSENT = 1e-12  # of an equation's largest contribution: rounding


def true_ledger(system: System, z: Float[Tensor, "n d"], field: VariableModel, *, order: float | None = None) -> Ledger:
    """What J contributions are when the field is the system: z_k ∂f_i/∂z_k / p, and the constant has the rest.

    Of a monomial of exponents a and degree r this gives a_k / p to variable k and (p - r) / p to the constant.
    Only one homogeneous function of degree p agrees with f where the constant channel is κ: f fixes the ledger.

    Args:
        system: The equations.
        z: States.
        field: Whose degree and channels count.
        order: As :func:`~bcos_ode.explanation.ledger` has it.

    Raises:
        InputError: If the field has other variables, no degree, or no constant channel.

    Example:
        >>> from bcos_ode.config import NetworkConfig
        >>> from bcos_ode.model import DataScales, create_model
        >>> from bcos_ode.systems import SYSTEMS
        >>> scales = DataScales.of(torch.rand(9, 2).double(), torch.rand(9, 2).double())
        >>> field = create_model(NetworkConfig(model="degree"), ["x", "y"], ["x", "y"], scales)
        >>> z = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
        >>> true_ledger(SYSTEMS["lotka-volterra"], z, field).contributions[0, 0]  # of α x - β x y = 1.3 - 1.8
        tensor([-0.2500, -0.9000,  0.6500], dtype=torch.float64)
    """
    _comparable(system, field)
    p = order_of(field, order)
    derivatives = system(z)
    own = z[:, None] * system.jacobian(z) / p
    rest = derivatives - own.sum(-1)
    contributions = torch.cat([own, rest[..., None]], -1)
    return Ledger(field.outputs, field.channels, field.encode(z), contributions, derivatives)


def true_product_ledger(system: System, z: Float[Tensor, "n d"], field: VariableModel) -> Ledger:
    """What :func:`~bcos_ode.explanation.product_ledger` is when the field is the system.

    Each monomial, with the constant's p - r among its exponents a, gives a_k (a_l - [k = l]) / (p (p-1)) of itself to
    the pair (k, l).

    Raises:
        InputError: As :func:`true_ledger`, at degree one, and if an equation is no polynomial.
    """
    p = _comparable(system, field)
    if p < 2:
        raise InputError(f"true_product_ledger: expected a field of degree at least 2, got {p:g}")
    m = len(field.channels)
    products = z.new_zeros(len(z), system.dim, m, m)
    for i, equation in enumerate(system.terms):
        for term in equation:
            if term.sines:
                raise InputError(f'true_product_ledger: the term "{term.text}" of {system.name} is no monomial')
            powers = z.new_tensor([*term.powers, p - term.degree])
            pairs = torch.outer(powers, powers) - torch.diag(powers)
            products[:, i] += term(z)[:, None, None] * pairs / (p * (p - 1))
    return Ledger(field.outputs, field.channels, field.encode(z), products, system(z))


@dataclass(frozen=True)
class LedgerError:
    """How far a ledger is from the equations' own."""

    equations: dict[str, float]
    """Of each equation, |found - true| / |true|, Frobenius over states and channels."""
    overall: float
    """Root mean square of these: each equation counts alike, in whatever unit it is."""
    spurious: dict[str, float]
    """Of each equation, the share of |contributions| that is in channels, or products, which it does not have."""


def ledger_error(found: Ledger, truth: Ledger) -> LedgerError:
    """Compare a ledger with the equations' own, at the same states.

    Raises:
        InputError: If the two are not of the same kind and states.
    """
    if found.contributions.shape != truth.contributions.shape or found.channels != truth.channels:
        raise InputError(
            "ledger_error: expected two ledgers of the same states and channels, got shapes "
            f"{tuple(found.contributions.shape)} and {tuple(truth.contributions.shape)}"
        )
    ours, theirs = (x.contributions.flatten(2).transpose(0, 1) for x in (found, truth))  # (d, n, channels)
    error = (ours - theirs).norm(dim=(1, 2)) / theirs.norm(dim=(1, 2))
    size = theirs.abs().amax(1)
    absent = size <= _ABSENT * size.amax(1, keepdim=True)
    mass = ours.abs().sum(1)
    spurious = (mass * absent).sum(1) / mass.sum(1)
    names = truth.equations
    return LedgerError(
        dict(zip(names, error.tolist(), strict=True)),
        float(error.square().mean().sqrt()),
        dict(zip(names, spurious.tolist(), strict=True)),
    )


def _comparable(system: System, field: VariableModel) -> float:
    if system.variables != field.inputs or system.variables != field.outputs:
        raise InputError(f"field: expected one of {', '.join(system.variables)}, got {', '.join(field.inputs)}")
    p = degree_of(field)
    if not isinstance(field.encoding, ConstantChannel) or not field.encoding.constant:
        raise InputError(
            f'field: encoding "{field.config.encoding}" leaves open what the true contributions are; '
            'expected "constant"'
        )
    return p
