"""Trajectories as matrices."""

import math

import pytest
import torch
from bcos_core.run.error import InputError
from bcos_ode.config import NetworkConfig
from bcos_ode.explanation import propagate
from bcos_ode.runge_kutta import TABLEAUX, FixedStepIntegrator

TIMES = torch.linspace(0, 1, 6).double()


@pytest.mark.parametrize("view", ["W", "J"])
@pytest.mark.parametrize("method", ["rk4", "heun"])
def test_states_are_the_matrix_times_the_start(field, states, view, method):
    found = propagate(field, states, TIMES, view=view, method=method, substeps=2)
    with torch.no_grad():
        solved = FixedStepIntegrator(field, method=method, substeps=2)(states, TIMES)
    torch.testing.assert_close(found.states, solved, rtol=1e-12, atol=1e-12)
    product = torch.einsum("tnij,nj->tni", found.matrices, field.encode(states))
    torch.testing.assert_close(product, solved, rtol=1e-11, atol=1e-11)
    assert found.completeness_error.max() < 1e-12


@pytest.mark.parametrize("method", TABLEAUX)
def test_at_degree_one_view_j_is_the_tangent_map(states, make, method):
    field = make(NetworkConfig(width=8))
    rates, scale = field.encoding.rates(), field.encoding.scale
    solve = FixedStepIntegrator(lambda e: field.network(e) @ rates.T, method=method)
    for z in states[:2]:
        tangent = torch.autograd.functional.jacobian(lambda e: solve(e[None], TIMES)[-1, 0], field.encode(z))
        found = propagate(field, z[None], TIMES, method=method).matrices[-1, 0]
        torch.testing.assert_close(found, scale[:, None] * tangent[:2], rtol=1e-10, atol=1e-11)


def saddle(make):
    """x' = y, y' = x."""
    field = make(NetworkConfig(depth=0, encoding="scaled"))
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double()
    with torch.no_grad():
        field.network[0].weight.copy_(swap * field.encoding.scale / field.network[1].scale[:, None])
    return field, swap


def test_of_a_linear_field_it_is_the_matrix_exponential(states, make):
    field, matrix = saddle(make)
    found = propagate(field, states, TIMES, substeps=20)
    expected = torch.matrix_exp(TIMES[-1] * matrix) * field.encoding.scale
    torch.testing.assert_close(found.matrices[-1, 0], expected, rtol=1e-7, atol=1e-8)


def test_the_horizon_of_a_saddle(make):
    """From (1, -1) the state is exp(-t), of contributions cosh t and -sinh t: they cancel by exp(2t)."""
    field, _ = saddle(make)
    start = torch.tensor([[1.0, -1.0], [1.0, 1.0]]).double()
    times = torch.linspace(0, 5, 101).double()
    found = propagate(field, start, times)
    torch.testing.assert_close(found.cancellation[:, 0], (2 * times).exp(), rtol=1e-4, atol=0)
    torch.testing.assert_close(found.cancellation[:, 1], torch.ones(101).double(), rtol=1e-9, atol=0)
    assert found.horizon[0].item() == pytest.approx(math.log(1e3) / 2, abs=0.051)
    assert found.horizon[1] == math.inf


def test_mistakes_are_named(states, make):
    field = make(NetworkConfig())
    with pytest.raises(InputError, match='unknown fixed-step method "rk5"; did you mean "rk4"'):
        propagate(field, states, TIMES, method="rk5")
    with pytest.raises(InputError, match="substeps: expected at least 1, got 0"):
        propagate(field, states, TIMES, substeps=0)
    with pytest.raises(InputError, match="times have to increase"):
        propagate(field, states, TIMES.flip(0))
    with pytest.raises(InputError, match="no exact ledger"):
        propagate(make(NetworkConfig(model="mlp_nobias")), states, TIMES)
