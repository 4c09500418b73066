"""Presets: functions that return a configuration. `bcos-vision train NAME` takes one, options change it.

What the papers trained is taken from the public B-cos v2 code (Böhle et al., TPAMI 2024, arXiv 2306.10898), with one
difference throughout: schedules move at each optimiser step, not once an epoch.
"""

import dataclasses
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
    """Small photographs in class folders, as the papers train CIFAR-10, with the smallest network."""
    return dataclasses.replace(cifar10(), data="folder:", model="resnet20")


@RECIPES.register("cifar10")
def cifar10() -> TrainConfig:
    """The papers' CIFAR-10 of B-cos v2 (``CIFAR10/norm_ablations_final``): the deepest network, without MaxOut."""
    return TrainConfig(
        data="cifar10",
        model="resnet56",
        epochs=100,
        batch_size=64,
        augment=AugmentConfig(shift=4, flip=True),
        optim=OptimConfig(name="adam", lr=1e-3),
    )


@RECIPES.register("tiny-imagenet")
def tiny_imagenet() -> TrainConfig:
    """200 classes at 64 pixels. Of no paper: the loss and the clipping of ImageNet, the changes of CIFAR-10."""
    return TrainConfig(
        data="tiny-imagenet",
        model="resnet18",
        stem="cifar",
        loss="bce_uniform",
        epochs=100,
        batch_size=128,
        image_size=64,
        augment=AugmentConfig(shift=8, flip=True),
        optim=OptimConfig(name="adam", lr=1e-3, warmup_epochs=5, agc=0.01),
    )


@RECIPES.register("imagenet")
def imagenet() -> TrainConfig:
    """The papers' short training of B-cos v2 (``ImageNet/bcos_final``)."""
    return TrainConfig(
        data="imagenet",
        model="resnet50",
        loss="bce_uniform",
        epochs=90,
        batch_size=256,
        image_size=224,
        eval_resize=256,
        num_workers=16,
        augment=AugmentConfig(crop=0.08, flip=True),
        optim=OptimConfig(name="adam", lr=1e-3, warmup_epochs=5, agc=0.01),
    )


@RECIPES.register("imagenet_long")
def imagenet_long() -> TrainConfig:
    """The papers' long training of B-cos v2 (``ImageNet/bcos_final_long``).

    Its EMA of .99998 is per image and epoch: as torchvision's, 1 - decay is multiplied by the images between two
    updates and divided by the epochs. Stochastic depth (0.1 in its ResNets) is left out.
    """
    epochs, batch_size, every = 600, 1024, 32
    return dataclasses.replace(
        imagenet(),
        epochs=epochs,
        batch_size=batch_size,
        image_size=176,
        eval_size=224,
        eval_resize=232,
        precision="bfloat16",
        augment=AugmentConfig(
            crop=0.08, flip=True, policy="trivialaugment", mixup=0.2, cutmix=1.0, erase=0.1, repeats=4
        ),
        optim=OptimConfig(
            name="adam",
            lr=1e-3,
            warmup_epochs=5,
            agc=0.01,
            ema=1 - (1 - 0.99998) * batch_size * every / epochs,
            ema_every=every,
        ),
    )


@RECIPES.register("imagenet_vit")
def imagenet_vit() -> TrainConfig:
    """The papers' vision transformers of B-cos v2 (``ImageNet/vit_final``); their warm-up is of 10 000 steps."""
    return dataclasses.replace(
        imagenet(),
        model="vitc_s_patch1_14",
        batch_size=1024,
        augment=AugmentConfig(crop=0.08, flip=True, policy="randaugment", magnitude=10, mixup=0.2),
        optim=OptimConfig(name="adam", lr=1e-3, warmup_epochs=8, agc=0.01),
    )


@RECIPES.register("imagenet_vit_standard")
def imagenet_vit_standard() -> TrainConfig:
    """Their plain counterpart there: AdamW, the softmax's loss, and the whole gradient clipped."""
    return dataclasses.replace(
        imagenet_vit(),
        variant="standard",
        loss="cross_entropy",
        optim=OptimConfig(name="adamw", lr=1e-3, weight_decay=1e-4, warmup_epochs=8, clip=1.0),
    )


def recipe_for(data: str) -> str:
    """Name of the preset that suits a data name.

    Example:
        >>> recipe_for("cifar10:/data/cifar"), recipe_for("folder:flowers"), recipe_for("digits")
        ('cifar10', 'folder', 'digits')
    """
    kind = data.partition(":")[0]
    return kind if kind in RECIPES else "digits"
