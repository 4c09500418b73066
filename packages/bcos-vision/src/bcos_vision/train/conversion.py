"""Fine-tuning a plain network that has been made a B-cos one: where it comes from, and what it becomes."""

import dataclasses
import math
import pathlib
from dataclasses import dataclass
from typing import Any

from bcos_core.convert import bcosify
from bcos_core.nn import LogitLayer, learn_exponents
from bcos_core.run import config as configuration
from bcos_core.run.checkpoint import load_model
from bcos_core.run.error import InputError
from bcos_core.run.tracking import fetch_artifact, find_run

from bcos_vision.config import ConversionConfig, ExponentConfig, TrainConfig
from bcos_vision.data import ImageData, absolute
from bcos_vision.models import ImageClassifier, TrainedClassifier, create_model
from bcos_vision.models.variant import channels_last
from bcos_vision.recipes import RECIPES, recipe_for

SHARE = 0.1
"""Of a plain network's epochs, that fine-tuning takes."""
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
    config = configuration.from_dict(TrainConfig, configuration.load_dict(fetch_artifact(record.id, "config.json")))
    return Source(record.id, fetch_artifact(record.id, "model/model.safetensors"), config, described=True)


def _is_described(path: pathlib.Path) -> bool:
    try:
        return "classes" in load_model(path)[1]
    except InputError:
        return False  # of others, or damaged: who loads it says so


def fine_tuning(source: Source, preset: str | None, data: str | None, *, learns: bool = False) -> TrainConfig:
    """The configuration that fine-tuning starts from: the plain run's own, for a tenth of its epochs, in small steps.

    Args:
        source: What is fine-tuned.
        preset: Preset to take instead of the run's configuration.
        data: Data that was asked for, which chooses the preset of a file.
        learns: Whether exponents are to be learnt: then none rises.

    Raises:
        InputError: If it is no plain network, or nothing says what to train it on.
    """
    name = None
    if source.described:
        trained = TrainedClassifier.load(source.file)
        _check_plain(trained.model, source)
        name = trained.model.description["name"]
        if not trained.data.startswith("folder"):  # a file knows a folder's name, not where it is
            data = data or trained.data
    base = RECIPES[preset]() if preset is not None else source.config
    if base is None:
        if not data:
            raise InputError(f"--from {source.name}: does not say what it was trained on; give --data")
        base = RECIPES[recipe_for(data)]()
        base = dataclasses.replace(base, data=data)
    epochs = max(1, math.ceil(SHARE * base.epochs))
    if preset is not None and source.config is not None:
        base = dataclasses.replace(base, split=source.config.split)  # what it was trained on is no test
    usual = TrainConfig()
    own = ("stem", "norm", "max_out", "encoding", "bias", "detach", "temperature", "logit_bias", "keep", "compile", "b")
    changes: dict[str, Any] = {
        "model": name or base.model,
        "variant": "bcos",
        **{option: getattr(usual, option) for option in own},
        "epochs": epochs,
        "batch_size": max(1, base.batch_size // _SMALLER),
        "optim": dataclasses.replace(
            base.optim,
            lr=base.optim.lr / math.sqrt(_SMALLER),
            ema=0.0,
            ema_every=1,
            warmup_epochs=min(base.optim.warmup_epochs, SHARE * epochs),
        ),
        "exponent": ExponentConfig() if learns else ExponentConfig(start=1.0),
        "conversion": ConversionConfig(source=source.name),
    }
    try:
        return dataclasses.replace(base, **changes)
    except ValueError as error:
        raise InputError(f"--from {source.name}: {error}") from None


def convert(config: TrainConfig, data: ImageData) -> ImageClassifier:
    """The classifier that a run with a ``conversion.source`` begins with.

    Raises:
        InputError: If the source is gone, is no plain network or one of other classes or images, or cannot be made a
            B-cos one.
    """
    assert config.conversion.source is not None
    source = find_source(config.conversion.source)
    if source.described:
        trained = TrainedClassifier.load(source.file)
        plain = trained.model
        if trained.classes != data.classes:
            raise InputError(
                f"--from {source.name}: it tells {len(trained.classes)} classes ({trained.classes[0]}, ...), "
                f"{data.name} has {len(data.classes)} ({data.classes[0]}, ...)"
            )
        if plain.description["name"] != config.model:
            raise InputError(f"--model {config.model}: --from {source.name} is a {plain.description['name']}")
    else:
        plain = create_model(
            config.model,
            num_classes=len(data.classes),
            variant="standard",
            in_channels=data.channels,
            weights=source.file,
        )
    _check_plain(plain, source)
    if plain.in_channels != data.channels:
        raise InputError(f"--from {source.name}: takes {plain.in_channels} channels, {data.name} has {data.channels}")
    if source.config is not None:
        same = absolute(source.config.data) == absolute(config.data)
        if same and source.config.split != config.split:
            raise InputError(
                f"--split: another than that of run {source.name}, which may have been trained on what is a test here"
            )
    # a classifier's own bias goes, or stays
    drop = config.conversion.biases == "drop" and plain.description["variant"] == "standard"
    usual = LogitLayer.prior_bias(len(data.classes)) if drop else 0.0
    options = {
        "b": config.b,
        "biases": config.conversion.biases,
        "pooling": config.conversion.pooling,
        "logit_bias": usual if config.logit_bias is None else config.logit_bias,
    }
    try:
        model, _ = bcosify(plain, **options)
    except ValueError as error:
        raise InputError(f"--from {source.name}: {error}") from None
    assert isinstance(model, ImageClassifier)
    model.description = {**plain.description, "conversion": options}
    if config.exponent.learn is not None:
        learn_exponents(model, config.exponent.learn)
        model.description["learn_b"] = config.exponent.learn
    channels_last(model)
    return model.train()  # type: ignore[return-value] - itself


def _check_plain(model: ImageClassifier, source: Source) -> None:
    if model.is_bcos:
        raise InputError(f"--from {source.name}: expected a plain network (standard or baseline), it is a B-cos one")
