import dataclasses

import pytest
from bcos_vision.config import AugmentConfig, ExponentConfig, OptimConfig, SplitConfig, TrainConfig
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
        ({"optim": OptimConfig(warmup_epochs=9), "epochs": 3}, r"--optim.warmup_epochs: expected at most 3, got 9"),
        ({"optim": OptimConfig(ema_every=4)}, r"--optim.ema_every: needs --optim.ema"),
        ({"augment": AugmentConfig(magnitude=5)}, r"--augment.magnitude: belongs to --augment.policy randaugment"),
        ({"eval_resize": 64}, r"--eval_resize: needs the side of the crop, --image_size or --eval_size"),
        ({"eval_resize": 64, "image_size": 72}, r"--eval_resize: expected at least the side of the crop, 72, got 64"),
        ({"exponent": ExponentConfig(lr=0.1)}, r"--exponent.lr: belongs to exponents that are learnt"),
        (
            {"exponent": ExponentConfig(learn="layer", objective="max", sharpness=5.0)},
            r"--exponent.sharpness: belongs to --exponent.objective smooth_max",
        ),
        (
            {"exponent": ExponentConfig(learn="layer", objective="max", dual_lr=0.1)},
            r"--exponent.dual_lr: belongs to --exponent.objective at_most or at_least",
        ),
        ({"augment": AugmentConfig(repeats=2)}, r"--augment.repeats: needs something random"),
    ],
)
def test_impossible_values_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_arm_leaves_out_the_seed_and_the_path():
    config = TrainConfig(data="folder:/some/where/flowers/", seed=1)
    assert config.arm == dataclasses.replace(config, seed=2).arm
    assert config.arm == "folder:flowers resnet20 bcos B=2"


@pytest.mark.parametrize(
    ("changes", "ending"),
    [
        ({"b": 1.5, "max_out": 2}, " bcos B=1.5 MaxOut 2"),
        ({"variant": "baseline"}, " baseline"),
        ({"norm": "none", "stem": "cifar"}, " B=2 norm none stem cifar"),
        (
            {"loss": "cross_entropy", "precision": "bfloat16", "optim": OptimConfig(ema=0.9)},
            " cross_entropy bfloat16 EMA",
        ),
    ],
)
def test_arm_names_what_is_not_as_usual(changes, ending):
    assert TrainConfig(**changes).arm.endswith(ending)


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_are_valid_configurations(name):
    assert isinstance(RECIPES[name](), TrainConfig)


def test_recipe_follows_the_data():
    for data in ("digits", "folder", "cifar10", "imagenet", "tiny-imagenet"):
        assert recipe_for(data) == recipe_for(f"{data}:some/where") == data
    assert recipe_for("nonsense") == "digits"


def test_the_average_of_the_long_training_is_torchvisions():
    """Its decay is per epoch and image: 750 000 steps, of which .99998 at each 32nd would remember two thirds."""
    optim = RECIPES["imagenet_long"]().optim
    assert 1 - optim.ema == pytest.approx(2e-5 * 1024 * 32 / 600)
    updates = 600 * 1251 / optim.ema_every
    assert optim.ema**updates < 1e-10
