"""Which arms there are, and what each changes: against lists written by hand."""

import dataclasses

import pytest
from bcos_core.run.config import flatten
from bcos_core.run.error import InputError
from bcos_eval.ablation.arms import design_arms, exponent_arms
from bcos_vision.config import TrainConfig


def changes(base, config):
    """What differs, by dotted name."""
    before, after = flatten(base), flatten(config)
    return {name: value for name, value in after.items() if value != before[name]}


def test_exponents_by_default():
    base = TrainConfig(epochs=3)
    found = {name: changes(base, config) for name, config in exponent_arms(base).items()}
    learn, objective, strength, bound = (f"exponent.{name}" for name in ("learn", "objective", "strength", "bound"))
    # strength 0.1 and B 2 are what the base has already
    assert found == {
        "B 1": {"b": 1.0},
        "B 1.25": {"b": 1.25},
        "B 1.5": {"b": 1.5},
        "B 1.75": {"b": 1.75},
        "B 2": {},
        "B 2.25": {"b": 2.25},
        "B 2.5": {"b": 2.5},
        "B global": {learn: "global"},
        "B global max 0.01": {learn: "global", objective: "max", strength: 0.01},
        "B global max 0.1": {learn: "global", objective: "max"},
        "B global at least 1.5": {learn: "global", objective: "at_least", bound: 1.5},
        "B by layer": {learn: "layer"},
        "B by layer max 0.01": {learn: "layer", objective: "max", strength: 0.01},
        "B by layer max 0.1": {learn: "layer", objective: "max"},
        "B by layer at least 1.5": {learn: "layer", objective: "at_least", bound: 1.5},
        "B by channel": {learn: "channel"},
        "B by channel max 0.01": {learn: "channel", objective: "max", strength: 0.01},
        "B by channel max 0.1": {learn: "channel", objective: "max"},
        "B by channel at least 1.5": {learn: "channel", objective: "at_least", bound: 1.5},
    }


def test_exponents_that_were_asked_for():
    base = TrainConfig(b=1.5)
    asked = {"objectives": ["smooth_max", "at_most"], "strengths": [1, 2], "bounds": [1.25], "lr": 0.1}
    arms = exponent_arms(base, fixed=[3], forms=["layer"], **asked)
    assert {name: dataclasses.asdict(config.exponent) for name, config in arms.items()} == {
        "B 3": dataclasses.asdict(base.exponent),
        **{
            name: {**dataclasses.asdict(base.exponent), "learn": "layer", "lr": 0.1, **values}
            for name, values in {
                "B by layer smooth max 1": {"objective": "smooth_max", "strength": 1},
                "B by layer smooth max 2": {"objective": "smooth_max", "strength": 2},
                "B by layer at most 1.25": {"objective": "at_most", "bound": 1.25},
            }.items()
        },
    }
    assert {config.b for name, config in arms.items() if name != "B 3"} == {1.5}  # where learning starts


def test_a_design_changes_one_thing_at_a_time():
    base = TrainConfig(epochs=3)
    found = {name: changes(base, config) for name, config in design_arms(base).items()}
    assert found == {
        "bcos": {},
        "B 1": {"b": 1.0},
        "B 1.5": {"b": 1.5},
        "B 2.5": {"b": 2.5},
        "B 3": {"b": 3.0},
        "B global": {"exponent.learn": "global"},
        "B by layer": {"exponent.learn": "layer"},
        "B by channel": {"exponent.learn": "channel"},
        "MaxOut 2": {"max_out": 2},
        "norm batch": {"norm": "batch"},
        "norm layer_uncentered": {"norm": "layer_uncentered"},
        "norm group_uncentered": {"norm": "group_uncentered"},
        "norm instance_uncentered": {"norm": "instance_uncentered"},
        "norm position_uncentered": {"norm": "position_uncentered"},
        "norm layer": {"norm": "layer"},
        "norm group": {"norm": "group"},
        "norm instance": {"norm": "instance"},
        "norm position": {"norm": "position"},
        "norm none": {"norm": "none"},
        "encoding standardised": {"encoding": "standardised"},
        "biases": {"bias": True},
        "cross-entropy": {"loss": "cross_entropy"},
        "detached": {"detach": True},
        "baseline": {"variant": "baseline"},
        "baseline cross-entropy": {"variant": "baseline", "loss": "cross_entropy"},
    }


def test_a_design_around_another_control():
    """What the control has is no arm, what it lacks is one; a baseline has nothing of a B-cos network."""
    base = TrainConfig(
        b=1.5, max_out=2, norm="layer_uncentered", encoding="standardised", bias=True, detach=True,
        loss="cross_entropy",
    )  # fmt: skip
    found = {name: changes(base, config) for name, config in design_arms(base, fixed=[1.5, 2], lr=0.1).items()}
    plain = {"variant": "baseline", "b": 2.0, "max_out": 1, "bias": False, "detach": False, "encoding": None}
    assert {name: found[name] for name in found if not name.startswith("norm")} == {
        "bcos": {},
        "B 2": {"b": 2},
        "B global": {"exponent.learn": "global", "exponent.lr": 0.1},
        "B by layer": {"exponent.learn": "layer", "exponent.lr": 0.1},
        "B by channel": {"exponent.learn": "channel", "exponent.lr": 0.1},
        "MaxOut 1": {"max_out": 1},
        "encoding inverse": {"encoding": "inverse"},
        "no biases": {"bias": False},
        "BCE": {"loss": "bce"},
        "not detached": {"detach": False},
        "baseline": plain,
        "baseline BCE": {**plain, "loss": "bce"},
    }
    assert "norm batch_uncentered" in found
    assert "norm layer_uncentered" not in found


def test_networks_of_other_norms_try_the_batch_norm():
    assert "norm batch_uncentered" in design_arms(TrainConfig(), factors=["norm"], own_norm=None)
    assert "norm batch_uncentered" not in design_arms(TrainConfig(), factors=["norm"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: exponent_arms(TrainConfig(), fixed=[0.5]), "arm B 0.5: --b: expected a finite number >= 1, got 0.5"),
        (lambda: exponent_arms(TrainConfig(b=1)), "arm B global: --b: a learnt exponent starts above 1"),
        (lambda: exponent_arms(TrainConfig(), bounds=[0.9]), "at least 0.9: --exponent.bound: expected at least 1"),
        (lambda: exponent_arms(TrainConfig(), forms=["layers"]), 'unknown form "layers"; did you mean "layer"'),
        (lambda: exponent_arms(TrainConfig(), objectives=["min"]), 'unknown objective "min"'),
        (lambda: design_arms(TrainConfig(), factors=["norms"]), 'unknown factor "norms"; did you mean "norm"'),
    ],
)
def test_what_no_run_can_have_is_refused(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)
