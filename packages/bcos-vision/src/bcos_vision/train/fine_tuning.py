"""Training that begins with a trained network: where that comes from, and what it becomes.

A plain network is made a B-cos one (Arya et al., NeurIPS 2024, arXiv 2411.00715); a B-cos network goes on as it is. For
other classes than it tells, either gets a new head.
"""

import dataclasses
import math
import pathlib
from dataclasses import dataclass
from typing import Any

from bcos_core.convert import ConversionReport, bcosify
from bcos_core.nn import LogitLayer, learn_exponents
from bcos_core.run import config as configuration
from bcos_core.run.checkpoint import load_model
from bcos_core.run.error import InputError
from bcos_core.run.split import SplitConfig
from bcos_core.run.tracking import fetch_artifact, fetch_config, find_run

from bcos_vision.config import ConversionConfig, ExponentConfig, TrainConfig
from bcos_vision.data import ImageData, absolute
from bcos_vision.models import ImageClassifier, TrainedClassifier, create_model, replace_head
from bcos_vision.models.public import count_classes, is_public_bcos
from bcos_vision.models.variant import channels_last
from bcos_vision.recipes import RECIPES, recipe_for

SHARE = 0.1
"""Of a network's epochs, that fine-tuning takes."""
_SMALLER = 4
"""Times that its batches are smaller: few epochs need many steps; the learning rate goes with the root."""


@dataclass(frozen=True)
class Source:
    """What ``--from`` names."""

    name: str
    """The run's whole id, or the file's whole path."""
    file: pathlib.Path
    config: TrainConfig | None
    """Of the run."""
    described: bool
    """Whether the file says what it holds: ours do, checkpoints of others do not."""


def find_source(name: str) -> Source:
    """The run or file of a name.

    Raises:
        InputError: If there is none.
    """
    path = pathlib.Path(name).expanduser()
    if path.suffix or path.exists():
        if not path.is_file():
            raise InputError(f"--from {name}: no such file")
        described = path.suffix == ".safetensors" and _is_described(path)
        stored = path.parent / "config.json"  # of a run's folder: says which images were held out
        config = None
        if described and stored.is_file():
            config = configuration.from_dict(TrainConfig, configuration.load_dict(stored))
        return Source(str(path.resolve()), path, config, described)
    record = find_run(name)
    config = fetch_config(record.id, TrainConfig)
    return Source(record.id, fetch_artifact(record.id, "model/model.safetensors"), config, described=True)


def _is_described(path: pathlib.Path) -> bool:
    try:
        return "classes" in load_model(path)[1]
    except InputError:
        return False  # of others, or damaged: who loads it says so


def fine_tuning(source: Source, preset: str | None, data: str | None, *, learns: bool = False) -> TrainConfig:
    """The configuration that fine-tuning starts from: the source's own, for a tenth of its epochs, in small steps.

    Args:
        source: What is fine-tuned.
        preset: Preset to take instead of the run's configuration.
        data: Data that was asked for, which chooses the preset of a file.
        learns: Whether exponents are to be learnt: then none rises.

    Raises:
        InputError: If nothing says what to train it on.
    """
    name, b = None, TrainConfig.b
    # a plain network's B rises from 1, which is what it was trained with
    exponent = ExponentConfig() if learns else ExponentConfig(start=1.0)
    if source.described:
        trained = TrainedClassifier.load(source.file)
        name = trained.model.description["name"]
        if trained.model.is_bcos:
            b, exponent = _own_b(trained.model), ExponentConfig(learn=trained.model.description.get("learn_b"))
        if not trained.data.startswith("folder"):  # a file knows a folder's name, not where it is
            data = data or trained.data
    elif is_public_bcos(source.file):
        exponent = ExponentConfig()
    base = RECIPES[preset]() if preset is not None else source.config
    if base is None:
        if not data:
            raise InputError(f"--from {source.name}: does not say what it was trained on; give --data")
        base = RECIPES[recipe_for(data)]()
        base = dataclasses.replace(base, data=data)
    epochs = max(1, math.ceil(SHARE * base.epochs))
    if source.config is not None:  # what it was trained on is no test; of other data it says nothing
        same = data is None or absolute(data) == absolute(source.config.data)
        base = dataclasses.replace(base, split=source.config.split if same else SplitConfig())
    usual = TrainConfig()
    own = ("stem", "norm", "max_out", "encoding", "bias", "detach", "temperature", "logit_bias", "keep", "compile")
    changes: dict[str, Any] = {
        "model": name or base.model,
        "variant": "bcos",
        **{option: getattr(usual, option) for option in own},
        "b": b,
        "epochs": epochs,
        "batch_size": max(1, base.batch_size // _SMALLER),
        "optim": dataclasses.replace(
            base.optim,
            lr=base.optim.lr / math.sqrt(_SMALLER),
            ema=0.0,
            ema_every=1,
            warmup_epochs=min(base.optim.warmup_epochs, SHARE * epochs),
        ),
        "exponent": exponent,
        "conversion": ConversionConfig(source=source.name),
    }
    try:
        return dataclasses.replace(base, **changes)
    except ValueError as error:
        raise InputError(f"--from {source.name}: {error}") from None


def starting_model(config: TrainConfig, data: ImageData) -> tuple[ImageClassifier, tuple[str, ...]]:
    """The B-cos classifier that a run with a ``conversion.source`` begins with, and what to say of it.

    Returns:
        The classifier, in training mode; and lines for people: that its head is new, what its conversion notes.

    Raises:
        InputError: If the source is gone, is one of other images, has options of its own where the configuration has
            others, or cannot be made a B-cos network.
    """
    assert config.conversion.source is not None
    source = find_source(config.conversion.source)
    model, classes = _load(source, config, data)
    if model.in_channels != data.channels:
        raise InputError(f"--from {source.name}: takes {model.in_channels} channels, {data.name} has {data.channels}")
    if source.config is not None:
        same = absolute(source.config.data) == absolute(config.data)
        if same and source.config.split != config.split:
            raise InputError(
                f"--split: another than that of run {source.name}, which may have been trained on what is a test here"
            )
    notes: tuple[str, ...] = ()
    # files of others do not name their classes: as many are taken for the same
    if classes != data.classes if classes is not None else model.num_classes != len(data.classes):
        told = f"{model.num_classes} classes" + (f" ({classes[0]}, ...)" if classes else "")
        notes = (f"new head, untrained: the source tells {told}, {data.name} has {_list(data.classes)}",)
        model = replace_head(model, len(data.classes))
    if model.is_bcos:
        model = _go_on(model, config, source)
    else:
        model, report = _convert(model, config, source)
        notes += report.notes
    channels_last(model)
    model.train()
    return model, notes


def _load(source: Source, config: TrainConfig, data: ImageData) -> tuple[ImageClassifier, tuple[str, ...] | None]:
    """The source's network as it is, and its classes, if it names them."""
    if source.described:
        trained = TrainedClassifier.load(source.file)
        if (name := trained.model.description["name"]) != config.model:
            raise InputError(f"--model {config.model}: --from {source.name} is a {name}")
        return trained.model, trained.classes
    variant = "bcos" if is_public_bcos(source.file) else "standard"
    options = {"num_classes": count_classes(source.file), "in_channels": data.channels, "variant": variant}
    try:
        return create_model(config.model, weights=source.file, **options), None
    except InputError as error:
        raise InputError(f"{error}; it was taken for a {config.model} ({variant}): --model says what it is") from None


def _list(classes: tuple[str, ...]) -> str:
    return f"{len(classes)} ({', '.join(classes[:3])}{', ...' * (len(classes) > 3)})"


def _convert(plain: ImageClassifier, config: TrainConfig, source: Source) -> tuple[ImageClassifier, ConversionReport]:
    # a classifier's own bias goes, or stays
    drop = config.conversion.biases == "drop" and plain.description["variant"] == "standard"
    usual = LogitLayer.prior_bias(plain.num_classes) if drop else 0.0
    options = {
        "b": config.b,
        "biases": config.conversion.biases,
        "pooling": config.conversion.pooling,
        "logit_bias": usual if config.logit_bias is None else config.logit_bias,
    }
    try:
        model, report = bcosify(plain, **options)
    except ValueError as error:
        raise InputError(f"--from {source.name}: {error}") from None
    assert isinstance(model, ImageClassifier)
    model.description = {**plain.description, "conversion": options}
    if config.exponent.learn is not None:
        learn_exponents(model, config.exponent.learn)
        model.description["learn_b"] = config.exponent.learn
    return model, report


def _go_on(model: ImageClassifier, config: TrainConfig, source: Source) -> ImageClassifier:
    """A B-cos network, whose B and constants are what its weights were trained with."""
    is_its = f"--from {source.name} is a B-cos network, which"
    usual = ConversionConfig(source=config.conversion.source)
    for name in ("biases", "pooling"):
        if getattr(config.conversion, name) != getattr(usual, name):
            raise InputError(f"--conversion.{name}: belongs to plain networks; {is_its} stays as it is")
    if config.exponent.start is not None:
        raise InputError(f"--exponent.start: belongs to plain networks; {is_its} has its B, {_own_b(model):g}")
    if config.logit_bias is not None:
        raise InputError(f"--logit_bias: {is_its} has its own")
    if config.b != _own_b(model):
        raise InputError(f"--b: expected {_own_b(model):g}; {is_its} was trained with that B")
    learnt = model.description.get("learn_b")
    if learnt is not None and learnt != config.exponent.learn:
        raise InputError(f"--exponent.learn: expected {learnt}; {is_its} learns its exponents so")
    if learnt is None and config.exponent.learn is not None:
        learn_exponents(model, config.exponent.learn)
        model.description = {**model.description, "learn_b": config.exponent.learn}
    return model


def _own_b(model: ImageClassifier) -> float:
    """The exponent of a B-cos network, or with which its exponents began."""
    return dict(model.description.get("conversion") or model.description).get("b", TrainConfig.b)
