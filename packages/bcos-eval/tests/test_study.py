import json

import pytest
from bcos_core.run.error import InputError
from bcos_eval.design import Design
from bcos_eval.study import Search, Tuning, Unit, overlay, plan_from_dict, plan_to_dict


def test_units_are_every_arm_of_a_fold_before_the_next_fold(study):
    units = study(design=Design(folds=2, repeats=2, seeds=(5, 6))).units()
    assert len(units) == len(set(units)) == 2 * 2 * 2 * 2
    assert [(u.arm, u.repeat, u.fold, u.seed) for u in units[:4]] == [
        ("a", 0, 0, 5),
        ("b", 0, 0, 5),
        ("a", 0, 0, 6),
        ("b", 0, 0, 6),
    ]


def test_training_seed_pairs_arms_and_differs_between_folds():
    seeds = {Unit("a", r, f, s).training_seed for r in range(3) for f in range(5) for s in range(2)}
    assert len(seeds) == 30
    assert Unit("a", 1, 2, 0).training_seed == Unit("b", 1, 2, 0).training_seed


@pytest.mark.parametrize("search", [None, Search({"b": {"low": 1.0, "high": 2.0, "log": False}}, trials=3, folds=2)])
def test_plan_survives_json(study, search):
    plan = study(search=search, contrasts=(("b", "a"),), design=Design(1, 1, (0, 1)))
    assert plan_from_dict(json.loads(json.dumps(plan_to_dict(plan)))) == plan
    if search is not None:
        tuning = Tuning("t", "vision", {"b": 2.0}, search, "accuracy")
        assert plan_from_dict(json.loads(json.dumps(plan_to_dict(tuning)))) == tuning


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"a": {}}}, "at least two arms, got 1"),
        ({"design": Design(folds=1)}, "one fold and one seed are one value"),
        ({"control": "c"}, 'no arm "c"; there are a, b'),
        ({"contrasts": (("a", "x"),)}, 'no arm "x"'),
        ({"rope": -0.1}, "--rope: expected a difference of at least 0"),
        ({"rope": float("nan")}, "--rope"),
        ({"rope": float("inf")}, "--rope"),
        ({"alpha": 0.0}, "--alpha: expected a level between 0 and 1, got 0.0"),
        ({"alpha": 1.0}, "--alpha: expected a level between 0 and 1, got 1.0"),
        ({"alpha": float("nan")}, "--alpha"),
        ({"contrasts": (("a", "a"),)}, "--contrast a,a: expected two arms, and each pair once"),
        ({"contrasts": (("b", "a"), ("b", "a"))}, "each pair once"),
        ({"name": ".."}, "--name: expected letters"),
        ({"name": "a b/c"}, "--name: expected letters"),
        ({"arms": {"a b": {}, "a-b": {}}, "control": "a b"}, "names too much alike"),
    ],
)
def test_what_cannot_answer_is_refused(study, changes, message):
    with pytest.raises(InputError, match=message):
        study(**changes)


def test_plans_of_before_there_was_a_level(study):
    values = plan_to_dict(study())
    del values["alpha"]
    assert plan_from_dict(values).alpha == 0.05


def test_overlay_leaves_what_it_was_given(study):
    values = {"optim": {"lr": 0.1}}
    assert overlay(values, {"optim.lr": 0.2}) == {"optim": {"lr": 0.2}}
    assert values == {"optim": {"lr": 0.1}}


def test_inner_jobs_are_found_again_by_what_they_try(study):
    plan = study(search=Search({"b": {}}, trials=2, folds=2))
    one, same, other = (plan.inner_job(Unit("a"), trial, {"b": 1.5}, 1) for trial in (3, 3, 4))
    assert one.id == same.id != other.id  # two trials that try the same do not wait for one another
    assert study().job(Unit("a")).key != study().job(Unit("a")).key  # nor are two studies of one name mixed up
    assert one.inner == (2, 1)
    assert one.values["b"] == 1.5
    assert one.experiment != plan.experiment
