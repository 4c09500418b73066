"""Searches with a known optimum; trainings are functions here."""

import csv

import pytest
from bcos_core.run.error import InputError
from bcos_eval.cli import main
from bcos_eval.queue import UnitQueue
from bcos_eval.study import Search, Tuning, Unit, study_folder
from bcos_eval.tune import UnitFailed, run_nested, run_trial
from bcos_eval.tuned import conclude

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
    assert f"next: bcos-vision train --data digits --b {float(rows[0]['b']):.4g}" in printed


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
