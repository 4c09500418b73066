"""Solving learned fields, against SciPy, the matrix exponential and closed forms."""

import typing

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import torch
from bcos_core import explanation_mode
from bcos_core.run.error import InputError
from bcos_ode.config import NetworkConfig
from bcos_ode.dynamics import config
from bcos_ode.model import DataScales, create_model
from bcos_ode.runge_kutta import TABLEAUX
from bcos_ode.solve import ADAPTIVE, SEPARATE, SolveError, solve, solve_each
from torch import nn

MATRIX = np.array([[-0.3, 2.0], [-1.5, -0.2]])
START = torch.tensor([[1.0, 0.5], [-0.3, 2.0]], dtype=torch.float64)
TIMES = torch.tensor([0.5, 0.8, 1.5], dtype=torch.float64)
FAST = [method for method in ADAPTIVE if method not in ("adaptive_heun", "fehlberg2")]  # those of second order


class Bent(nn.Module):
    """z' = tanh(A z)."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.from_numpy(MATRIX))

    def forward(self, z):
        return torch.tanh(z @ self.matrix.T)


def linear(z):
    return z @ torch.from_numpy(MATRIX).T


def square(z):
    return z * z


def exact(times):
    return np.stack([START.numpy() @ scipy.linalg.expm(MATRIX * (t - times[0])).T for t in times])


# ---- a batch, differentiably ----


@pytest.mark.parametrize("method", [*ADAPTIVE, "rk4", "rk4_classic"])
def test_a_linear_field(method):
    """At the times between steps, too, which dopri8 and bosh3 interpolate badly."""
    states = solve(linear, START, TIMES, method=method, substeps=1 if method in ADAPTIVE else 40)
    assert states.dtype == torch.float64
    assert torch.equal(states[0], START)
    np.testing.assert_allclose(states, exact(TIMES.numpy()), atol=3e-5 if method == "fehlberg2" else 5e-7)


def test_a_bent_field_is_scipys():
    field = Bent()
    expected = [
        scipy.integrate.solve_ivp(
            lambda _t, z: np.tanh(MATRIX @ z), (0.5, 1.5), z, "LSODA", TIMES, rtol=1e-10, atol=1e-12
        ).y.T
        for z in START.numpy()
    ]
    states = solve(field, START, TIMES, method="dopri8", rtol=1e-9).detach()
    np.testing.assert_allclose(states, np.stack(expected, 1), rtol=1e-7)


def gradients(**options):
    field, start = Bent(), START.clone().requires_grad_()
    end = solve(field, start, TIMES, **options)
    (end * torch.linspace(-1, 2, end.numel(), dtype=torch.float64).view_as(end)).sum().backward()
    return torch.cat([start.grad.flatten(), field.matrix.grad.flatten()])


def test_gradients_through_the_solver_and_by_the_adjoint_are_alike():
    direct = gradients(rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(gradients(rtol=1e-9, atol=1e-11, adjoint=True), direct, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(gradients(method="rk4", substeps=60), direct, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", [*FAST, "heun"])
def test_gradients_are_finite_differences(method):
    matrix = torch.from_numpy(MATRIX).clone().requires_grad_()
    start = START.clone().requires_grad_()

    def end(start, matrix):
        return solve(lambda z: torch.tanh(z @ matrix.T), start, TIMES, method=method)[-1]

    assert torch.autograd.gradcheck(end, (start, matrix), eps=1e-4, atol=1e-5)


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("method", ["dopri5", "dopri8"])
def test_a_field_that_runs_away_says_when_and_which(method, adjoint):
    """z' = z² ends at 1 / z(0)."""

    class Square(nn.Module):
        def forward(self, z):
            return z * z

    start = torch.tensor([[0.1], [0.5], [-3.0]], dtype=torch.float64)
    with pytest.raises(
        SolveError, match=r"the step underflows at t = .*z = \([\d.e+]+\); .*--solver.method radau"
    ) as e:
        solve(Square(), start, torch.linspace(0, 3, 7, dtype=torch.float64), method=method, adjoint=adjoint)
    assert e.value.time == pytest.approx(2, rel=1e-3)
    assert isinstance(e.value, InputError)


def test_fixed_steps_that_run_away():
    """The last finite states are those of the time before; of the batch the largest is shown."""
    start = torch.tensor([[0.1], [2.0]], dtype=torch.float64)
    times = torch.linspace(0, 20, 11, dtype=torch.float64)
    finite = solve(square, start[:1], times[:3], method="rk4")
    assert torch.isfinite(finite).all()
    with pytest.raises(SolveError, match=r"the trajectory runs away at t = \d+, z = \([\d.e+]+\);") as e:
        solve(square, start, times, method="rk4")
    assert e.value.time in times.tolist()


def test_a_step_that_underflows():
    """z' = sqrt(1.5 - z) + 1/5 is no number above 1.5."""
    with pytest.raises(SolveError, match="the step underflows at t = ") as e:
        solve(lambda z: (1.5 - z).sqrt() + 0.2, torch.ones(1, 1).double(), torch.tensor([0.0, 2.0]).double())
    # of s = sqrt(1.5 - z): -2 s ds / (s + 1/5) = dt
    s = 0.5**0.5
    assert e.value.time == pytest.approx(2 * (s - 0.2 * np.log1p(s / 0.2)), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "dopri55"}, 'unknown differentiable solver "dopri55"; did you mean "dopri5"'),
        ({"method": "radau"}, "unknown differentiable solver"),
        ({"times": [0.0, np.nan]}, "times: time 1 is nan; expected finite times"),
        ({"times": [0.0, 1.0, 1.0]}, "times: times have to increase"),
        ({"times": [0.0]}, "times: expected at least two times"),
        ({"rtol": 0.0}, "rtol: expected a positive number, got 0.0"),
        ({"atol": float("nan")}, "atol: expected a positive number, got nan"),
        ({"method": "rk4", "substeps": 0}, "substeps: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_solved(options, message):
    times = torch.tensor(options.pop("times", [0.0, 1.0]), dtype=torch.float64)
    with pytest.raises(InputError, match=message):
        solve(linear, START, times, **options)


def test_what_has_no_adjoint():
    scales = DataScales.of(START, START)
    field = create_model(NetworkConfig(width=4), ("x", "y"), ("x", "y"), scales)
    with explanation_mode(field), pytest.raises(ValueError, match="adjoint: not while explaining"):
        solve(field, START, TIMES, adjoint=True)
    with pytest.raises(ValueError, match="adjoint: needs a module"):
        solve(lambda z: -z, START, TIMES, adjoint=True)
    with pytest.raises(ValueError, match=r'adjoint: fixed-step methods \("rk4"\)'):
        solve(field, START, TIMES, method="rk4", adjoint=True)
    solve(field, START, TIMES, adjoint=True)


def test_names_that_the_command_line_knows_are_those_of_the_solvers():
    assert set(typing.get_args(config.FixedMethod)) == set(TABLEAUX)
    assert typing.get_args(config.AdaptiveMethod) == ADAPTIVE
    assert typing.get_args(config.SeparateMethod) == tuple(SEPARATE)


# ---- one by one ----


@pytest.mark.parametrize("method", SEPARATE)
def test_each_of_a_stiff_linear_field(method):
    """Rates of 1 and 10 000."""
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    matrix = turn @ np.diag([-1.0, -1e4]) @ turn.T
    times = np.array([0.0, 1e-4, 0.01, 0.2]) if method in ("dop853", "rk45") else np.array([0.0, 1e-4, 0.1, 3.0])
    found = solve_each(lambda z: z @ torch.from_numpy(matrix).T, START.numpy(), times, method=method, rtol=1e-7)
    expected = np.stack([START.numpy() @ scipy.linalg.expm(matrix * t).T for t in times], 1)
    np.testing.assert_allclose(found.states, expected, atol=5e-6)
    assert found.failures == {}
    assert found.num_evaluations > 20


def test_evaluations_are_counted():
    asked = []
    found = solve_each(lambda z: asked.append(len(z)) or linear(z), START.numpy(), TIMES.numpy())
    assert found.num_evaluations == sum(asked)
    np.testing.assert_allclose(found.states, exact(TIMES.numpy()).transpose(1, 0, 2), atol=1e-8)


@pytest.mark.parametrize("method", SEPARATE)
def test_one_that_runs_away_leaves_the_others_alone(method):
    times = np.linspace(0, 3, 8)
    found = solve_each(square, np.array([[0.1], [0.5], [-3.0]]), times, method=method, rtol=1e-6)
    assert list(found.failures) == [1]
    assert found.failures[1].startswith(("the trajectory runs away at t = 2,", "the trajectory runs away at t = 1.99"))
    np.testing.assert_array_equal(np.isnan(found.states[1, :, 0]), times >= 2)
    start = np.array([0.1, 0.5, -3.0])[:, None]
    np.testing.assert_allclose(found.states[[0, 2], :, 0], 1 / (1 / start[[0, 2]] - times), rtol=1e-4)
    np.testing.assert_allclose(found.states[1, :4, 0], 1 / (2 - times[:4]), rtol=1e-4)


@pytest.mark.parametrize("method", SEPARATE)
def test_one_that_meets_no_number_leaves_the_others_alone(method):
    """z' = 1, and no number from 1.5 on; a start beyond is no start, and an explicit method would never end."""

    def field(z):
        return torch.where(z < 1.5, torch.ones_like(z), torch.nan)

    times = np.array([0.0, 0.25, 1.0])
    found = solve_each(field, np.array([[1.0], [2.0], [0.0]]), times, method=method)
    assert list(found.failures) == [0, 1]
    assert found.failures[0].startswith(("the step underflows at t = 0.", "the field is not finite at t = 0."))
    assert "the field is not finite at t = 0, z = (2);" in found.failures[1]
    np.testing.assert_allclose(found.states[2, :, 0], times, atol=1e-9)
    np.testing.assert_allclose(found.states[:, 0, 0], [1, 2, 0], rtol=1e-15)
    assert np.isnan(found.states[:2, -1]).all()
    # a large derivative at the start is no reason to warn of overflow
    huge = solve_each(lambda z: (z * 1e200) ** 2, np.array([[1.0]]), times, method=method)
    assert "not finite" in huge.failures[0]


def test_a_mistake_in_the_field_is_not_taken_for_its_end():
    def wrong(_z):
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        solve_each(wrong, START.numpy(), TIMES.numpy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "radua"}, 'unknown solver "radua"; did you mean "radau"'),
        ({"times": np.array([0.0, 0.0])}, "times have to increase"),
        ({"rtol": -1.0}, "rtol: expected a positive number, got -1.0"),
        ({"atol": 0.0}, "atol: expected a positive number"),
    ],
)
def test_what_cannot_be_solved_one_by_one(options, message):
    with pytest.raises(InputError, match=message):
        solve_each(linear, START.numpy(), options.pop("times", TIMES.numpy()), **options)
