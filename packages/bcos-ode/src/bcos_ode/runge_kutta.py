"""Explicit Runge-Kutta methods with fixed steps, stepped in Python or as one compiled step."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from bcos_core.functional import written_out
from bcos_core.run.error import InputError, unknown_name
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Tableau:
    """Butcher's coefficients of an explicit method: k_i = f(z + h Σ_j a_ij k_j), z' = z + h Σ_i b_i k_i."""

    a: tuple[tuple[float, ...], ...]
    """Row i has i entries."""
    b: tuple[float, ...]
    order: int

    @property
    def c(self) -> tuple[float, ...]:
        """Where in the step each stage lies."""
        return tuple(sum(row) for row in self.a)


TABLEAUX = {
    "euler": Tableau(((),), (1.0,), 1),
    "midpoint": Tableau(((), (1 / 2,)), (0.0, 1.0), 2),
    "heun": Tableau(((), (1.0,)), (1 / 2, 1 / 2), 2),
    # the 3/8 rule, which torchdiffeq calls by this name, too
    "rk4": Tableau(((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)), (1 / 8, 3 / 8, 3 / 8, 1 / 8), 4),
    "rk4_classic": Tableau(((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4),
}

Field = Callable[[Tensor], Tensor]


def step(
    field: Callable[..., Tensor],
    z: Float[Tensor, "*batch d"],
    h: Tensor | float,
    tableau: Tableau,
    t: float | None = None,
) -> Float[Tensor, "*batch d"]:
    """One step: of an autonomous field f(z), or from time t of a field f(z, t)."""
    stages: list[Tensor] = []
    for row, c in zip(tableau.a, tableau.c, strict=True):
        at = z
        for weight, stage in zip(row, stages, strict=True):
            if weight:
                at = at + (h * weight) * stage
        stages.append(field(at) if t is None else field(at, t + h * c))
    for weight, stage in zip(tableau.b, stages, strict=True):
        if weight:
            z = z + (h * weight) * stage
    return z


class FixedStepIntegrator:
    """Integrate a field over given times, with the same number of steps between any two of them.

    Args:
        field: Autonomous, from states (N, d) to derivatives (N, d).
        method: One of :data:`TABLEAUX`.
        substeps: Steps between two times.
        compiled: Compile one step, forward and backward (torch.compile; some ten seconds once for each shape of the
            batch). Answers are the same to rounding.

    Raises:
        InputError: If the method is unknown or a number is out of range.

    Example:
        >>> integrate = FixedStepIntegrator(lambda z: -z, substeps=4)
        >>> z = integrate(torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64))
        >>> f"{z[-1].item():.5f}"
        '0.36789'
    """

    def __init__(self, field: Field, *, method: str = "rk4", substeps: int = 1, compiled: bool = False) -> None:
        if method not in TABLEAUX:
            raise unknown_name("fixed-step method", method, TABLEAUX)
        if substeps < 1:
            raise InputError(f"substeps: expected at least 1, got {substeps}")
        tableau = TABLEAUX[method]

        def one(z: Tensor, h: Tensor) -> Tensor:
            for _ in range(substeps):
                z = step(field, z, h / substeps, tableau)
            return z

        self._compiled = compiled
        self._step = torch.compile(one, fullgraph=True, dynamic=False) if compiled else one

    def __call__(self, start: Float[Tensor, "n d"], times: Float[Tensor, "t"]) -> Float[Tensor, "t n d"]:
        """States at the times, the first of which is that of the start."""
        states = [start]
        # written out, the layers' operators are the compiler's to fuse
        with written_out() if self._compiled else nullcontext():
            for h in times.diff().unbind():
                states.append(self._step(states[-1], h))
        return torch.stack(states)
