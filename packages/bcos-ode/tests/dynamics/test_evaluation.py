"""Scores: of fields without error, of references, of accounts."""

import dataclasses

import numpy as np
import pytest
import torch
from bcos_ode.config import NetworkConfig
from bcos_ode.dynamics import DynamicsConfig, evaluate, prepare
from bcos_ode.dynamics.config import SolverConfig, WindowsConfig
from bcos_ode.dynamics.evaluation import score_accounts
from bcos_ode.model import DataScales, VariableModel, create_model

SMALL = DynamicsConfig(num_trajectories=6, span=3.0, horizon=12.0, windows=WindowsConfig(lengths=[]))


class Exact(VariableModel):
    """The equations in a network's place, and a little more."""

    system, more = None, 0.0

    def forward(self, z):
        return self.system(z) * (1 + self.more)


def exact(data, more=0.0):
    network = create_model(
        NetworkConfig("mlp"), data.train.variables, data.train.variables, DataScales.placeholder(2, 2)
    )
    field = Exact(network.encoding, network.network, network.inputs, network.outputs, network.config)
    field.system, field.more = data.system, more
    return field


@pytest.fixture(scope="module")
def lotka_volterra():
    return prepare(SMALL)


@pytest.fixture(scope="module")
def of_the_true_field(lotka_volterra):
    data, samples = lotka_volterra
    return evaluate(exact(data), data, samples, SolverConfig())


def test_the_true_field_is_scored_as_its_solver_is(lotka_volterra, of_the_true_field):
    (data, samples), found = lotka_volterra, of_the_true_field
    assert found.metrics == found.references["true equations"]
    assert found.metrics["field_error"] == 0
    for name in ("nrmse", "nrmse_within", "nrmse_outside", "period_error", "invariant_drift_error"):
        assert found.metrics[name] < 1e-6, name
    assert found.metrics["num_failed"] == 0
    coarse = evaluate(exact(data), data, samples, SolverConfig(rtol=1e-3, atol=1e-3))
    assert coarse.metrics["nrmse"] > 100 * found.metrics["nrmse"]
    assert coarse.metrics["num_evaluations"] < found.metrics["num_evaluations"]


def test_the_error_of_a_field_is_what_was_added_to_it(lotka_volterra):
    data, samples = lotka_volterra
    found = evaluate(exact(data, 0.25), data, samples, SolverConfig()).metrics
    assert found["field_error"] == pytest.approx(0.25, rel=1e-12)
    # quicker by a quarter, on the same orbits
    assert found["period_error"] == pytest.approx(0.2, abs=1e-3)
    assert found["invariant_drift_error"] < 1e-6
    assert found["nrmse_within"] < found["nrmse"]


def test_the_sparse_reference_finds_all_terms(of_the_true_field):
    found = of_the_true_field
    assert found.references["sparse regression"]["term_f1"] == 1
    assert set(found.sparse.coefficients["x"]) == {"x", "x y"}
    assert found.sparse.coefficients["y"]["x y"] == pytest.approx(0.8, rel=1e-3)
    assert found.references["sparse regression"]["field_error"] < 1e-3
    assert found.references["sparse regression"]["nrmse"] < 1e-2


def test_one_simulated_trajectory_is_scored_as_a_forecast():
    config = dataclasses.replace(SMALL, num_trajectories=1, horizon=None)
    data, samples = prepare(config)
    found = evaluate(exact(data), data, samples, SolverConfig())
    assert found.metrics["nrmse"] < 1e-6
    assert found.metrics["nrmse_outside"] < 1e-6
    still = np.sqrt(np.square(data.truth[:, 1:] - data.starts[:, None]).mean((0, 1)))
    expected = (still / data.train.states.std((0, 1))).mean()
    assert found.references["persistence"] == {"nrmse": pytest.approx(expected, rel=1e-12)}


def test_a_field_whose_solutions_fail_is_infinitely_wrong():
    data, samples = prepare(DynamicsConfig(data="hare-lynx", windows=WindowsConfig(lengths=[])))
    field = exact(data)
    field.system = lambda z: z * z
    found = evaluate(field, data, samples, SolverConfig())
    assert found.metrics["nrmse"] == np.inf
    assert found.metrics["num_failed"] == 1


@pytest.mark.parametrize("model", ["bcos", "degree"])
def test_accounts_add_up_whatever_the_fit(lotka_volterra, model):
    data, samples = lotka_volterra
    torch.manual_seed(0)
    scales = DataScales.of(torch.from_numpy(samples.states), torch.from_numpy(samples.derivatives))
    field = create_model(NetworkConfig(model, width=8), ("x", "y"), ("x", "y"), scales)
    found = score_accounts(field, data)
    assert found["completeness_error"] <= 1e-12
    assert {"view_difference", "ledger_error", "ledger_error_w"} < set(found)
    assert all(np.isfinite(value) for value in found.values())
