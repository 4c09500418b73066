"""Fit a field through the solver: windows of the data, each from its own observed start (multiple shooting)."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from bcos_core.run.error import InputError
from bcos_core.run.seed import derive_seed
from torch import Tensor

from bcos_ode.config import FitConfig
from bcos_ode.dynamics.config import WindowsConfig
from bcos_ode.model import VariableModel
from bcos_ode.runge_kutta import TABLEAUX, FixedStepIntegrator
from bcos_ode.solve import SolveError, solve
from bcos_ode.systems import Trajectories, even_step

from .network import Diverged, Report, minimise

Solution = Callable[[Tensor, Tensor], Tensor]
"""From starts (n, d) and times (t,) to states (t, n, d)."""


def fit_windows(
    field: VariableModel,
    data: Trajectories,
    smoothed: np.ndarray,
    config: WindowsConfig,
    *,
    seed: int,
    report: Report = lambda _what, _step, _loss: None,
) -> float:
    """Train a field on its solutions over windows of growing length; returns the last loss.

    The error is that of the observed states, each in units of its variable's standard deviation.

    Args:
        field: What is trained.
        data: Trajectories at equal steps.
        smoothed: The same on splines, shape (N, T, d): where windows start, so that noise is not integrated.
        config: Lengths, steps, solver.
        seed: Of the draw of windows.
        report: Told of progress.

    Raises:
        InputError: If the steps are not equal, a window is longer than the data, or solutions run away.
    """
    check_windows(data, config)
    step = even_step(data.times)
    assert step is not None
    size = torch.from_numpy(data.states.std((0, 1)))
    value = float("nan")
    for length in config.lengths:
        starts, targets = _draw(data.states, smoothed, length, config.max_windows, seed)
        times = torch.arange(length + 1, dtype=torch.float64) * step
        solution = _solver(field, config)

        loss = partial(_mean_error, solution, starts, targets, times, size)
        options = FitConfig(adam_steps=0, lbfgs_steps=config.steps)
        what, advice = f"windows of {length}", "shorter --windows.lengths, or [] to fit derivatives only"
        try:
            value = minimise(field, loss, options, what=what, report=report, advice=advice)
        except AssertionError as error:  # torchdiffeq's, of the adjoint's solution: out of the backward pass
            if not (config.adjoint and "underflow" in str(error)):
                raise
            raise Diverged(
                f"{what}: the adjoint's step underflows: backwards the field runs away; leave out --windows.adjoint"
            ) from None
    return value


def check_windows(data: Trajectories, config: WindowsConfig) -> None:
    """Refuse data that cannot be cut into the windows of a configuration.

    Raises:
        InputError: If the steps are not equal, or a window is longer than the data.
    """
    if even_step(data.times) is None:
        steps = np.diff(data.times)
        raise InputError(
            f"--windows.lengths: windows need observations at equal steps, but those of {data.name} are "
            f"{steps.min():.6g} to {steps.max():.6g}; interpolate them at even times, or give --windows.lengths [] to "
            "fit derivatives only"
        )
    if max(config.lengths) >= len(data.times):
        raise InputError(
            f"--windows.lengths: {max(config.lengths)} steps do not fit into {len(data.times)} observations"
        )


def _mean_error(solution: Solution, starts: Tensor, targets: Tensor, times: Tensor, size: Tensor) -> Tensor:
    try:
        return ((solution(starts, times)[1:] - targets) / size).square().mean()
    except SolveError:
        return torch.tensor(float("nan"), dtype=torch.float64)


def _solver(field: VariableModel, config: WindowsConfig) -> Solution:
    if config.method in TABLEAUX:
        return FixedStepIntegrator(field, method=config.method, substeps=config.substeps, compiled=config.compile)
    return lambda starts, times: solve(field, starts, times, method=config.method, adjoint=config.adjoint)


def _draw(states: np.ndarray, smoothed: np.ndarray, length: int, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Starts (n, d) and what follows each (length, n, d)."""
    count = states.shape[1] - length
    which = np.stack(np.meshgrid(np.arange(len(states)), np.arange(count), indexing="ij"), -1).reshape(-1, 2)
    if len(which) > most:
        random = np.random.default_rng(derive_seed(seed, "windows", length))
        which = which[np.sort(random.choice(len(which), most, replace=False))]
    trajectory, first = which.T
    ahead = first[None] + np.arange(1, length + 1)[:, None]
    return torch.from_numpy(smoothed[trajectory, first]), torch.from_numpy(states[trajectory[None], ahead])
