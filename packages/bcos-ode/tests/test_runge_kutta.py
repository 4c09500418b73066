"""Fixed-step Runge-Kutta against the matrix exponential and against torchdiffeq."""

import os

import numpy as np
import pytest
import scipy.linalg
import torch
import torchdiffeq
from bcos_core.run.error import InputError
from bcos_ode.config import NetworkConfig
from bcos_ode.model import DataScales, create_model
from bcos_ode.runge_kutta import TABLEAUX, FixedStepIntegrator, step

MATRIX = torch.tensor([[-0.3, 2.0, 0.1], [-1.5, -0.2, 0.4], [0.0, 0.3, -0.7]], dtype=torch.float64)
START = torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 2.0]], dtype=torch.float64)


def _linear(z):
    return z @ MATRIX.T


def _predator(z):
    x, y = z.unbind(-1)
    return torch.stack([1.3 * x - 0.9 * x * y, 0.8 * x * y - 1.8 * y], -1)


def _both(z):
    """Linear and not: x' = A x, and y' = y² beside it, whose order conditions are the nonlinear ones."""
    return torch.cat([_linear(z[..., :3]), z[..., 3:] ** 2], -1)


@pytest.mark.parametrize("method", TABLEAUX)
def test_order(method):
    """Halving the step divides the error by 2^order."""
    start = torch.cat([START, torch.tensor([[0.5], [-1.0]], dtype=torch.float64)], -1)
    exact = START.numpy() @ scipy.linalg.expm(MATRIX.numpy()).T
    y = start[:, 3:].numpy()
    exact = np.concatenate([exact, y / (1 - y)], 1)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    errors = [
        np.abs(FixedStepIntegrator(_both, method=method, substeps=n)(start, times)[-1].numpy() - exact).max(0)
        for n in (40, 80, 160)
    ]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, TABLEAUX[method].order, atol=0.15)


@pytest.mark.parametrize("method", TABLEAUX)
def test_tableaus_are_consistent(method):
    tableau = TABLEAUX[method]
    b, c = np.array(tableau.b), np.array(tableau.c)
    assert [len(row) for row in tableau.a] == list(range(len(b)))
    for power in range(tableau.order):  # Butcher's quadrature conditions
        assert b @ c**power == pytest.approx(1 / (power + 1))


@pytest.mark.parametrize(("ours", "theirs"), [("rk4", "rk4"), ("euler", "euler"), ("midpoint", "midpoint")])
def test_same_as_torchdiffeq(ours, theirs):
    times = torch.tensor([0.0, 0.1, 0.25, 0.3, 1.0], dtype=torch.float64)
    start = torch.tensor([[1.0, 2.0], [3.0, 0.5]], dtype=torch.float64)
    expected = torchdiffeq.odeint(lambda _t, z: _predator(z), start, times, method=theirs)
    torch.testing.assert_close(
        FixedStepIntegrator(_predator, method=ours)(start, times), expected, rtol=1e-12, atol=1e-12
    )


def test_substeps_are_steps():
    start = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    fine = FixedStepIntegrator(_predator)(start, torch.linspace(0, 1, 13, dtype=torch.float64))
    coarse = FixedStepIntegrator(_predator, substeps=4)(start, torch.linspace(0, 1, 4, dtype=torch.float64))
    torch.testing.assert_close(coarse, fine[::4], rtol=1e-13, atol=1e-13)
    z = step(_predator, step(_predator, start, 1 / 12, TABLEAUX["rk4"]), 1 / 12, TABLEAUX["rk4"])
    torch.testing.assert_close(z, fine[2], rtol=1e-13, atol=1e-13)


def test_gradient():
    """Of an end by start and by parameters, for linear equations: exp(A t)ᵀ, and finite differences."""
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    start = START.clone().requires_grad_()
    FixedStepIntegrator(_linear, substeps=40)(start, times)[-1].sum().backward()
    expected = np.ones((2, 3)) @ scipy.linalg.expm(MATRIX.numpy())
    np.testing.assert_allclose(start.grad, expected, rtol=1e-7)

    matrix = MATRIX.clone().requires_grad_()

    def end(matrix):
        return FixedStepIntegrator(lambda z: torch.tanh(z @ matrix.T), substeps=3)(START, times)[-1]

    assert torch.autograd.gradcheck(end, matrix)


@pytest.mark.skipif(
    not os.environ.get("BCOS_TEST_COMPILE"), reason="compiles for a minute; BCOS_TEST_COMPILE=1 runs it"
)
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
@pytest.mark.parametrize("model", ["bcos", "degree", "mlp"])
def test_a_compiled_step_is_the_same_step(model):
    """Answers and gradients are torchdiffeq's."""
    torch.manual_seed(0)
    z = torch.rand(30, 2, dtype=torch.float64) * 3
    field = create_model(NetworkConfig(model=model, width=8), ("x", "y"), ("x", "y"), DataScales.of(z, _predator(z)))
    times = torch.linspace(0, 0.5, 6, dtype=torch.float64)

    def solved(integrate):
        start = z[:4].clone().requires_grad_()
        states = integrate(start)
        wanted = [start, *field.parameters()]
        return states.detach(), torch.autograd.grad(states.square().sum(), wanted)

    expected = solved(lambda start: torchdiffeq.odeint(lambda _t, z: field(z), start, times, method="rk4"))
    found = solved(lambda start: FixedStepIntegrator(field, compiled=True)(start, times))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_what_is_refused():
    with pytest.raises(InputError, match='unknown fixed-step method "rk5"; did you mean "rk4"'):
        FixedStepIntegrator(_linear, method="rk5")
    with pytest.raises(InputError, match="substeps: expected at least 1, got 0"):
        FixedStepIntegrator(_linear, substeps=0)
