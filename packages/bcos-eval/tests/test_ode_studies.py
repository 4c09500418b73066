"""Fits of bcos-ode as units: what a unit reports is what the fit itself does, and what cannot be paired is refused."""

import dataclasses

import pytest
from bcos_core.run.config import to_dict
from bcos_core.run.error import InputError
from bcos_core.run.tracking import find_tagged
from bcos_eval.cli import main
from bcos_eval.commands.planning import package_of
from bcos_eval.design import Design
from bcos_eval.studies.adapter import PACKAGES, load_adapter
from bcos_eval.study import Unit
from bcos_eval.unit import run_job
from bcos_ode.config import FitConfig
from bcos_ode.dynamics.config import SolverConfig

QUICK = FitConfig(adam_steps=20, lbfgs_steps=0, max_samples=100)
COARSE = SolverConfig(rtol=1e-3, atol=1e-4)  # of fields that were hardly fitted
SMALL = {
    "ode": {"num_trajectories": 4, "fit": QUICK, "solver": COARSE},
    "ode-regression": {"fit": QUICK},
    "ode-classification": {"epochs": 1, "channels": 8, "num_explained": 4, "split.val": 0.0},
}


def small(package):
    adapter = load_adapter(package)
    config = adapter.recipe(None, None)
    changes = {name: value for name, value in SMALL[package].items() if "." not in name}
    if package == "ode":
        changes["windows"] = dataclasses.replace(config.windows, lengths=[])
    if package == "ode-classification":
        changes["split"] = dataclasses.replace(config.split, val=0.0)
    return adapter, dataclasses.replace(config, **changes)


def folds(config):
    return dataclasses.replace(config, split=dataclasses.replace(config.split, folds=2))


@pytest.mark.parametrize("package", [p for p in PACKAGES if p != "vision"])
def test_a_unit_is_the_fit_of_its_fold_and_seed(project, study, package):
    adapter, config = small(package)
    arms = {"a": to_dict(config), "b": to_dict(config)}
    plan = study(package=package, arms=arms, design=Design(folds=2), metric=adapter.metrics[0])
    facts = adapter.check({"a": folds(config), "b": folds(config)})
    job = plan.job(Unit("a", fold=1))
    answer = run_job(job)
    placed = adapter.place(config, Unit("a", fold=1), 2)
    assert (placed.split.folds, placed.split.fold) == (2, 1)
    assert answer["fingerprint"] == facts["fingerprint"]
    assert adapter.metrics[0] in answer["metrics"]
    assert set(answer["metrics"]) - {"seconds"} >= {adapter.metrics[0]}
    assert run_job(job)["run_id"] == answer["run_id"]  # a finished unit is read, not fitted again
    record = find_tagged(plan.experiment, {"arm_name": "a"})
    assert record is not None
    assert record.tags["fold"] == "1"
    found = adapter.predictions(answer["run_id"])
    assert (found is None) == (package != "ode-classification")
    again = run_job(study(package=package, arms=arms, design=Design(folds=2), key="other").job(Unit("a", fold=1)))
    repeats = {n: v for n, v in answer["metrics"].items() if n != "num_evaluations"}
    assert repeats == {n: again["metrics"][n] for n in repeats}


@pytest.mark.parametrize("package", ["ode", "ode-regression"])
def test_arms_on_other_data_are_refused(package):
    adapter, config = small(package)
    other = dataclasses.replace(config, data="lorenz" if package == "ode" else "linnerud")
    with pytest.raises(InputError, match='--arm b: another "data" than the first arm'):
        adapter.check({"a": config, "b": other})


def test_an_arm_that_cannot_be_trained_is_named():
    adapter, config = small("ode")
    lost = dataclasses.replace(config, data="csv:nowhere.csv")
    with pytest.raises(InputError, match=r"arm a: nowhere.csv: no readable table"):
        adapter.check({"a": lost})


def test_a_preset_of_another_task_is_refused():
    with pytest.raises(InputError, match='preset "digits" is not of package ode; its presets are lotka-volterra, '):
        load_adapter("ode").recipe("digits", None)


def test_ledgers_of_arms_are_drawn_at_the_same_states(project, study, tmp_path):
    adapter, config = small("ode")
    arms = {
        "a": to_dict(config),
        "b": to_dict(dataclasses.replace(config, network=dataclasses.replace(config.network, b=1.5))),
    }
    plan = study(package="ode", arms=arms, design=Design(folds=2), metric="nrmse")
    runs = {arm: run_job(plan.job(Unit(arm)))["run_id"] for arm in arms}
    caption = adapter.draw_explanations(runs, tmp_path / "ledgers.png")
    assert caption is not None
    assert (tmp_path / "ledgers.png").stat().st_size > 10_000


@pytest.mark.parametrize("package", PACKAGES)
def test_metrics_that_are_told_apart_are_reported(package):
    adapter = load_adapter(package)
    assert set(adapter.says) == {name for name in adapter.metrics if name.startswith("nrmse")}
    assert all(says.startswith("RMSE ") and "standard deviation" in says for says in adapter.says.values())


def test_package_is_known_before_the_options_are():
    assert package_of(["diabetes", "--package", "ode-regression", "--folds", "2"]) == "ode-regression"
    assert package_of(["--package=ode"]) == "ode"
    assert package_of(["digits"]) == "vision"


def test_an_unknown_package_has_its_nearest_name(capsys):
    with pytest.raises(SystemExit) as error:
        main(["crossval", "--package", "oed"])
    assert error.value.code == 2
    assert 'unknown package "oed"; did you mean "ode"?' in capsys.readouterr().err


def test_help_lists_the_options_of_the_package(capsys):
    with pytest.raises(SystemExit):
        main(["crossval", "--package", "ode-regression", "--help"])
    printed = capsys.readouterr().out
    assert "--network.model" in printed
    assert "bcos-ode train" in printed
