import dataclasses

import pytest
from bcos_vision.config import OptimConfig, SplitConfig, TrainConfig
from bcos_vision.recipes import RECIPES, recipe_for


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b": 0.99}, r"--b: expected a finite number >= 1, got 0.99"),
        ({"b": float("nan")}, r"--b: .* got nan"),
        ({"b": float("inf")}, r"--b: .* got inf"),
        ({"epochs": 0}, r"--epochs: expected at least 1, got 0"),
        ({"batch_size": 0}, r"--batch_size"),
        ({"max_out": 0}, r"--max_out"),
        ({"seed": -1}, r"--seed"),
        ({"image_size": 2}, r"--image_size"),
        ({"variant": "baseline", "b": 1.5}, r'belong to variant "bcos", not "baseline"'),
        ({"split": SplitConfig(test=1.0)}, r"--split.test: expected a share in \[0, 1\), got 1.0"),
        ({"optim": OptimConfig(lr=float("nan"))}, r"--optim.lr: expected a positive number, got nan"),
        ({"optim": OptimConfig(weight_decay=-1)}, r"--optim.weight_decay"),
    ],
)
def test_impossible_values_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_arm_leaves_out_the_seed_and_the_path():
    config = TrainConfig(data="folder:/some/where/flowers/", seed=1)
    assert config.arm == dataclasses.replace(config, seed=2).arm
    assert config.arm == "folder:flowers resnet20 bcos B=2"


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_are_valid_configurations(name):
    assert isinstance(RECIPES[name](), TrainConfig)


def test_recipe_follows_the_data():
    assert recipe_for("digits") == "digits"
    assert recipe_for("folder:somewhere") == "folder"
