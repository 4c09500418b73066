"""Scores of a fitted field, of reference lines beside it, and of its accounts."""

import contextlib
from dataclasses import dataclass

import numpy as np
import torch
from bcos_core.run.error import InputError

from bcos_ode.explanation import disagreement, integrate_contributions, ledger, ledger_error, true_ledger
from bcos_ode.fit.derivatives import MatchingSamples
from bcos_ode.model import VariableModel
from bcos_ode.runge_kutta import Field
from bcos_ode.solve import Solutions, solve_each
from bcos_ode.systems import System, draw_starts, simulate
from bcos_ode.threads import single_threaded

from .config import SolverConfig
from .data import DynamicsData
from .metrics import field_error, invariant_drift, period_error, trajectory_nrmse, valid_times
from .sparse import SparseModel, fit_sparse

_OUTSIDE, _WIDER = 5, 1.5  # starts drawn for extrapolation; how much wider than the training starts' box
_THRESHOLDS = (0.02, 0.05, 0.1, 0.2)  # shares of its equation below which the sparse reference drops a term
_ACCOUNTED = 500  # states whose ledgers are checked


@dataclass(frozen=True)
class Evaluation:
    """What a fitted field is worth."""

    metrics: dict[str, float]
    """Of the field."""
    references: dict[str, dict[str, float]]
    """The same of reference lines: the true equations, a sparse regression; for a forecast, persistence."""
    solutions: Solutions
    """Of the field, from the test starts."""
    sparse: SparseModel | None


@single_threaded()
def evaluate(model: VariableModel, data: DynamicsData, samples: MatchingSamples, solver: SolverConfig) -> Evaluation:
    """Score a field, and what it is to be measured against, on the same test.

    Args:
        model: The field.
        data: Its test.
        samples: What it was fitted to, for the sparse regression.
        solver: How fields are solved.
    """
    solutions = _solve(model, data.starts, data.times, solver)
    metrics = _score(model, data, solutions, solver)
    if model.explains:
        metrics |= score_accounts(model, data)
    references: dict[str, dict[str, float]] = {}
    sparse = _fit_sparse(data, samples)
    if sparse is not None:
        field = _as_torch(sparse)
        references["sparse regression"] = _score(field, data, _solve(field, data.starts, data.times, solver), solver)
        if data.system is not None:
            references["sparse regression"]["term_f1"] = sparse.term_f1(data.system)
    if data.system is not None:
        # what the solver, and chaos, leave of a field without error
        references["true equations"] = _score(
            data.system, data, _solve(data.system, data.starts, data.times, solver), solver
        )
    if data.is_forecast:
        still = np.broadcast_to(data.starts[:, None], data.truth.shape)
        references["persistence"] = {"nrmse": _nrmse(still, data)}
    return Evaluation(metrics, references, solutions, sparse)


def score_accounts(model: VariableModel, data: DynamicsData) -> dict[str, float]:
    """How exactly the field's accounts add up, how far its two views differ, and how near the equations' own they are.

    Accounts of the derivatives at the test's states, and of the way along its first trajectory, if the field can be
    solved from there by explicit steps.

    Args:
        model: A field without biases.
        data: Its test.
    """
    states = torch.from_numpy(_states(data.truth))
    every = max(1, len(states) // _ACCOUNTED)
    states = states[::every]
    views = {view: ledger(model, states, view) for view in ("W", "J")}
    errors = [float(found.completeness_error.max()) for found in views.values()]
    if data.system is None or not data.system.stiff:  # accounts are integrated by explicit steps
        with contextlib.suppress(InputError):  # there is none where the solution fails, which is scored elsewhere
            account = integrate_contributions(model, torch.from_numpy(data.starts[:1]), data.times_within)
            errors.append(float(account.completeness_error.max()))
    found = {
        "completeness_error": max(errors),
        "view_difference": float(np.mean(list(disagreement(views["W"], views["J"]).values()))),
    }
    if data.system is not None and model.config.encoding == "constant":
        truth = true_ledger(data.system, states, model)
        found["ledger_error"] = ledger_error(views["J"], truth).overall
        found["ledger_error_w"] = ledger_error(views["W"], truth).overall
    return found


def _score(field: Field, data: DynamicsData, solutions: Solutions, solver: SolverConfig) -> dict[str, float]:
    system, predicted = data.system, solutions.states
    found: dict[str, float] = {}
    if system is not None:
        states = _states(data.truth)
        pace = np.tile(data.pace, len(data.truth))[:, None]
        with torch.no_grad():
            derivatives = field(torch.from_numpy(states)).numpy()
        found["field_error"] = field_error(derivatives * pace, system(states) * pace)
    found["nrmse"] = _nrmse(predicted, data)
    if 2 < data.num_within < len(data.times):
        within = slice(0, data.num_within)
        found["nrmse_within"] = trajectory_nrmse(predicted[:, within], data.truth[:, within])
    if system is not None:
        if not system.burn_in and not system.stiff:
            found["nrmse_outside"] = _outside(field, system, data, solver)
        if system.lyapunov_exponent is not None:
            valid = valid_times(predicted, data.truth, data.times, system.lyapunov_exponent)
            found["valid_time"] = valid.median
            found["valid_time_is_lower_bound"] = float(valid.median_is_lower_bound)
        if not np.isnan(period := period_error(predicted, data.truth, data.times)) and not system.lyapunov_exponent:
            found["period_error"] = period
        for invariant in system.invariants.values():
            if not np.isnan(drift := invariant_drift(invariant, predicted)):
                found["invariant_drift_error"] = drift
    found["num_failed"] = float(len(solutions.failures))
    found["num_evaluations"] = float(solutions.num_evaluations)
    return found


def _nrmse(predicted: np.ndarray, data: DynamicsData) -> float:
    """In units of the test's own deviations; of a forecast, which may be one step, of the training data's."""
    if not data.is_forecast:
        return trajectory_nrmse(predicted, data.truth)
    error = np.sqrt(np.square(predicted[:, 1:] - data.truth[:, 1:]).mean((0, 1)))
    return float((np.nan_to_num(error, nan=np.inf) / data.train.states.std((0, 1))).mean())


def _outside(field: Field, system: System, data: DynamicsData, solver: SolverConfig) -> float:
    """Error from starts of a wider box, those of the narrower one left out."""
    starts = draw_starts(system, 20 * _OUTSIDE, 0, widen=_WIDER)
    inside = ((starts >= system.low) & (starts <= system.high)).all(1)
    starts = starts[~inside][:_OUTSIDE]
    times = data.times_within
    return trajectory_nrmse(_solve(field, starts, times, solver).states, simulate(system, starts, times))


def _fit_sparse(data: DynamicsData, samples: MatchingSamples) -> SparseModel | None:
    """The sparse reference, its threshold chosen by the last fifth of the training samples; None of too few."""
    degree = 2 if data.system is None else max(2, data.system.degree)
    variables = data.train.variables
    kept = len(samples.states) * 4 // 5
    parts = (samples.states, samples.derivatives, samples.weights)
    first, last = ([part[where] for part in parts] for where in (slice(None, kept), slice(kept, None)))

    def error(threshold: float) -> float:
        states, derivatives, weights = first
        found = fit_sparse(states, derivatives, degree, threshold, variables, weights)
        return field_error(found(last[0]) * last[2], last[1] * last[2])

    try:
        # of thresholds that do nearly as well, the one that keeps the fewest terms
        errors = {threshold: error(threshold) for threshold in _THRESHOLDS}
        chosen = max(t for t, e in errors.items() if e <= 1.05 * min(errors.values()))
        return fit_sparse(samples.states, samples.derivatives, degree, chosen, variables, samples.weights)
    except ValueError:  # fewer samples than monomials
        return None


def _solve(field: Field, starts: np.ndarray, times: np.ndarray, solver: SolverConfig) -> Solutions:
    return solve_each(field, starts, times, method=solver.method, rtol=solver.rtol, atol=solver.atol)


def _as_torch(sparse: SparseModel) -> Field:
    powers, matrix = torch.from_numpy(sparse.powers), torch.from_numpy(sparse.matrix)
    return lambda z: (z[..., None, :] ** powers).prod(-1) @ matrix.T


def _states(truth: np.ndarray) -> np.ndarray:
    return truth.reshape(-1, truth.shape[-1])
