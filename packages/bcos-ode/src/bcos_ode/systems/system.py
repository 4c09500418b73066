"""A dynamical system with its equations as data: terms known by name, so that explanations can be checked."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from bcos_core.run.error import InputError, unknown_name
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


def _sine(x: Any) -> Any:
    return torch.sin(x) if isinstance(x, Tensor) else np.sin(x)


def _cosine(x: Any) -> Any:
    return torch.cos(x) if isinstance(x, Tensor) else np.cos(x)


_TOKEN = re.compile(r"(?P<sine>sin\((?P<inside>[^)]+)\))|(?P<name>[^\s^/*]+)(?:\^(?P<power>\d+))?")


@dataclass(frozen=True)
class Term:
    """One summand of an equation: coefficient · Π z_k^powers[k] · Π sin(z_k), the last over ``sines``."""

    text: str
    """As it is written, "-β x y"."""
    coefficient: float
    powers: tuple[int, ...]
    """Of each variable."""
    sines: tuple[int, ...] = ()
    """Variables whose sine is a factor."""

    @property
    def degree(self) -> int:
        """Sum of the powers."""
        return sum(self.powers)

    def __call__(self, z: Array) -> Array:
        """Value at states of shape (..., d); the shape of the answer is (...)."""
        value: Any = z[..., 0] * 0 + self.coefficient
        for k, power in enumerate(self.powers):
            if power:
                value = value * z[..., k] ** power
        for k in self.sines:
            value = value * _sine(z[..., k])
        return value

    def derivative(self, z: Array, k: int) -> Array:
        """Partial derivative by variable k, shape (...)."""
        if not self.powers[k] and k not in self.sines:
            return z[..., k] * 0
        powers = tuple(0 if i == k else p for i, p in enumerate(self.powers))
        rest = dataclasses.replace(self, powers=powers, sines=tuple(i for i in self.sines if i != k))
        x: Any = z[..., k]
        power, sines = self.powers[k], self.sines.count(k)
        inner = power * x ** (power - 1) if power else x * 0
        if sines:
            inner = inner * _sine(x) ** sines + x**power * sines * _sine(x) ** (sines - 1) * _cosine(x)
        return rest(z) * inner


@dataclass(frozen=True)
class System:
    """Equations z' = f(z), and where and how long it is worth watching.

    Make one with :func:`make_system`, or take one of :data:`bcos_ode.systems.SYSTEMS`.
    """

    name: str
    title: str
    variables: tuple[str, ...]
    parameters: Mapping[str, float]
    equations: Mapping[str, tuple[str, ...]]
    """Terms as text, for each variable: {"x": ("α x", "-β x y"), ...}."""
    terms: tuple[tuple[Term, ...], ...]
    """Of each variable's equation."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    """Starts are drawn between these."""
    span: float
    """Length of a trajectory, in the system's unit of time."""
    step: float
    """Between observations; for logarithmic times the first of them."""
    time_unit: str = ""
    spacing: Literal["linear", "logarithmic"] = "linear"
    stiff: bool = False
    """Data come from an implicit solver (Radau)."""
    burn_in: float = 0.0
    """Time that passes before the first observation: onto an attractor."""
    lyapunov_exponent: float | None = None
    """Largest, per unit of time, of a chaotic system."""
    invariants: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    """Functions of states (..., d) that do not change along a trajectory."""
    source: str = ""

    @property
    def dim(self) -> int:
        """Number of variables."""
        return len(self.variables)

    @property
    def degree(self) -> int:
        """Largest degree of a term."""
        return max(term.degree for equation in self.terms for term in equation)

    def __call__(self, z: Array) -> Array:
        """Derivatives at states; both of shape (..., d), NumPy or torch."""
        columns = [sum(term(z) for term in equation) for equation in self.terms]
        return torch.stack(columns, -1) if isinstance(z, Tensor) else np.stack(columns, -1)  # type: ignore[arg-type]

    def jacobian(self, z: Array) -> Array:
        """∂f_i/∂z_k at states (..., d), shape (..., d, d)."""
        rows = [[sum(term.derivative(z, k) for term in equation) for k in range(self.dim)] for equation in self.terms]
        if isinstance(z, Tensor):
            return torch.stack([torch.stack(row, -1) for row in rows], -2)  # type: ignore[arg-type]
        return np.stack([np.stack(row, -1) for row in rows], -2)  # type: ignore[arg-type]

    def times(self, span: float | None = None) -> np.ndarray:
        """Times of observation from 0 to ``span`` (by default the system's own), of equal steps the last that fits.

        Raises:
            InputError: If the span does not hold one step.
        """
        span = self.span if span is None else span
        if not self.step <= span < math.inf:
            raise InputError(f"span: expected at least one step of {self.name}, {self.step:g}, got {span:g}")
        if self.spacing == "logarithmic":
            per_decade = 5
            count = round(per_decade * math.log10(span / self.step)) + 1
            return np.concatenate([[0.0], np.geomspace(self.step, span, count)])
        return np.arange(math.floor(span / self.step + 1e-9) + 1) * self.step

    def with_parameters(self, **parameters: float) -> "System":
        """The same equations with other constants; what is known of the old ones alone (invariants, exponent) is left.

        Raises:
            InputError: If there is no such parameter.
        """
        for name in parameters:
            if name not in self.parameters:
                raise unknown_name(f"parameter of {self.name}", name, self.parameters)
        values = {**self.parameters, **parameters}
        terms = _parse_equations(self.equations, self.variables, values)
        return dataclasses.replace(self, parameters=values, terms=terms, invariants={}, lyapunov_exponent=None)


def make_system(
    name: str,
    title: str,
    equations: Mapping[str, str],
    parameters: Mapping[str, float],
    low: tuple[float, ...],
    high: tuple[float, ...],
    span: float,
    step: float,
    **options: object,
) -> System:
    """A system from the text of its equations.

    Args:
        name: Its short name.
        title: Its name in words.
        equations: The right-hand side of each variable, terms separated by commas: {"x": "α x, -β x y"}. A term is a
            product of parameters, numbers, variables, their powers (x^2) and sines (sin(x)); "/" divides by the
            factor that follows.
        parameters: Values of the parameters.
        low: Lower end of the starts, for each variable.
        high: Upper end.
        span: Length of a trajectory.
        step: Between observations.
        options: Further fields of :class:`System`.

    Raises:
        InputError: If a term names something unknown.

    Example:
        >>> decay = make_system("decay", "decay", {"x": "-k x"}, {"k": 2.0}, (1,), (2,), 1.0, 0.1)
        >>> float(decay(np.array([3.0]))[0])
        -6.0
    """
    texts = {variable: tuple(t.strip() for t in text.split(",")) for variable, text in equations.items()}
    variables = tuple(equations)
    terms = _parse_equations(texts, variables, parameters)
    return System(name, title, variables, dict(parameters), texts, terms, low, high, span, step, **options)  # type: ignore[arg-type]


def _parse_equations(
    equations: Mapping[str, tuple[str, ...]], variables: tuple[str, ...], parameters: Mapping[str, float]
) -> tuple[tuple[Term, ...], ...]:
    return tuple(tuple(_parse_term(t, variables, parameters) for t in equations[v]) for v in variables)


def _parse_term(text: str, variables: tuple[str, ...], parameters: Mapping[str, float]) -> Term:
    coefficient = -1.0 if text.startswith("-") else 1.0
    powers, sines = [0] * len(variables), []
    parts = re.findall(r"/|sin\([^)]*\)|[^\s/]+", text.removeprefix("-"))
    if not parts or parts[-1] == "/":
        raise InputError(f'term "{text}": it ends where a factor is expected')
    divide = False
    for part in parts:
        if part == "/" and not divide:
            divide = True
            continue
        found = _TOKEN.fullmatch(part)
        if found is None:
            raise InputError(f'term "{text}": cannot read "{part}"')
        if divide and (found["sine"] or found["name"] in variables):
            raise InputError(f'term "{text}": only parameters and numbers can be divided by')
        if found["sine"]:
            if found["inside"] not in variables:
                raise InputError(f'term "{text}": {unknown_name("variable", found["inside"], variables)}')
            sines.append(variables.index(found["inside"]))
        elif found["name"] in variables:
            powers[variables.index(found["name"])] += int(found["power"] or 1)
        else:
            value = _value(found["name"], text, variables, parameters) ** int(found["power"] or 1)
            coefficient = coefficient / value if divide else coefficient * value
        divide = False
    return Term(text, coefficient, tuple(powers), tuple(sines))


def _value(name: str, text: str, variables: tuple[str, ...], parameters: Mapping[str, float]) -> float:
    if name in parameters:
        return parameters[name]
    try:
        return float(name)
    except ValueError:
        raise InputError(f'term "{text}": {unknown_name("name", name, (*variables, *parameters))}') from None
