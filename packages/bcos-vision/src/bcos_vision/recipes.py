"""Presets: functions that return a configuration. `bcos-vision train NAME` takes one, options change it."""

from collections.abc import Callable

from bcos_core.run.registry import Registry

from .config import AugmentConfig, OptimConfig, TrainConfig

RECIPES: Registry[Callable[[], TrainConfig]] = Registry("preset")


@RECIPES.register("digits")
def digits() -> TrainConfig:
    """Scikit-learn's 8x8 digits: real data that is already there, in half a minute on two cores."""
    return TrainConfig(
        data="digits",
        model="resnet20",
        epochs=18,
        batch_size=64,
        augment=AugmentConfig(shift=1),
        optim=OptimConfig(lr=5e-3, warmup_epochs=1),
    )


@RECIPES.register("folder")
def folder() -> TrainConfig:
    """Small photographs in class folders, as the papers train CIFAR-10: Adam, cosine from 1e-3, flip and crop."""
    return TrainConfig(
        data="folder:",
        model="resnet20",
        epochs=100,
        batch_size=64,
        augment=AugmentConfig(shift=4, flip=True),
        optim=OptimConfig(lr=1e-3),
    )


def recipe_for(data: str) -> str:
    """Name of the preset that suits a data name."""
    return "folder" if data.startswith("folder:") else "digits"
