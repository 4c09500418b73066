"""Fitting through the solver: a linear field, whose solutions are matrix exponentials, is found again."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch
from bcos_core.run.error import InputError
from bcos_ode.config import NetworkConfig
from bcos_ode.dynamics.config import WindowsConfig
from bcos_ode.fit import windows
from bcos_ode.fit.network import Diverged
from bcos_ode.fit.windows import _draw, check_windows, fit_windows
from bcos_ode.fit.windows import _mean_error as mean_error
from bcos_ode.model import DataScales, create_model
from bcos_ode.solve import solve
from bcos_ode.systems import Trajectories, make_system, make_trajectories

MATRIX, INFLOW = np.array([[-0.3, 2.0], [-1.5, -0.2]]), np.array([0.7, -0.4])
CONFIG = WindowsConfig(lengths=[2, 5], steps=60, substeps=3)


def observed(step=0.1, count=21):
    """z' = A z + b from three starts."""
    times = np.arange(count) * step
    rest = -np.linalg.solve(MATRIX, INFLOW)
    starts = np.array([[1.0, 0.5], [-0.3, 2.0], [0.4, -1.0]])
    flow = np.stack([scipy.linalg.expm(MATRIX * t) for t in times])
    return Trajectories("linear", ("x", "y"), times, rest + np.einsum("tij,nj->nti", flow, starts - rest))


def linear_field(data, seed=0):
    torch.manual_seed(seed)
    z = torch.from_numpy(data.states).flatten(0, 1)
    return create_model(NetworkConfig(depth=0), data.variables, data.variables, DataScales.of(z, z))


def fitted(config=CONFIG, seed=0, data=None):
    data = data or observed()
    field = linear_field(data)
    loss = fit_windows(field, data, data.states, config, seed=seed)
    return field, loss


def assert_found(field, atol):
    origin = torch.zeros(2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(field, origin)
    np.testing.assert_allclose(jacobian, MATRIX, atol=atol)
    np.testing.assert_allclose(field(origin).detach(), INFLOW, atol=atol)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "dopri5", "substeps": 2, "lengths": [3]},
        {"method": "dopri5", "substeps": 2, "lengths": [3], "adjoint": True, "max_windows": 10},
    ],
    ids=["rk4", "dopri5", "adjoint"],
)
def test_a_linear_field_is_found(changes):
    field, loss = fitted(dataclasses.replace(CONFIG, **changes))
    assert_found(field, 1e-6)
    assert loss < 1e-12


def test_the_loss_is_in_units_of_each_variables_deviation():
    """Of a field that stands still, the error of a window is how far the data went."""
    data = observed()
    scaled = dataclasses.replace(data, states=data.states * [1, 1000])
    field = linear_field(scaled)
    with torch.no_grad():
        field.network[0].weight.zero_()
    seen = []
    fit_windows(
        field,
        scaled,
        scaled.states,
        WindowsConfig(lengths=[20], steps=1, substeps=1),
        seed=0,
        report=lambda _what, _step, loss: seen.append(loss),
    )
    went = (data.states[:, 1:] - data.states[:, :1]) / data.states.std((0, 1))
    assert seen[0] == pytest.approx(np.square(went).mean(), rel=1e-12)


def test_windows_are_pieces_of_trajectories():
    clock = np.arange(10)
    states = (100.0 * np.arange(3)[:, None] + clock)[..., None]
    starts, targets = _draw(states, -states, 4, 1000, 0)  # from the smoothed states
    assert sorted(starts[:, 0].tolist()) == sorted(-(100.0 * n + t) for n in range(3) for t in range(6))
    torch.testing.assert_close(targets[..., 0], -starts[:, 0] + torch.arange(1.0, 5.0).double()[:, None])
    some, _ = _draw(states, -states, 4, 7, 0)
    assert len(set(some[:, 0].tolist())) == 7
    assert torch.equal(some, _draw(states, -states, 4, 7, 0)[0])
    assert not torch.equal(some, _draw(states, -states, 4, 7, 1)[0])


def test_repeats_bit_for_bit():
    few = dataclasses.replace(CONFIG, max_windows=8, steps=5)
    (one, loss), (other, again) = fitted(few), fitted(few)
    assert loss == again
    assert torch.equal(one.network[0].weight, other.network[0].weight)
    assert fitted(few, seed=1)[1] != loss


def test_what_cannot_be_cut_into_windows():
    data = observed()
    check_windows(data, dataclasses.replace(CONFIG, lengths=[20]))
    with pytest.raises(InputError, match=r"--windows.lengths: 21 steps do not fit into 21 observations"):
        check_windows(data, dataclasses.replace(CONFIG, lengths=[2, 21]))
    for unit in (1, 1e-9):  # uneven is uneven in nanoseconds, too
        uneven = dataclasses.replace(data, times=np.geomspace(1, 3, 21) * unit)
        with pytest.raises(InputError, match=r"--windows.lengths: windows need observations at equal steps"):
            fit_windows(linear_field(data), uneven, data.states, CONFIG, seed=0)
    for times in (1900 + data.times, np.round(np.arange(21) / 3, 3)):  # rounded at each
        check_windows(dataclasses.replace(data, times=times), CONFIG)


class Underflow(torch.autograd.Function):
    """A solution whose way back ends as torchdiffeq's does; real ones take minutes to get there."""

    @staticmethod
    def forward(_context, states):
        return states.clone()

    @staticmethod
    def backward(_context, _gradient):
        raise AssertionError("underflow in dt 0.0")


@pytest.mark.parametrize("adjoint", [True, False])
def test_an_adjoint_that_underflows_backwards_in_time(adjoint, monkeypatch):
    monkeypatch.setattr("bcos_ode.fit.windows.solve", lambda *a, **options: Underflow.apply(solve(*a, **options)))
    data = observed()
    config = WindowsConfig(lengths=[2], steps=1, method="dopri5", adjoint=adjoint, max_windows=2)
    error, text = (Diverged, "^windows of 2: the adjoint's step underflows") if adjoint else (AssertionError, "in dt")
    with pytest.raises(error, match=text):
        fit_windows(linear_field(data), data, data.states, config, seed=0)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_solutions_that_run_away_are_no_fault_of_the_learning_rate(method):
    data = observed()
    field = linear_field(data)
    with torch.no_grad():
        field.network[0].weight.fill_(1e80)
    with pytest.raises(Diverged, match=r"windows of 5: the loss is (inf|nan); try shorter --windows.lengths"):
        fit_windows(field, data, data.states, WindowsConfig(lengths=[5], method=method), seed=0)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_trial_that_runs_away_is_turned_back_from(method, monkeypatch):
    """x' = x² is watched until shortly before it ends: some field that is tried on the way ends earlier."""
    system = make_system("explosion", "explosion", {"x": "x^2"}, {}, (0.5,), (1.0,), 0.95, 0.05)
    data = make_trajectories(system, 4)
    z = torch.from_numpy(data.states).flatten(0, 1)
    torch.manual_seed(3)  # of those that try one
    field = create_model(NetworkConfig("degree", width=8), ("x",), ("x",), DataScales.of(z, system(z)))
    losses = []
    monkeypatch.setattr(windows, "_mean_error", lambda *given: losses.append(mean_error(*given)) or losses[-1])
    config = WindowsConfig(lengths=[10], steps=20, method=method)
    assert fit_windows(field, data, data.states, config, seed=0) < 1e-3
    assert not all(map(torch.isfinite, losses))
