"""Contributions along trajectories: they add up, leave the states alone, and are the integrals of the terms."""

import numpy as np
import pytest
import torch
from bcos_core.run.error import InputError
from bcos_ode.config import NetworkConfig
from bcos_ode.explanation import integrate_contributions, integrated_terms, ledger, true_integrated_contributions
from bcos_ode.systems import SYSTEMS, simulate
from torchdiffeq import odeint

LV = SYSTEMS["lotka-volterra"]
TIMES = torch.linspace(0, 1, 8).double()


@pytest.mark.parametrize("view", ["W", "J"])
@pytest.mark.parametrize(
    "options", [{"rtol": 1e-2, "atol": 1e-2}, {"method": "rk4"}, {"method": "euler", "substeps": 2}]
)
def test_an_account_adds_up_however_coarse(field, states, view, options):
    found = integrate_contributions(field, states, TIMES, view=view, **options)
    assert found.contributions.shape == (8, 7, 2, len(field.channels))
    torch.testing.assert_close(found.contributions.sum(-1), found.states - states, rtol=0, atol=1e-12)
    assert found.completeness_error.max() < 1e-12


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "fehlberg2", "adaptive_heun"])
def test_the_states_are_those_without_an_account(states, make, method):
    field = make(NetworkConfig(width=8))
    options = {"step_t": TIMES} if method == "bosh3" else None
    with torch.no_grad():
        alone = odeint(lambda _t, z: field(z), states, TIMES, method=method, rtol=1e-5, atol=1e-7, options=options)
    found = integrate_contributions(field, states, TIMES, method=method, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.states, alone, rtol=1e-12, atol=1e-12)


def test_rates_of_an_account_are_the_ledger(states, make):
    field, h = make(NetworkConfig(width=8)), 1e-4
    found = integrate_contributions(field, states, torch.tensor([0.0, h, 2 * h]).double(), method="rk4", view="W")
    slopes = found.contributions[2] / (2 * h)
    torch.testing.assert_close(slopes, ledger(field, found.states[1], "W").contributions, rtol=1e-6, atol=1e-7)


def test_the_account_of_the_exact_field_is_the_equations(exact_field, states):
    found = integrate_contributions(exact_field, states[:2], TIMES, rtol=1e-10, atol=1e-12)
    truth = true_integrated_contributions(LV, states[:2], TIMES, exact_field)
    torch.testing.assert_close(found.contributions, truth.contributions, rtol=1e-8, atol=1e-9)
    terms = integrated_terms(LV, states[:2], TIMES)
    growth, meals = terms["x"]["α x"], terms["x"]["-β x y"]
    expected = torch.stack([(growth + meals) / 2, meals / 2, growth / 2], -1)
    torch.testing.assert_close(truth.contributions[:, :, 0], expected, rtol=1e-8, atol=1e-9)
    solved = torch.from_numpy(simulate(LV, states[:2].numpy(), TIMES.numpy())).transpose(0, 1)
    torch.testing.assert_close(truth.states, solved, rtol=1e-8, atol=1e-9)
    assert truth.completeness_error.max() < 1e-12


def test_the_account_of_a_decay_in_closed_form(make):
    """z' = -2 z: one channel, which contributes exp(-2t) - 1."""
    field = make(NetworkConfig(depth=0, encoding="scaled"), ("z",))
    with torch.no_grad():
        field.network[0].weight.fill_(-2 * field.encoding.scale.item() / field.network[1].scale.item())
    found = integrate_contributions(field, torch.ones(1, 1).double(), TIMES.numpy(), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.contributions[:, 0, 0, 0], torch.expm1(-2 * TIMES), rtol=1e-7, atol=1e-9)


def test_a_stiff_field_is_given_up(make, monkeypatch):
    """z' = -1000 z over a thousand: explicit steps are no longer than 3.3 / 1000."""
    monkeypatch.setattr("bcos_ode.explanation.integrated._MOST_EVALUATIONS", 500)
    field = make(NetworkConfig(depth=0, encoding="scaled"), ("z",))
    with torch.no_grad():
        field.network[0].weight.fill_(-1000 * field.encoding.scale.item() / field.network[1].scale.item())
    with pytest.raises(InputError, match=r"takes more than 500 evaluations, at t = 0.\d+ of 1000: it is stiff"):
        integrate_contributions(field, torch.ones(1, 1).double(), np.array([0.0, 1000.0]))


def test_mistakes_are_named(states, make):
    field = make(NetworkConfig())
    with pytest.raises(InputError, match="times have to increase"):
        integrate_contributions(field, states, torch.tensor([0.0, 1.0, 1.0]))
    with pytest.raises(InputError, match="expected finite times"):
        integrate_contributions(field, states, np.array([0.0, np.inf]))
    with pytest.raises(InputError, match='unknown method "dopri55"; did you mean "dopri5"'):
        integrate_contributions(field, states, TIMES, method="dopri55")
    with pytest.raises(InputError, match=r"rk4.*has fixed steps"):
        integrate_contributions(field, states, TIMES, method="rk4", rtol=1e-3)
    with pytest.raises(InputError, match=r"dopri5.*chooses its steps"):
        integrate_contributions(field, states, TIMES, substeps=2)
    with pytest.raises(InputError, match="rtol: expected a positive number, got 0"):
        integrate_contributions(field, states, TIMES, rtol=0)
    with pytest.raises(InputError, match="no exact ledger"):
        integrate_contributions(make(NetworkConfig(model="mlp")), states, TIMES)


@pytest.mark.parametrize(("method", "options"), [("rk4", {}), ("bosh3", {"rtol": 0.1, "atol": 0.1})])
def test_a_solution_that_leaves_all_bounds_is_named(make, method, options):
    """z' = z² from 1 ends at t = 1."""
    field = make(NetworkConfig(model="degree", depth=1, width=1, encoding="scaled", constant=1.0), ("z",))
    with torch.no_grad():
        field.network.network[0].weight.fill_(1)
        field.network.network[1].weight.fill_(field.encoding.scale.item() ** 2 / field.network.network[2].scale.item())
    one = torch.ones(1, 1).double()
    with pytest.raises(InputError, match="leaves all bounds"):
        integrate_contributions(field, one, torch.linspace(0, 3, 40).double(), method=method, **options)
