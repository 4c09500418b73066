"""Contributions along a trajectory: integrated beside the states, they add up to how far each variable has come."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from bcos_core.run.error import InputError, unknown_name
from jaxtyping import Float
from torch import Tensor

from bcos_ode.model import VariableModel
from bcos_ode.runge_kutta import TABLEAUX, FixedStepIntegrator
from bcos_ode.solve import ADAPTIVE, check_tolerances, stops
from bcos_ode.systems import System, check_times
from bcos_ode.threads import single_threaded

from .ledger import View, encoded, linear_map
from .truth import true_ledger

_RTOL, _ATOL = 1e-7, 1e-9
_MOST_EVALUATIONS = 100_000  # a minute or two


@dataclass(frozen=True)
class Account:
    """Why each of d variables went where it went, along n trajectories."""

    variables: tuple[str, ...]
    channels: tuple[str, ...]
    times: Float[Tensor, "t"]
    states: Float[Tensor, "t n d"]
    contributions: Float[Tensor, "t n d m"]
    """What each channel has contributed since the first time; the sum over channels is z(t) - z(0)."""

    @property
    def completeness_error(self) -> Float[Tensor, "t n d"]:
        """|sum of contributions - (z(t) - z(0))| / largest |z| of the trajectory."""
        error = (self.contributions.sum(-1) - (self.states - self.states[0])).abs()
        return error / self.states.abs().amax(0).clamp(min=torch.finfo(error.dtype).tiny)


@single_threaded()
def integrate_contributions(
    field: VariableModel,
    start: Float[Tensor, "n d"],
    times: Float[Tensor, "t"] | np.ndarray,
    *,
    view: View = "J",
    order: float | None = None,
    method: str = "dopri5",
    rtol: float | None = None,
    atol: float | None = None,
    substeps: int | None = None,
) -> Account:
    """Solve q_ik' = contribution of k to i beside z' = f(z).

    Σ_k q_ik - z_i is linear and constant, and every Runge-Kutta method keeps linear invariants, its interpolation
    included: the account adds up to rounding however coarse the steps. The error that steps are chosen by is that of z
    alone, so z is what it would be without an account.

    Args:
        field: Without biases (model "bcos" or "degree").
        start: States at the first time.
        times: Increasing.
        view: What is integrated, W or J contributions.
        order: As :func:`~bcos_ode.explanation.ledger` has it.
        method: One of :data:`bcos_ode.solve.ADAPTIVE`, or of :data:`bcos_ode.runge_kutta.TABLEAUX`.
        rtol: Relative tolerance of an adaptive method, by default 1e-7.
        atol: Absolute one, by default 1e-9.
        substeps: Steps between two times of a fixed-step method, by default 1.

    Raises:
        InputError: If the field has no exact ledger, the times do not increase, an option does not belong to the
            method, or the solution leaves all bounds or is too stiff for explicit steps.

    Example:
        >>> from bcos_ode.config import NetworkConfig
        >>> from bcos_ode.model import DataScales, create_model
        >>> scales = DataScales.of(torch.rand(9, 2).double(), torch.rand(9, 2).double())
        >>> field = create_model(NetworkConfig(), ["x", "y"], ["x", "y"], scales)
        >>> account = integrate_contributions(field, torch.rand(1, 2).double(), np.array([0.0, 0.1]), rtol=1e-3)
        >>> came = account.states[-1] - account.states[0]
        >>> torch.allclose(account.contributions[-1].sum(-1), came, rtol=0, atol=1e-12)
        True
    """
    clock = _checked_times(times)
    e = encoded(field, start)
    d, m = start.shape[1], e.shape[1]

    def derivative(state: Tensor) -> Tensor:
        e = field.encode(state[:, :d])
        matrix, derivatives = linear_map(field, e, view, order)
        return torch.cat([derivatives, (matrix * e[:, None]).flatten(1)], -1)

    state = torch.cat([start.detach(), start.new_zeros(len(start), d * m)], -1)
    if method in TABLEAUX:
        if rtol is not None or atol is not None:
            raise InputError(f'rtol, atol: method "{method}" has fixed steps; expected substeps')
        solution = FixedStepIntegrator(derivative, method=method, substeps=1 if substeps is None else substeps)(
            state, clock
        )
    elif method in ADAPTIVE:
        if substeps is not None:
            raise InputError(f'substeps: method "{method}" chooses its steps; expected rtol, atol')
        rtol, atol = _RTOL if rtol is None else rtol, _ATOL if atol is None else atol
        check_tolerances(rtol, atol)
        solution = _solve_adaptively(derivative, state, clock, d, method, rtol, atol)
    else:
        raise unknown_name("method", method, (*ADAPTIVE, *TABLEAUX))
    finite = solution.isfinite().flatten(1).all(1)
    if not finite.all():
        raise InputError(f"field: its solution leaves all bounds before t = {float(clock[~finite][0]):g}")
    contributions = solution[..., d:].unflatten(-1, (d, m))
    return Account(field.inputs, field.channels, clock, solution[..., :d], contributions)


def true_integrated_contributions(
    system: System,
    start: Float[Tensor, "n d"],
    times: Float[Tensor, "t"] | np.ndarray,
    field: VariableModel,
    *,
    order: float | None = None,
) -> Account:
    """The account of known equations, in the J view's convention (:func:`~bcos_ode.explanation.true_ledger`).

    Raises:
        InputError: As :func:`~bcos_ode.explanation.true_ledger`, and if the system cannot be solved.
    """
    clock = _checked_times(times)
    shape = (system.dim, len(field.channels))

    def rates(z: np.ndarray) -> np.ndarray:
        return true_ledger(system, torch.from_numpy(z)[None], field, order=order).contributions[0].numpy().ravel()

    states, sums = _quadrature(system, start, clock, rates, shape[0] * shape[1])
    return Account(system.variables, field.channels, clock, states, sums.unflatten(-1, shape))


def integrated_terms(
    system: System, start: Float[Tensor, "n d"], times: Float[Tensor, "t"] | np.ndarray
) -> dict[str, dict[str, Float[Tensor, "t n"]]]:
    """The integral of each term of each equation along the true solution: {"x": {"α x": ..., "-β x y": ...}, ...}.

    Raises:
        InputError: If the times do not increase or the system cannot be solved.
    """
    clock = _checked_times(times)
    terms = [(v, term) for v, equation in zip(system.variables, system.terms, strict=True) for term in equation]
    _, sums = _quadrature(system, start, clock, lambda z: np.array([term(z) for _, term in terms]), len(terms))
    found: dict[str, dict[str, Tensor]] = {v: {} for v in system.variables}
    for (variable, term), part in zip(terms, sums.unbind(-1), strict=True):
        found[variable][term.text] = part
    return found


def _solve_adaptively(
    derivative: Callable[[Tensor], Tensor], state: Tensor, clock: Tensor, d: int, method: str, rtol: float, atol: float
) -> Tensor:
    from torchdiffeq import odeint

    def size(x: Tensor) -> Tensor:
        return x[:, :d].square().mean().sqrt()

    evaluations = 0

    def right_hand_side(t: Tensor, x: Tensor) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        if evaluations > _MOST_EVALUATIONS:
            raise InputError(
                f"field: accounting for it takes more than {_MOST_EVALUATIONS} evaluations, at t = {float(t):.4g} of "
                f"{float(clock[-1]):g}: it is stiff, or the time is long; expected an earlier last time"
            )
        return derivative(x)

    options = {"norm": size, **stops(method, clock)}
    try:
        with torch.no_grad():
            return odeint(right_hand_side, state, clock, rtol=rtol, atol=atol, method=method, options=options)  # type: ignore[return-value]
    except AssertionError as error:  # its way to say that the steps have become too small
        raise InputError(f"field: its solution leaves all bounds, or it is stiff ({error})") from None


def _quadrature(
    system: System, start: Tensor, clock: Tensor, rates: Callable[[np.ndarray], np.ndarray], count: int
) -> tuple[Tensor, Tensor]:
    """States (t, n, d) of the true equations, and the integrals (t, n, count) of rates beside them."""
    from scipy.integrate import solve_ivp

    d, times = system.dim, clock.numpy()
    found = np.empty((len(times), len(start), d + count))
    for i, z in enumerate(start.numpy()):
        solution = solve_ivp(
            lambda _t, x: np.concatenate([system(x[:d]), rates(x[:d])]),
            (times[0], times[-1]),
            np.concatenate([z, np.zeros(count)]),
            method="Radau" if system.stiff else "DOP853",
            t_eval=times,
            rtol=1e-10,
            atol=1e-12,
        )
        if not solution.success:
            raise InputError(f"{system.name} from {z.tolist()}: {solution.message} (t = {solution.t[-1]:g})")
        found[:, i] = solution.y.T
    states = torch.from_numpy(found)
    return states[..., :d], states[..., d:]


def _checked_times(times: Tensor | np.ndarray) -> Tensor:
    clock = torch.as_tensor(times, dtype=torch.float64)
    check_times(clock.numpy(), "times")
    return clock
