"""Searches with a known optimum; trainings are functions here."""

import csv
import importlib
import json
import shlex

import pytest
from bcos_core.run.command import CommandParser, parse_config
from bcos_core.run.config import to_dict
from bcos_core.run.error import InputError
from bcos_eval.cli import main
from bcos_eval.commands.planning import add_work_options, parse_twice
from bcos_eval.queue import UnitQueue
from bcos_eval.studies.adapter import load_adapter
from bcos_eval.study import Search, Tuning, Unit, overlay, plan_from_dict, plan_to_dict, study_folder
from bcos_eval.tune import UnitFailed, run_nested, run_trial
from bcos_eval.tuned import conclude, train_command

SPACE = {"b": {"low": 1.0, "high": 3.0, "log": False}}


def train(job):
    """Best at b = 1.5 on every fold, whose own difficulty does not change which is better."""
    fold = 0 if job.inner is None else job.inner[1]
    return {"metrics": {"accuracy": 1 - (job.values["b"] - 1.5) ** 2 - 0.1 * fold}, "seconds": 1.0, "run_id": job.id}


def test_nested_search_finds_the_optimum_inside_and_trains_outside_with_it(study):
    plan = study(search=Search(SPACE, trials=25, folds=5))
    jobs = []
    result = run_nested(plan, Unit("a", fold=1), lambda job: (jobs.append(job), train(job))[1])
    assert result["options"]["b"] == pytest.approx(1.5, abs=0.1)
    *inner, outer = jobs
    assert outer.inner is None
    assert outer.values["b"] == result["options"]["b"]
    assert outer.experiment == plan.experiment
    assert {job.inner[0] for job in inner} == {5}
    assert {job.experiment for job in inner} == {f"{plan.experiment}/search"}
    assert len(inner) < 25 * 5  # hopeless trials were given up
    assert {(job.unit, job.folds) for job in jobs} == {(Unit("a", fold=1), 3)}


def test_nested_search_asks_the_same_again(study):
    plan = study(search=Search(SPACE, trials=6, folds=2))
    asked = [[], []]
    for ids in asked:
        run_nested(plan, Unit("b", repeat=1), lambda job, ids=ids: (ids.append(job.id), train(job))[1])
    assert asked[0] == asked[1]
    assert len(set(asked[0])) == len(asked[0])


def test_options_that_cannot_be_trained_with_are_a_bad_choice(study):
    plan = study(search=Search(SPACE, trials=12, folds=2))

    def diverges(job):
        if job.values["b"] > 2:
            raise UnitFailed("diverged")
        found = train(job)
        return {**found, "metrics": {"accuracy": float("nan")}} if job.values["b"] < 1.2 else found

    assert 1.2 <= run_nested(plan, Unit("a"), diverges)["options"]["b"] <= 2
    with pytest.raises(UnitFailed, match="no trial of its search worked: accuracy is nan on inner fold 0"):
        run_nested(plan, Unit("a"), lambda job: {"metrics": {"accuracy": float("nan")}})


def test_metric_that_the_training_does_not_report(study):
    plan = study(search=Search(SPACE, trials=2, folds=2), metric="accuracies")
    with pytest.raises(UnitFailed, match='no trial of its search worked: no metric "accuracies"; there are accuracy'):
        run_nested(plan, Unit("a"), train)


def test_tuning_through_a_queue(project, capsys):
    plan = Tuning("t", "vision", {"b": 2.0, "data": "digits"}, Search(SPACE, trials=25, folds=5), "accuracy")
    study_folder("t").mkdir(parents=True)
    queue = UnitQueue.create(plan, str(study_folder("t") / "queue.journal"))
    with pytest.raises(InputError, match="no trial of t is done: none has run"):
        conclude(queue)
    seen = []
    while (attempt := queue.claim()) is not None:
        queue.complete(attempt, run_trial(queue, attempt, lambda job: (seen.append(job), train(job))[1]))
    assert {job.unit for job in seen} == {Unit("trial")}  # every trial trains on the same folds with the same seeds
    path = conclude(queue)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    assert float(rows[0]["b"]) == pytest.approx(1.5, abs=0.15)
    assert {row["pruned"] for row in rows} == {"True", "False"}
    assert path.with_name("trials.png").exists()
    printed = capsys.readouterr().out
    assert "25 of 25 trials" in printed
    assert f"next: bcos-vision train --data digits --b {float(rows[0]['b'])!r} " in printed


@pytest.mark.parametrize(
    ("package", "words", "chosen"),
    [
        ("vision", ["digits"], {"b": 1.25, "norm": None}),
        ("vision", ["cifar10", "--data", "folder:my pictures", "--epochs", "3"], {"optim.lr": 1e-05}),
        ("vision", ["--augment.flip", "false", "--split.val", "0", "--seed", "7"], {"norm": "layer", "epochs": 4}),
        ("ode", ["lorenz", "--windows.lengths", "[5, 7]", "--noise", "0.1"], {"fit.lr": 0.012345678901}),
        ("ode-regression", ["linnerud", "--data", "table:my table.csv", "--targets", "[a b, c]"], {"network.width": 8}),
        ("ode-classification", ["--epochs", "2"], {"channels": 16}),
    ],
)
def test_the_next_command_trains_what_was_searched(project, monkeypatch, package, words, chosen):
    """What the shell and the training's own command make of it: the search's configuration, with what was chosen."""
    adapter = load_adapter(package)
    parser = CommandParser()
    add_work_options(parser, adapter, "search")
    options = parse_twice(parser, adapter, words)
    config = adapter.resolve(parse_config(parser, adapter.config_type, words))
    plan = Tuning("t", package, to_dict(config), Search({}, 1, 2), "x", preset=options.preset)
    plan = plan_from_dict(json.loads(json.dumps(plan_to_dict(plan))))
    program, *argv = shlex.split(train_command(plan, chosen))
    fitted = []
    monkeypatch.setattr(getattr(adapter, "module", "bcos_vision.train") + ".fit", lambda c: fitted.append(c) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        importlib.import_module(f"{program.replace('-', '_')}.cli").main(argv)
    assert to_dict(fitted[0]) == overlay(to_dict(config), chosen)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--space: nothing to choose"),
        (["--space", "b=1..2", "--trials", "0"], "--trials: expected at least 1, got 0"),
        (["--space", "b=1..2", "--split.inner_folds", "3"], "the search sets it, from --inner_folds"),
        (["--space", "seed=1..2"], "seed is not for a search to choose"),
        (["--space", "b=1..2", "--metric", "acuracy"], 'unknown metric "acuracy"; did you mean "accuracy"'),
    ],
)
def test_searches_that_are_refused(project, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main(["tune", "digits", *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
