"""All models by name: how they are built, listed and loaded."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bcos_core.convert import bcosify
from bcos_core.nn import BcosConv2d, BcosLinear, InverseEncoding, LogitLayer, Standardise, learn_exponents
from bcos_core.run.checkpoint import load_model, load_state, load_tensors
from bcos_core.run.error import InputError, unknown_name
from bcos_core.run.registry import Registry
from torch import nn

from .classifier import ImageClassifier
from .convnext import ConvNeXt
from .densenet import DenseNet
from .public import from_public
from .resnet import BasicBlock, Bottleneck, ResNet
from .variant import Layers, channels_last
from .vgg import VGG
from .vit import VisionTransformer

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """What stands behind a model's name."""

    build: Callable[[Layers, int, int, bool], nn.Module]
    """From layers, encoded channels, number of classes, and whether images are small, to the network."""
    image_size: int
    """Side of the images it was designed for, in pixels."""
    small: bool = False
    """Whether it was designed for small images; the others are adapted to them by stem="cifar"."""


@dataclass(frozen=True)
class Alias:
    """A name of the public model zoo for what has another name, or further arguments, here."""

    model: str
    arguments: Mapping[str, str]


_MODELS: Registry[Architecture] = Registry("model")
_ALIASES: dict[str, Alias] = {}


def _register() -> None:
    for depth in (20, 32, 44, 56, 110):
        cifar = {"block": BasicBlock, "blocks": ((depth - 2) // 6,) * 3, "width": 16}
        _MODELS.register(f"resnet{depth}")(Architecture(_builder(ResNet, **cifar), 32, small=True))
    for name, block, blocks, options in (
        ("resnet18", BasicBlock, (2, 2, 2, 2), {}),
        ("resnet34", BasicBlock, (3, 4, 6, 3), {}),
        ("resnet50", Bottleneck, (3, 4, 6, 3), {}),
        ("resnet101", Bottleneck, (3, 4, 23, 3), {}),
        ("resnet152", Bottleneck, (3, 8, 36, 3), {}),
        ("resnext50_32x4d", Bottleneck, (3, 4, 6, 3), {"groups": 32, "group_width": 4}),
    ):
        _MODELS.register(name)(Architecture(_builder(ResNet, block=block, blocks=blocks, **options), 224))
    for depth, growth, blocks in (
        (121, 32, (6, 12, 24, 16)),
        (161, 48, (6, 12, 36, 24)),
        (169, 32, (6, 12, 32, 32)),
        (201, 32, (6, 12, 48, 32)),
    ):
        _MODELS.register(f"densenet{depth}")(Architecture(_builder(DenseNet, blocks=blocks, growth=growth), 224))
    for depth, convs in ((11, (1, 1, 2, 2, 2)), (13, (2,) * 5), (16, (2, 2, 3, 3, 3)), (19, (2, 2, 4, 4, 4))):
        _MODELS.register(f"vgg{depth}")(Architecture(_builder(VGG, convs=convs), 224))
    for size, width, blocks, drop in (("tiny", 96, (3, 3, 9, 3), 0.1), ("base", 128, (3, 3, 27, 3), 0.5)):
        _MODELS.register(f"convnext_{size}")(
            Architecture(_builder(ConvNeXt, width=width, blocks=blocks, drop=drop), 224)
        )
    large = (64, 128, 128, 256, 256, 512)
    for size, dim, heads, depth, stem in (
        ("ti", 192, 3, 12, (24, 48, 96, 192)),
        ("s", 384, 6, 12, (48, 96, 192, 384)),
        ("b", 768, 12, 12, large),
        ("l", 1024, 16, 14, large),
    ):
        _MODELS.register(f"simple_vit_{size}_patch16_224")(
            Architecture(_simple_vit(dim=dim, heads=heads, depth=depth), 224)
        )
        # one block less, for the work of the stem
        _MODELS.register(f"vitc_{size}_patch1_14")(
            Architecture(_vit_c(dim=dim, heads=heads, depth=depth - 1, stem=stem), 224)
        )
        for name in (f"simple_vit_{size}_patch16_224", f"vitc_{size}_patch1_14"):
            _ALIASES[f"standard_{name}"] = Alias(name, {"variant": "standard"})
    for name in ("densenet121", "resnet50", "resnet152"):
        _ALIASES[f"{name}_long"] = Alias(name, {})
    for name in ("convnext_tiny", "convnext_base"):
        _ALIASES[f"{name}_bnu"] = Alias(name, {"norm": "batch_uncentered"})
    _ALIASES["vgg11_bnu"] = Alias("vgg11", {"norm": "batch_uncentered"})


def _builder(network: Callable[..., nn.Module], **options: Any) -> Callable[[Layers, int, int, bool], nn.Module]:
    return lambda layers, channels, classes, small: network(layers, channels, classes, small=small, **options)


def _simple_vit(**options: Any) -> Callable[[Layers, int, int, bool], nn.Module]:
    return lambda layers, channels, classes, small: VisionTransformer(
        layers, channels, classes, patch=4 if small else 16, **options
    )


def _vit_c(**options: Any) -> Callable[[Layers, int, int, bool], nn.Module]:
    return lambda layers, channels, classes, small: VisionTransformer(
        layers, channels, classes, patch=1, halvings=2 if small else 4, **options
    )


_register()


def list_models() -> list[str]:
    """Names that :func:`create_model` knows, without :func:`aliases`.

    Example:
        >>> "resnet20" in list_models()
        True
    """
    return list(_MODELS)


def aliases() -> dict[str, Alias]:
    """The public model zoo's further names, and what they stand for.

    Example:
        >>> aliases()["vgg11_bnu"].model
        'vgg11'
    """
    return dict(_ALIASES)


def architecture(name: str) -> Architecture:
    """The architecture of a name or alias.

    Raises:
        InputError: If the name is unknown; says the nearest.
    """
    name = _ALIASES[name].model if name in _ALIASES else name
    if name not in _MODELS:
        raise unknown_name("model", name, [*_MODELS, *_ALIASES])
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
    logit_bias: float | None = None,
    temperature: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    encoding: str | None = None,
    bias: bool = False,
    learn_b: str | None = None,
    conversion: Mapping[str, Any] | None = None,
) -> ImageClassifier:
    """Build a classifier.

    Args:
        name: One of :func:`list_models` or :func:`aliases`.
        num_classes: Number of logits.
        variant: "bcos", "baseline" (plain layers, no bias) or "standard" (as published).
        stem: "cifar" for images of some 32 pixels; None for the model's own.
        b: Exponent B of the B-cos layers.
        max_out: Filters that compete for one output channel.
        norm: Norm layer: "batch", "layer", "group", "instance", "position", each also with "_uncentered", or "none";
            None for the model's own. "layer" is over channels and space; a transformer's usual norm is "position".
        weights: File to load, which must fit: one of ours (.safetensors), or a state dict of the public B-cos v2 model
            zoo or, for standard CNNs, of torchvision, as it is.
        in_channels: Channels of an image, 3 or 1.
        logit_bias: Fixed bias of the logits (bcos and baseline); None for that of probability 1/K.
        temperature: Fixed divisor of the logits (bcos and baseline).
        mean: Mean of each channel, for plain variants; ImageNet's if not given.
        std: Standard deviation of each channel, likewise.
        encoding: What the first layer sees: "inverse", [x, 1-x] (bcos), or "standardised"; None for what the variant is
            made for.
        bias: Give B-cos layers and their norms biases (bcos).
        learn_b: Make exponents parameters that start at ``b`` (bcos): "global", "layer" or "channel", see
            :func:`bcos_core.nn.learn_exponents`.
        conversion: Make a B-cos network of the plain one: arguments of :func:`bcos_core.bcosify`.

    Returns:
        The classifier, in training mode, channels-last.

    Raises:
        InputError: If a name is unknown, options do not go together, or the weights are of another architecture.
        ValueError: If a number is out of range.

    Example:
        >>> import torch
        >>> model = create_model("resnet20", num_classes=10)
        >>> model(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    found = architecture(name)
    if (alias := _ALIASES.get(name)) is not None:
        wanted = {"variant": None if variant == "bcos" else variant, "norm": norm}
        for key, value in alias.arguments.items():
            if wanted[key] not in (None, value):
                raise InputError(f'{key}: {name} is {alias.model} with {key} "{value}", got "{wanted[key]}"')
        variant, norm = alias.arguments.get("variant", variant), alias.arguments.get("norm", norm)
        name = alias.model
    if stem not in (None, "cifar"):
        raise InputError(f'stem: expected "cifar", or None for the model\'s own, got "{stem}"')
    if num_classes < 1:
        raise InputError(f"num_classes: expected at least 1, got {num_classes}")
    if in_channels not in (1, 3):
        raise InputError(f"in_channels: expected 1 or 3, got {in_channels}")
    if encoding not in (None, "inverse", "standardised"):
        raise unknown_name("encoding", encoding, ("inverse", "standardised"))
    layers = Layers(variant, b, max_out, norm, logit_bias, temperature, bias)
    if not layers.is_bcos and encoding == "inverse":
        raise InputError(f'encoding "inverse": belongs to variant "bcos", not "{variant}"')
    if not layers.is_bcos and conversion is None and learn_b is not None:
        raise InputError(f'learn_b: belongs to B-cos networks, not to variant "{variant}"')
    if layers.is_bcos and conversion is not None:
        raise InputError('conversion: of a plain network; variant "bcos" is a B-cos one')
    if layers.is_bcos and encoding != "standardised":
        encode, encoded = InverseEncoding(), 2 * in_channels
        statistics = {}
    else:
        grey = in_channels == 1
        mean = tuple(mean or ((sum(IMAGENET_MEAN) / 3,) if grey else IMAGENET_MEAN))
        std = tuple(std or ((sum(IMAGENET_STD) / 3,) if grey else IMAGENET_STD))
        encode, encoded = Standardise(mean, std), in_channels
        statistics = {"mean": list(mean), "std": list(std)}
    options = {"encoding": encoding, "bias": bias, "learn_b": learn_b, "conversion": conversion}
    usual = {"encoding": None, "bias": False, "learn_b": None, "conversion": None}
    model = ImageClassifier(
        encode,
        found.build(layers, encoded, num_classes, found.small or stem == "cifar"),
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
            "logit_bias": logit_bias,
            "temperature": temperature,
            **statistics,
            **{name: value for name, value in options.items() if value != usual[name]},
        },
    )
    if conversion is not None:
        converted, _ = bcosify(model, **conversion)
        assert isinstance(converted, ImageClassifier)
        model = converted
    if learn_b is not None:
        learn_exponents(model, learn_b)
    channels_last(model)
    if weights is not None:
        _load(model, pathlib.Path(weights))
    return model


def replace_head(model: ImageClassifier, num_classes: int) -> ImageClassifier:
    """The same network with a new, untrained last layer, for other classes.

    Args:
        model: Of :func:`create_model`; it stays as it is.
        num_classes: Number of logits of the new one.

    Returns:
        The new classifier, in training mode, channels-last. A logit bias that stands for probability 1/K becomes that
        of the new K.

    Raises:
        InputError: If the number is no number of classes.

    Example:
        >>> model = create_model("resnet20", num_classes=10)
        >>> new = replace_head(model, 3)
        >>> new.network.fc.weight.shape[0], bool((new.network.conv1.weight == model.network.conv1.weight).all())
        (3, True)
    """
    arguments = {**model.description, "num_classes": num_classes}
    conversion = arguments.get("conversion")
    if conversion and conversion.get("logit_bias") == LogitLayer.prior_bias(model.num_classes):
        arguments["conversion"] = {**conversion, "logit_bias": LogitLayer.prior_bias(num_classes)}
    new = create_model(arguments.pop("name"), **arguments)
    head = _head(new)
    body = {name: value for name, value in model.state_dict().items() if not name.startswith(f"{head}.")}
    missing, unexpected = new.load_state_dict(body, strict=False)
    assert not unexpected
    assert all(name.startswith(f"{head}.") for name in missing)
    return new


def _head(model: ImageClassifier) -> str:
    """Path of the layer that tells the classes: of every architecture the last with weights for what it sees."""
    kinds = (nn.Linear, nn.Conv2d, BcosLinear, BcosConv2d)
    return [path for path, module in model.named_modules() if isinstance(module, kinds)][-1]


def _load(model: ImageClassifier, path: pathlib.Path) -> None:
    state = load_tensors(path)
    if not any(name.startswith("network.") for name in state):
        model.network.load_state_dict(from_public(model.network, state, str(path)))
        return
    load_state(model, state, str(path))
    if path.suffix == ".safetensors":
        _, description = load_model(path)
        for name, kept in dict(description.get("model", {})).items():  # exponents and constants are in no tensor
            if name not in ("mean", "std") and model.description.get(name) != kept:
                raise InputError(f"{path}: holds a model with {name} {kept}, got {model.description.get(name)}")
