"""Runs over dynamics: what they keep, that they repeat, what their accounts are worth."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import torch
from bcos_core.run.error import InputError
from bcos_core.run.tracking import fetch_artifact, find_run
from bcos_ode.config import FitConfig, NetworkConfig
from bcos_ode.dynamics import DynamicsConfig, fit, load_dynamics
from bcos_ode.dynamics.config import SolverConfig, WindowsConfig
from bcos_ode.model import VariableModel
from bcos_ode.recipes import RECIPES
from bcos_ode.solve import solve_each

SMALL = DynamicsConfig(
    num_trajectories=5,
    span=4.0,
    horizon=5.0,
    network=NetworkConfig(width=8, depth=1),
    fit=FitConfig(adam_steps=60, lbfgs_steps=100),
    windows=WindowsConfig(lengths=[3, 6], steps=10, max_windows=40),
    solver=SolverConfig(rtol=1e-6, atol=1e-6),
)
DERIVATIVES = dataclasses.replace(SMALL, windows=WindowsConfig(lengths=[]))


def test_a_run_keeps_what_it_found(project):
    result = fit(SMALL)
    pictures = {"solutions.png", "ledger.png", "account.png", "horizon.png", "phase.png"}
    kept = {"model.safetensors", "predictions.npz", "config.json", "equations.txt", *pictures}
    assert {p.name for p in result.folder.iterdir()} >= kept

    data = load_dynamics(SMALL)
    model = VariableModel.load(result.folder / "model.safetensors")
    states = torch.from_numpy(data.truth).flatten(0, 1)
    assert torch.equal(model(states), result.model(states))
    assert model.config == result.model.config
    solved = solve_each(model, data.starts, data.times, rtol=1e-6, atol=1e-6)
    predictions = np.load(result.folder / "predictions.npz")
    np.testing.assert_array_equal(predictions["predictions"], solved.states)
    np.testing.assert_array_equal(predictions["truth"], data.truth)

    with torch.no_grad():
        error = (model(states) - data.system(states)).norm() / data.system(states).norm()
    assert result.metrics["field_error"] == pytest.approx(float(error), rel=1e-9)
    assert result.metrics["field_error"] < 0.15
    assert result.metrics["completeness_error"] <= 1e-12
    deviation = np.sqrt(np.square(solved.states - data.truth).mean((0, 1))) / data.truth.std((0, 1))
    assert result.metrics["nrmse"] == pytest.approx(deviation.mean(), rel=1e-12)

    record = find_run(result.run_id)
    assert record.status == "FINISHED"
    assert record.tags["task"] == "dynamics"
    assert record.tags["arm"].startswith("lotka-volterra bcos B=2 1x8 ")
    assert record.tags["data_fingerprint"] == data.fingerprint
    assert record.metrics["test/nrmse"] == result.metrics["nrmse"]
    for name in ("train/derivatives", "train/windows_of_3", "train/windows_of_6", "train/seconds"):
        assert name in record.metrics
    for name in ("true_equations/nrmse", "sparse_regression/field_error", "sparse_regression/term_f1"):
        assert f"reference/{name}" in record.metrics
    assert (result.folder / "equations.txt").read_text() == f"{result.evaluation.sparse.equations()}\n"
    for name in (
        "predictions.npz",
        "equations.txt",
        "config.json",
        "model/model.safetensors",
        *(f"pictures/{p}" for p in pictures),
    ):
        assert pathlib.Path(fetch_artifact(result.run_id, name)).stat().st_size
    assert json.loads((result.folder / "config.json").read_text())["windows"]["lengths"] == [3, 6]

    # the same again, bit for bit
    again = fit(SMALL, pictures=False)
    assert again.metrics == result.metrics
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), result.model.parameters(), strict=True))
    assert not list(again.folder.glob("*.png"))


def test_without_a_constant_channel_there_is_no_field(project):
    """The control: f(a z) = a f(z) is not what Lotka-Volterra does."""
    without = dataclasses.replace(DERIVATIVES.network, encoding="scaled")
    control = fit(dataclasses.replace(DERIVATIVES, network=without), pictures=False)
    assert control.metrics["field_error"] >= 0.3
    assert control.metrics["completeness_error"] <= 1e-12
    assert "ledger_error" not in control.metrics
    own = fit(dataclasses.replace(DERIVATIVES, seed=1), pictures=False)
    assert own.metrics["field_error"] < 0.2
    # another seed sees the same data
    assert len({find_run(result.run_id).tags["data_fingerprint"] for result in (own, control)}) == 1


def test_a_network_that_cannot_account_for_itself_is_scored_all_the_same(project):
    plain = NetworkConfig("mlp", width=8)
    result = fit(dataclasses.replace(DERIVATIVES, network=plain, fit=FitConfig(adam_steps=20, lbfgs_steps=20)))
    assert "field_error" in result.metrics
    assert "completeness_error" not in result.metrics
    assert [p.name for p in result.folder.glob("*.png")] == ["solutions.png"]


def test_pelts_are_forecast(project):
    config = RECIPES["hare-lynx"]()
    result = fit(dataclasses.replace(config, fit=dataclasses.replace(config.fit, adam_steps=50)))
    assert set(result.metrics) == {*("nrmse", "num_failed", "num_evaluations", "completeness_error", "view_difference")}
    assert "persistence" in result.evaluation.references
    assert result.metrics["completeness_error"] <= 1e-12
    predictions = np.load(result.folder / "predictions.npz")
    assert predictions["predictions"].shape == (1, 5, 2)
    assert (result.folder / "account.png").exists()


def test_a_bad_fit_of_a_stiff_system_ends_and_says_so(project):
    """Explicit steps along it would not end: its accounts are those of derivatives."""
    config = dataclasses.replace(
        RECIPES["robertson"](),
        num_trajectories=2,
        span=10.0,
        network=NetworkConfig("degree", width=8),
        fit=FitConfig(adam_steps=30, lbfgs_steps=30),
    )
    result = fit(config)
    assert result.metrics["num_failed"] + np.isfinite(result.metrics["nrmse"]) >= 1
    assert result.metrics["completeness_error"] <= 1e-12
    assert (result.folder / "ledger.png").exists()
    assert not (result.folder / "account.png").exists()
    assert result.evaluation.references["true equations"]["nrmse"] < 1e-4


def test_nothing_is_begun_that_cannot_end(project):
    for changes, message in (
        ({"data": "hare-lynx", "num_trajectories": 25, "span": None, "horizon": None}, "17 observations"),
        ({"windows": WindowsConfig(lengths=[80])}, r"--windows.lengths: 80 steps do not fit into 41 observations"),
        (
            {"data": "robertson", "num_trajectories": 2, "span": 1.0, "horizon": 1.0},
            r"equal steps, but those of robertson are 5\.8\S*e-06 to 0\.369\S*; interpolate .* --windows.lengths \[\]",
        ),
        ({"span": 0.4, "windows": WindowsConfig(lengths=[])}, "5 observations are too few for derivatives"),
    ):
        config = dataclasses.replace(SMALL, **changes)
        if config.data == "hare-lynx":
            config = dataclasses.replace(config, windows=WindowsConfig(lengths=[17]))
        with pytest.raises(InputError, match=message):
            fit(config)
    assert not (project / "runs").exists()
