"""The coefficients of a field of degree two, read off its product ledger."""

import itertools
from collections import Counter
from dataclasses import dataclass

import torch
from bcos_core.run.error import InputError
from jaxtyping import Float
from torch import Tensor

from bcos_ode.encoding import ConstantChannel
from bcos_ode.model import VariableModel
from bcos_ode.systems import System

from .ledger import product_ledger


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of all monomials of degree two and below, in each of d equations."""

    equations: tuple[str, ...]
    monomials: tuple[str, ...]
    """Names of the q monomials: "x^2", "x y", "x", ..., "1"."""
    found: Float[Tensor, "d q"]
    """In the units of the variables and the time."""
    spread: Float[Tensor, "d q"]
    """What a constant coefficient leaves of the product's contributions: root mean square over the states, in units of
    the derivative's. Zero where the field is a polynomial."""
    true: Float[Tensor, "d q"] | None = None
    """Of the equations, where they are known."""


def read_coefficients(field: VariableModel, z: Float[Tensor, "n d"], system: System | None = None) -> Coefficients:
    """Fit each product's contributions over the states by a constant times the monomial, by least squares.

    This fits the found ledger and not data: how well it is a polynomial's, ``spread`` says.

    Args:
        field: Of degree 2, with or without the constant channel.
        z: States, at which no variable is zero throughout.
        system: Equations to compare with.

    Raises:
        InputError: If the field is not of degree two, is encoded otherwise, or the system is no such polynomial.
    """
    if field.degree != 2:
        raise InputError(f"read_coefficients: expected a field of degree 2, got {field.degree}")
    if not isinstance(field.encoding, ConstantChannel):
        raise InputError(f'read_coefficients: expected encoding "constant" or "scaled", got "{field.config.encoding}"')
    books = product_ledger(field, z)
    m, d = len(field.channels), len(field.inputs)
    values = torch.cat([z, torch.ones_like(z[:, :1])], -1)[:, :m]
    pairs = list(itertools.combinations_with_replacement(range(m), 2))
    size = books.derivatives.square().mean(0).sqrt()
    found, spread = [], []
    for j, k in pairs:
        part = books.contributions[:, :, j, k] * (1 if j == k else 2)
        monomial = (values[:, j] * values[:, k])[:, None]
        coefficient = (part * monomial).sum(0) / monomial.square().sum(0)
        found.append(coefficient)
        spread.append((part - coefficient * monomial).square().mean(0).sqrt() / size)
    powers = [tuple((j == i) + (k == i) for i in range(d)) for j, k in pairs]
    return Coefficients(
        field.outputs,
        tuple(_name(p, field.inputs) for p in powers),
        torch.stack(found, -1),
        torch.stack(spread, -1),
        None if system is None else z.new_tensor(_true(system, powers)),
    )


def _true(system: System, powers: list[tuple[int, ...]]) -> list[list[float]]:
    rows = []
    for equation in system.terms:
        row: Counter[tuple[int, ...]] = Counter()
        for term in equation:
            if term.sines or term.powers not in powers:
                raise InputError(f'system: the term "{term.text}" of {system.name} is not among the field\'s products')
            row[term.powers] += term.coefficient  # type: ignore[assignment]
        rows.append([float(row[p]) for p in powers])
    return rows


def _name(powers: tuple[int, ...], variables: tuple[str, ...]) -> str:
    factors = [v if p == 1 else f"{v}^{p}" for v, p in zip(variables, powers, strict=True) if p]
    return " ".join(factors) or "1"
