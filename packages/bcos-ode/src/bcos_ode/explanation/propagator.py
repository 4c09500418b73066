"""A trajectory as one matrix: what each channel of the start contributes to each later state."""

from dataclasses import dataclass

import numpy as np
import torch
from bcos_core.run.error import InputError, unknown_name
from jaxtyping import Float
from torch import Tensor

from bcos_ode.encoding import ConstantChannel, Encoding, InverseChannels
from bcos_ode.model import VariableModel
from bcos_ode.runge_kutta import TABLEAUX, Tableau
from bcos_ode.systems import check_times
from bcos_ode.threads import single_threaded

from .ledger import View, encoded, linear_map

CANCELLATION = 1e3
"""Contributions a thousand times the state: from there on an account is of what cancels."""


@dataclass(frozen=True)
class Propagation:
    """n trajectories as matrices: z(t) = Φ(t) e(0)."""

    variables: tuple[str, ...]
    channels: tuple[str, ...]
    times: Float[Tensor, "t"]
    states: Float[Tensor, "t n d"]
    matrices: Float[Tensor, "t n d m"]
    """Φ(t), of the variables."""
    contributions: Float[Tensor, "t n d m"]
    """Φ_ij e_j(0): what channel j of the start contributes to variable i at t."""
    cancellation: Float[Tensor, "t n"]
    """|(Σ_j |Φ_ij e_j(0)|)_i| / |z|, in the encoding's units: all variables at once, for one that passes through zero
    would look like cancellation."""

    @property
    def completeness_error(self) -> Float[Tensor, "t n d"]:
        """|sum of contributions - z(t)| / largest |z| of the trajectory: grows with the cancellation."""
        error = (self.contributions.sum(-1) - self.states).abs()
        return error / self.states.abs().amax(0).clamp(min=torch.finfo(error.dtype).tiny)

    @property
    def horizon(self) -> Float[Tensor, "n"]:
        """First time at which the cancellation is beyond :data:`CANCELLATION`; infinite if it never is."""
        beyond = self.cancellation > CANCELLATION
        first = self.times[beyond.double().argmax(0)]
        return torch.where(beyond.any(0), first, torch.inf)


@single_threaded()
def propagate(
    field: VariableModel,
    start: Float[Tensor, "n d"],
    times: Float[Tensor, "t"] | np.ndarray,
    *,
    view: View = "J",
    method: str = "rk4",
    substeps: int = 1,
) -> Propagation:
    """Solve with fixed steps, W (or J / p) frozen at each stage: every step is then a matrix, and so is the whole.

    The states are those of :class:`~bcos_ode.runge_kutta.FixedStepIntegrator`. At degree one, Φ of view J is the
    tangent map ∂e(t)/∂e(0) of the numerical solution.

    Args:
        field: Without biases (model "bcos" or "degree").
        start: States at the first time.
        times: Increasing.
        view: Which matrix is frozen.
        method: One of :data:`bcos_ode.runge_kutta.TABLEAUX`.
        substeps: Steps between two times.

    Raises:
        InputError: If the field has no exact ledger, the times do not increase, the method is unknown, or the solution
            leaves all bounds.

    Example:
        >>> from bcos_ode.config import NetworkConfig
        >>> from bcos_ode.model import DataScales, create_model
        >>> scales = DataScales.of(torch.rand(9, 2).double(), torch.rand(9, 2).double())
        >>> field = create_model(NetworkConfig(), ["x", "y"], ["x", "y"], scales)
        >>> start = torch.rand(1, 2).double()
        >>> found = propagate(field, start, np.array([0.0, 0.1]))
        >>> torch.allclose(found.matrices[-1, 0] @ field.encode(start[0]), found.states[-1, 0], rtol=1e-12)
        True
    """
    clock = torch.as_tensor(times, dtype=torch.float64)
    check_times(clock.numpy(), "times")
    if method not in TABLEAUX:
        raise unknown_name("fixed-step method", method, TABLEAUX)
    if substeps < 1:
        raise InputError(f"substeps: expected at least 1, got {substeps}")
    first = encoded(field, start)
    rates, decoder = field.encoding.rates(), _decoder(field.encoding)
    z, phi = start.detach(), torch.eye(first.shape[1], dtype=first.dtype).expand(len(first), -1, -1)
    states, matrices = [z], [decoder @ phi]
    for h in clock.diff().tolist():
        for _ in range(substeps):
            map_of_step, change = _step(field, z, h / substeps, TABLEAUX[method], view, rates)
            z, phi = z + change, map_of_step @ phi
        states.append(z)
        matrices.append(decoder @ phi)
    path, whole = torch.stack(states), torch.stack(matrices)
    finite = (path.isfinite().all(-1) & whole.isfinite().all(-1).all(-1)).all(1)
    if not finite.all():
        raise InputError(f"field: its solution leaves all bounds before t = {float(clock[~finite][0]):g}")
    parts = whole * first[:, None]
    unit = rates.norm(dim=0)
    cancellation = (parts.abs().sum(-1) * unit).norm(dim=-1) / (path * unit).norm(dim=-1)
    return Propagation(field.inputs, field.channels, clock, path, whole, parts, cancellation)


def _step(
    field: VariableModel, z: Tensor, h: float, tableau: Tableau, view: View, rates: Tensor
) -> tuple[Tensor, Tensor]:
    """The matrix that one step applies to the channels (n, m, m), and the change of the states (n, d)."""
    one = torch.eye(rates.shape[0], dtype=z.dtype).expand(len(z), -1, -1)
    maps: list[Tensor] = []
    slopes: list[Tensor] = []
    for row in tableau.a:
        at, to_stage = z, one
        for weight, slope, stage in zip(row, slopes, maps, strict=True):
            at, to_stage = at + h * weight * slope, to_stage + h * weight * stage
        matrix, derivatives = linear_map(field, field.encode(at), view)
        maps.append(rates @ matrix @ to_stage)
        slopes.append(derivatives)
    whole, change = one, torch.zeros_like(z)
    for weight, slope, stage in zip(tableau.b, slopes, maps, strict=True):
        whole, change = whole + h * weight * stage, change + h * weight * slope
    return whole, change


def _decoder(encoding: Encoding) -> Tensor:
    """The matrix (d, m) from channels to variables."""
    if isinstance(encoding, ConstantChannel):
        own = torch.diag(encoding.scale)
        return torch.cat([own, own.new_zeros(len(own), 1)], 1) if encoding.constant else own
    if isinstance(encoding, InverseChannels):  # z = low + (high - low) u = high u + low (1 - u)
        return torch.cat([torch.diag(encoding.high), torch.diag(encoding.low)], 1)
    raise InputError(f"field: channels of {type(encoding).__name__} are not linear in the variables")
