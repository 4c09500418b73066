"""Whole runs: scores, contributions, and what is kept."""

import csv
import dataclasses

import numpy as np
import pytest
import torch
from bcos_core.run.tracking import fetch_artifact, read_run
from bcos_ode.config import FitConfig, NetworkConfig
from bcos_ode.model import DataScales, VariableModel, create_model
from bcos_ode.recipes import RECIPES
from bcos_ode.regression import (
    RegressionConfig,
    contributions_of,
    divide_table,
    fit,
    load_table,
    reference_predictions,
    score,
)

QUICK = FitConfig(adam_steps=30, lbfgs_steps=0)


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    return random.uniform(1, 5, (12, 3)), random.normal(size=(12, 2))


def make_model(data, **network):
    torch.manual_seed(0)
    scales = DataScales.of(*map(torch.from_numpy, data))
    return create_model(NetworkConfig(**network), ["a", "b", "c"], ["u", "v"], scales)


def test_scores_are_the_formulas():
    random = np.random.default_rng(0)
    y, p, spread = random.normal(size=(9, 2)), random.normal(size=(9, 2)), np.array([2.0, 0.5])
    found = score(y, p, spread=spread, names=["u", "v"])
    for j, name in enumerate("uv"):
        square = sum((a - b) ** 2 for a, b in zip(y[:, j], p[:, j], strict=True))
        assert found[f"rmse {name}"] == pytest.approx((square / 9) ** 0.5)
        assert found[f"nrmse {name}"] == pytest.approx((square / 9) ** 0.5 / spread[j])
        assert found[f"r2 {name}"] == pytest.approx(1 - square / ((y[:, j] - y[:, j].mean()) ** 2).sum())
    for name in ("rmse", "nrmse", "r2"):
        assert found[name] == pytest.approx((found[f"{name} u"] + found[f"{name} v"]) / 2)
    assert set(score(y[:, :1], p[:, :1], spread=spread[:1], names=["u"])) == {"rmse", "nrmse", "r2"}


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"b": 1.0},
        {"b": 1.5, "depth": 3},
        {"encoding": "inverse"},
        {"encoding": "scaled"},
        {"model": "degree", "degree": 3, "constant": 10.0},
        {"model": "mlp_nobias", "depth": 0},
    ],
    ids=str,
)
def test_contributions_of_bcos_networks_add_up(data, network):
    model = make_model(data, **network)
    found = contributions_of(model, data[0])
    with torch.no_grad():
        predictions = model(torch.from_numpy(data[0])).numpy()
    np.testing.assert_array_equal(found.predictions, predictions)
    np.testing.assert_allclose(found.values.sum(-1), predictions, rtol=0, atol=1e-12)
    assert found.completeness_error < 1e-12
    assert not found.remainder.any()
    assert found.channels == (
        ("a", "b", "c", "1") if network.get("encoding", "constant") == "constant" else tuple("abc")
    )


def test_a_single_bcos_layer_has_the_contributions_of_its_formula(data):
    model = make_model(data, depth=1, width=5, b=2.0, constant=3.0)
    inner, outer, scale = model.network
    weight, read = inner.weight.detach().numpy(), outer.weight.detach().numpy()
    e = np.concatenate([data[0] / data[0].std(0), np.full((12, 1), 3.0)], 1)
    unit = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    cosine = np.abs(e @ unit.T) / np.linalg.norm(e, axis=1, keepdims=True)
    expected = np.einsum("ou,nu,um,nm->nom", read * scale.scale.numpy()[:, None], cosine, unit, e)
    np.testing.assert_allclose(contributions_of(model, data[0]).values, expected, atol=1e-13)


@pytest.mark.parametrize("model", ["mlp", "mlp_nobias"])
def test_what_plain_networks_leave_out_is_said(data, model):
    found = contributions_of(make_model(data, model=model), data[0])
    assert found.completeness_error > 1e-3
    total = found.values.sum(-1) + found.remainder + found.unaccounted
    np.testing.assert_allclose(total, found.predictions, atol=1e-13)
    assert found.remainder.any() == (model == "mlp")


def test_a_run_keeps_what_it_found(project):
    config = dataclasses.replace(RECIPES["linnerud"](), fit=QUICK)
    result = fit(config)
    table = load_table(config)
    split = divide_table(table, config.split)
    observed = table.outputs[split.test]
    kept = np.load(result.folder / "predictions.npz")
    np.testing.assert_array_equal(kept["rows"], split.test)
    np.testing.assert_array_equal(kept["targets"], observed)
    rmse = np.sqrt(((kept["predictions"] - observed) ** 2).mean(0))
    assert result.metrics["rmse"] == pytest.approx(rmse.mean())
    assert result.metrics["nrmse"] == pytest.approx((rmse / table.outputs[split.train].std(0)).mean())
    assert result.metrics["completeness_error"] < 1e-12

    loaded = VariableModel.load(fetch_artifact(result.run_id, "model/model.safetensors"))
    with torch.no_grad():
        again = loaded(torch.from_numpy(table.inputs[split.test])).numpy()
    np.testing.assert_array_equal(again, kept["predictions"])
    # scales are those of the training samples alone
    np.testing.assert_allclose(loaded.encoding.scale.numpy(), table.inputs[split.train].std(0))

    with (result.folder / "contributions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(split.test) * 3
    for row in rows:
        terms = [float(row[name]) for name in ("Chins", "Situps", "Jumps", "1", "remainder")]
        assert sum(terms) == pytest.approx(float(row["prediction"]), abs=1e-11)

    record = read_run(result.run_id)
    assert record.metrics["test/rmse Waist"] == result.metrics["rmse Waist"]
    assert record.metrics["linear/nrmse"] == result.references["linear"]["nrmse"]
    assert record.tags["data_fingerprint"] == table.fingerprint
    assert (record.tags["num_train"], record.tags["num_test"]) == ("16", "4")
    assert {path.name for path in result.folder.glob("*.png")} == {"predictions.png", "contributions.png"}


def test_a_series_is_run_by_seed_and_compared_with_persistence(project):
    config = dataclasses.replace(RECIPES["hare-lynx-series"](), fit=QUICK, network=NetworkConfig(encoding="inverse"))
    first, again = fit(config), fit(config, pictures=False)
    assert first.metrics == again.metrics
    assert (first.folder / "series.png").exists()
    assert not list(again.folder.glob("*.png"))
    assert set(first.references) == {"linear", "mean", "persistence"}
    other = fit(dataclasses.replace(config, seed=1), pictures=False)
    assert other.metrics != first.metrics


def test_references_are_what_they_are_called():
    config = RECIPES["hare-lynx-series"]()
    table = load_table(config)
    split = divide_table(table, config.split)
    found = reference_predictions(table, split)
    past = table.outputs[split.test - 1]
    np.testing.assert_array_equal(found["persistence"], past)
    np.testing.assert_allclose(found["mean"][0], table.outputs[split.train].mean(0))
    x = np.concatenate([table.inputs, np.ones((len(table), 1))], 1)
    solution = np.linalg.lstsq(x[split.train], table.outputs[split.train], rcond=None)[0]
    np.testing.assert_allclose(found["linear"], x[split.test] @ solution, rtol=1e-8)


def test_columns_may_be_called_anything(project):
    rows = ["θ (°/s),y [%],z/z"] + [f"{i},{i * i},{-i}" for i in range(12)]
    (project / "odd.csv").write_text("\n".join(rows), encoding="utf-8")
    config = RegressionConfig(data="table:odd.csv", targets="y [%], z/z", fit=QUICK)
    result = fit(config, pictures=False)
    assert "rmse y [%]" in result.metrics
    assert "test/rmse y ___" in read_run(result.run_id).metrics


def test_only_so_many_samples_are_fitted(project):
    table = load_table(RegressionConfig())
    spread = table.inputs[divide_table(table, RegressionConfig().split).train].std(0)
    for most, all_of_them in ((50, False), (1000, True), (0, True)):
        config = RegressionConfig(fit=dataclasses.replace(QUICK, max_samples=most))
        found = fit(config, pictures=False).model.encoding.scale.numpy()
        assert np.allclose(found, spread) == all_of_them
