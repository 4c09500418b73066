"""All models by name: how they are built, listed and loaded."""

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bcos_core.nn import InverseEncoding, Standardise
from bcos_core.run.checkpoint import load_model, load_state
from bcos_core.run.error import InputError
from bcos_core.run.registry import Registry
from torch import nn

from .classifier import ImageClassifier
from .resnet import ResNet
from .variant import Layers, channels_last

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """What stands behind a model's name."""

    build: Callable[[Layers, int, int], nn.Module]
    """From layers, encoded channels and number of classes to the network."""
    image_size: int
    """Side of the images it was designed for, in pixels."""
    stems: tuple[str, ...]
    """Stems it can have; the first is its own."""


_MODELS: Registry[Architecture] = Registry("model")


def _cifar_resnet(depth: int) -> Architecture:
    blocks = ((depth - 2) // 6,) * 3
    return Architecture(
        lambda layers, channels, classes: ResNet(layers, channels, classes, blocks=blocks, width=16),
        image_size=32,
        stems=("cifar",),
    )


for _depth in (20, 32, 44, 56, 110):
    _MODELS.register(f"resnet{_depth}")(_cifar_resnet(_depth))


def list_models() -> list[str]:
    """Names that :func:`create_model` knows.

    Example:
        >>> "resnet20" in list_models()
        True
    """
    return list(_MODELS)


def architecture(name: str) -> Architecture:
    """The architecture of a name.

    Raises:
        InputError: If the name is unknown; says the nearest.
    """
    return _MODELS[name]


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    variant: str = "bcos",
    stem: str | None = None,
    b: float = 2.0,
    max_out: int = 1,
    norm: str | None = None,
    weights: str | pathlib.Path | None = None,
    in_channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImageClassifier:
    """Build a classifier.

    Args:
        name: One of :func:`list_models`.
        num_classes: Number of logits.
        variant: "bcos", "baseline" (plain layers, no bias) or "standard" (as published).
        stem: "cifar" for small images; None for the model's own.
        b: Exponent B of the B-cos layers.
        max_out: Filters that compete for one output channel.
        norm: Norm layer: one of "batch_uncentered", "layer_uncentered", "group_uncentered", "instance_uncentered",
            "position_uncentered", "batch", "none"; None for the variant's own.
        weights: Model file to load; it must fit.
        in_channels: Channels of an image, 3 or 1.
        mean: Mean of each channel, for plain variants; ImageNet's if not given.
        std: Standard deviation of each channel, likewise.

    Returns:
        The classifier, in training mode, channels-last.

    Raises:
        InputError: If a name is unknown, or the weights are of another architecture.
        ValueError: If a number is out of range.

    Example:
        >>> import torch
        >>> model = create_model("resnet20", num_classes=10)
        >>> model(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    found = architecture(name)
    if stem is not None and stem not in found.stems:
        raise InputError(f'stem: {name} has {", ".join(found.stems)}, got "{stem}"')
    if num_classes < 1:
        raise InputError(f"num_classes: expected at least 1, got {num_classes}")
    layers = Layers(variant, b, max_out, norm)
    if layers.is_bcos:
        encoding, encoded = InverseEncoding(), 2 * in_channels
        statistics = {}
    else:
        grey = in_channels == 1
        mean = tuple(mean or ((sum(IMAGENET_MEAN) / 3,) if grey else IMAGENET_MEAN))
        std = tuple(std or ((sum(IMAGENET_STD) / 3,) if grey else IMAGENET_STD))
        encoding, encoded = Standardise(mean, std), in_channels
        statistics = {"mean": list(mean), "std": list(std)}
    model = ImageClassifier(
        encoding,
        found.build(layers, encoded, num_classes),
        in_channels=in_channels,
        num_classes=num_classes,
        description={
            "name": name,
            "num_classes": num_classes,
            "variant": variant,
            "stem": stem,
            "b": b,
            "max_out": max_out,
            "norm": norm,
            "in_channels": in_channels,
            **statistics,
        },
    )
    channels_last(model)
    if weights is not None:
        state, _ = load_model(pathlib.Path(weights))
        load_state(model, state, str(weights))
    return model
