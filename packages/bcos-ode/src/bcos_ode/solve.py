"""Solve z' = f(z) for a learned field: differentiably, through torchdiffeq; or one by one, through SciPy.

What torchdiffeq 0.2.5 leaves to its callers is handled here: its first step leaks gradients unless it is given
(issue 284); its fixed-step methods interpolate linearly between grid and output times, and what dopri8 and bosh3
interpolate is hundreds of times less exact than their steps, so steps of all these end at outputs here; an underflow of
the step is an assertion without place (issues 27, 57, 184); ``scipy_solver`` loses the gradient.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from bcos_core.nn import Detachable
from bcos_core.run.error import InputError, unknown_name
from jaxtyping import Float
from torch import Tensor, nn

from .runge_kutta import TABLEAUX, FixedStepIntegrator
from .systems import check_times
from .threads import single_threaded

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2")
"""torchdiffeq's; one step size for the whole batch."""
SEPARATE = {"dop853": "DOP853", "rk45": "RK45", "radau": "Radau", "bdf": "BDF", "lsoda": "LSODA"}
"""SciPy's; each trajectory by itself, without gradients. The last three are for stiff fields."""

_MOST_STEPS = 100_000
_BLOWN_UP = 1e6  # times the largest start: no field here has any business there
_HINT = (
    "the field is stiff there, or runs away: try --solver.method radau, a larger --solver.rtol, or more training "
    "(--windows.lengths)"
)


class SolveError(InputError):
    """A solution that ended before its time; of a batch of states (N, d), the largest is named."""

    def __init__(self, what: str, time: float, state: np.ndarray) -> None:
        states = np.atleast_2d(state)
        largest = np.nan_to_num(np.abs(states), nan=np.inf).max(1).argmax()
        numbers = ", ".join(f"{x:.3g}" for x in states[largest, :6])
        super().__init__(f"{what} at t = {time:.6g}, z = ({numbers}); {_HINT}")
        self.time = time


@dataclass(frozen=True)
class Solutions:
    """Trajectories of a field, some of which may have ended early."""

    states: np.ndarray
    """(N, T, d); NaN from where a solution ended."""
    num_evaluations: int
    """Of the field, over all trajectories."""
    failures: dict[int, str]
    """Why, of each trajectory that ended early."""


def solve(
    field: nn.Module | Callable[[Tensor], Tensor],
    start: Float[Tensor, "n d"],
    times: Float[Tensor, "t"],
    *,
    method: str = "dopri5",
    rtol: float = 1e-7,
    atol: float = 1e-9,
    substeps: int = 1,
    adjoint: bool = False,
) -> Float[Tensor, "t n d"]:
    """Solve a batch of trajectories, differentiably.

    Args:
        field: Autonomous, from states (N, d) to derivatives (N, d).
        start: Shape (N, d).
        times: Shape (T,), increasing; the first is that of the start.
        method: One of :data:`ADAPTIVE`, or of the fixed-step methods :data:`bcos_ode.runge_kutta.TABLEAUX`.
        rtol: Relative tolerance of adaptive methods.
        atol: Absolute tolerance of adaptive methods.
        substeps: Steps of a fixed-step method between two times.
        adjoint: Gradients by a second solution backwards in time (Chen et al. 2018) instead of through the solver:
            constant memory, slower, and only as exact as that solution. ``field`` has to be a module.

    Raises:
        InputError: If times are not increasing, a tolerance is not positive, the method is unknown, or a solution ends
            early (:class:`SolveError`).
        ValueError: If ``adjoint`` is asked for in explanation mode, or of what is no module.

    Example:
        >>> t = torch.linspace(0, 1, 3, dtype=torch.float64)
        >>> z = solve(lambda z: -z, torch.ones(1, 1, dtype=torch.float64), t)
        >>> [f"{x:.6f}" for x in z[:, 0, 0].tolist()]
        ['1.000000', '0.606531', '0.367879']
    """
    import torchdiffeq

    check_times(times.detach().cpu().numpy(), "times")
    check_tolerances(rtol, atol)
    if method in TABLEAUX:
        if adjoint:
            raise ValueError(f'adjoint: fixed-step methods ("{method}") are differentiated directly')
        states = FixedStepIntegrator(field, method=method, substeps=substeps)(start, times)
        _check_finite(states, times)
        return states
    if method not in ADAPTIVE:
        raise unknown_name("differentiable solver", method, (*ADAPTIVE, *TABLEAUX))
    if adjoint:
        if not isinstance(field, nn.Module):
            raise ValueError("adjoint: needs a module, whose parameters it can find")
        _refuse_explanation(field)
    right_hand_side = _TimeFirst(field, float(times[0]), start.detach())
    integrate = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
    options = {"first_step": float(times[1] - times[0]) / 10, "max_num_steps": _MOST_STEPS, **stops(method, times)}
    try:
        states = integrate(right_hand_side, start, times, rtol=rtol, atol=atol, method=method, options=options)
    except AssertionError as error:
        what = "the step underflows" if "underflow" in str(error) else str(error).split("[")[0] or "the solver stops"
        raise SolveError(what, right_hand_side.time, right_hand_side.state.cpu().numpy()) from None
    assert isinstance(states, Tensor)
    _check_finite(states, times)
    return states


@single_threaded()
def solve_each(
    field: Callable[[Tensor], Tensor],
    starts: np.ndarray,
    times: np.ndarray,
    *,
    method: str = "dop853",
    rtol: float = 1e-9,
    atol: float = 1e-9,
) -> Solutions:
    """Solve trajectories one by one, without gradients; one that ends early leaves the others alone.

    Args:
        field: Autonomous, from float64 states (N, d) to derivatives (N, d).
        starts: Shape (N, d).
        times: Shape (T,), increasing; the first is that of the starts.
        method: One of :data:`SEPARATE`; radau, bdf and lsoda are implicit, their Jacobian is autograd's.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Raises:
        InputError: If times are not increasing, a tolerance is not positive, or the method is unknown.
    """
    from scipy.integrate import solve_ivp

    check_times(times, "times")
    check_tolerances(rtol, atol)
    if method not in SEPARATE:
        raise unknown_name("solver", method, SEPARATE)
    count, all_finite = 0, True
    last: tuple[float, np.ndarray] = (float(times[0]), starts[0])  # where the field was last a number

    def right_hand_side(t: float, z: np.ndarray) -> np.ndarray:
        nonlocal count, last, all_finite
        count += 1
        with torch.no_grad():
            derivatives = field(torch.from_numpy(z[None]))[0].numpy()
        if np.isfinite(derivatives).all():
            last = (t, z.copy())
        else:
            all_finite = False
        return derivatives

    def jacobian(_t: float, z: np.ndarray) -> np.ndarray:
        nonlocal all_finite
        found = torch.autograd.functional.jacobian(lambda x: field(x[None])[0], torch.from_numpy(z.copy()))
        all_finite &= bool(found.isfinite().all())  # type: ignore[union-attr]
        return found.numpy()  # type: ignore[union-attr]

    limit = _BLOWN_UP * max(1.0, float(np.abs(starts).max()))

    def runs_away(_t: float, z: np.ndarray) -> float:
        size = float(np.abs(z).max())
        return limit - size if math.isfinite(size) else -1.0

    runs_away.terminal = True  # type: ignore[attr-defined]
    states = np.full((len(starts), len(times), starts.shape[1]), np.nan)
    states[:, 0] = starts
    failures = {}
    implicit: dict[str, Any] = {"jac": jacobian} if method in ("radau", "bdf", "lsoda") else {}
    for i, start in enumerate(starts):
        last, all_finite = (float(times[0]), start), True
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # a step too far is tried again, shorter
                right_hand_side(times[0], start)
                if not all_finite:  # SciPy's explicit methods would never end
                    raise ValueError
                found = solve_ivp(
                    right_hand_side,
                    (times[0], times[-1]),
                    start,
                    method=SEPARATE[method],
                    t_eval=times,
                    events=runs_away,
                    rtol=rtol,
                    atol=atol,
                    **implicit,
                )
        except ValueError:  # of SciPy's linear algebra: its implicit methods do not step back from what is no number
            if all_finite:
                raise
            failures[i] = str(SolveError("the field is not finite", *last))
            continue
        states[i, : found.y.shape[1]] = found.y.T
        if found.status == 1:
            ended, at = float(found.t_events[0][-1]), found.y_events[0][-1]
            failures[i] = str(SolveError("the trajectory runs away", ended, at))
        elif found.status:
            failures[i] = str(SolveError("the step underflows", *last))
    return Solutions(states, count, failures)


class _TimeFirst(nn.Module):
    """A field as torchdiffeq wants it, of time and state; remembers where it was asked last."""

    def __init__(self, field: nn.Module | Callable[[Tensor], Tensor], time: float, state: Tensor) -> None:
        super().__init__()
        self.field = field
        self.time = time
        self.state = state

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        self.time, self.state = float(t.detach()), z.detach()
        return self.field(z)


def stops(method: str, times: Tensor) -> dict[str, Tensor]:
    """Options of torchdiffeq that let a method which interpolates badly stop at the times that are asked for."""
    return {"step_t": times.detach()} if method in ("dopri8", "bosh3") else {}


def check_tolerances(rtol: float, atol: float) -> None:
    """Refuse tolerances that no solver can keep.

    Raises:
        InputError: Naming the one that is wrong.
    """
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not 0 < value < math.inf:
            raise InputError(f"{name}: expected a positive number, got {value}")


def _refuse_explanation(field: nn.Module) -> None:
    if any(isinstance(m, Detachable) and m.detach for m in field.modules()):
        raise ValueError(
            "adjoint: not while explaining: it solves backwards for gradients of the field as it is then, through "
            "states that it reconstructs, and not for those of the linear maps that were applied; use adjoint=False"
        )


def _check_finite(states: Tensor, times: Tensor) -> None:
    finite = torch.isfinite(states).flatten(1).all(1)
    if not finite.all():
        i = int((~finite).nonzero()[0])
        raise SolveError("the trajectory runs away", float(times[i]), states[max(i - 1, 0)].detach().cpu().numpy())
