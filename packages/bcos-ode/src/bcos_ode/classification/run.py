"""One classification run, from configuration to explained, tracked result."""

import dataclasses
import pathlib
from dataclasses import dataclass

import numpy as np
import torch
from bcos_core import explain
from bcos_core.run import config as configuration
from bcos_core.run.error import InputError
from bcos_core.run.seed import derive_seed, seed_everything
from bcos_core.run.split import VARIES
from bcos_core.run.tracking import RunPlace, TrackedRun, fetch_artifact, find_run, run_folder
from rich.console import Console
from torch import Tensor

from bcos_ode.config import absolute

from .classifier import OdeClassifier
from .config import ClassificationConfig
from .images import ImageData, LabelledImages, load_images, to_unit_range
from .training import STATE, accuracy, classification_loss, predict, train

MODEL, PREDICTIONS = "model.safetensors", "predictions.npz"


@dataclass(frozen=True)
class ClassificationResult:
    """What a run leaves behind."""

    run_id: str
    stage: str
    """What was scored: "test", or "val" where nothing was held out for a test."""
    metrics: dict[str, float]
    """accuracy, loss, completeness_error (the largest), num_evaluations (of the field, in a forward pass) and
    num_parameters."""
    model: OdeClassifier
    folder: pathlib.Path
    """Holds model.safetensors, predictions.npz, config.json, the training state, and the pictures, if drawn."""
    seconds: float
    """Training itself, without data, scores and pictures."""


def fit(
    config: ClassificationConfig,
    *,
    place: RunPlace | None = None,
    pictures: bool = True,
    console: Console | None = None,
) -> ClassificationResult:
    """Train, score and explain a classifier, tracked in MLflow; the last epoch's model is kept.

    The same configuration on the same CPU and versions repeats bit for bit.

    Args:
        config: The run.
        place: Where the run is kept: by default under the experiment "ode/DATA", its arm called ``config.arm``.
        pictures: Draw explanations and evidence over depth at the end.
        console: Where progress goes; standard error by default.

    Raises:
        InputError: If the data, the device or the store cannot be used, or the training diverges; see the message.
    """
    config = dataclasses.replace(config, data=absolute(config.data))  # a resumed run must find it again
    data, model = prepare(config)
    place = place or RunPlace(f"ode/{config.data_name}", config.arm)
    tags = {
        "task": "classification",
        "data_fingerprint": data.fingerprint,
        "device": next(model.parameters()).device.type,
        "num_train": str(len(data.train)),
        "num_test": str(len(data.test) or len(data.val)),
        **place.tags,
    }
    run = TrackedRun.create(
        place.experiment,
        arm=place.arm,
        config=config,
        seed=config.seed,
        fold=config.split.fold,
        varies=VARIES,
        tags=tags,
    )
    return _run(run, model, data, pictures, console or Console(stderr=True))


def resume(run_id: str, *, pictures: bool = True, console: Console | None = None) -> ClassificationResult:
    """Go on with an interrupted run from its last finished epoch, in the same MLflow run; it ends as it would have.

    Args:
        run_id: The run, or the beginning of its id.
        pictures: Draw explanations and evidence over depth at the end.
        console: Where progress goes; standard error by default.

    Raises:
        InputError: If there is no such run, it is finished, its state is unreadable, or its data has changed.
    """
    record = find_run(run_id)
    if record.status == "FINISHED":
        raise InputError(f"run {record.id} is finished")
    if record.tags.get("task") != "classification":
        raise InputError(f"run {record.id} trained no image classifier of bcos-ode")
    folder = run_folder(record.id)
    stored = folder / "config.json"
    values = configuration.load_dict(stored if stored.exists() else fetch_artifact(record.id, "config.json"))
    config = configuration.from_dict(ClassificationConfig, values)
    data, model = prepare(config)
    if data.fingerprint != record.tags.get("data_fingerprint"):
        raise InputError(f"run {record.id}: the data {config.data} has changed since it began; start a new run")
    spent = record.metrics.get("train/seconds", 0.0) if (folder / STATE).exists() else 0.0
    run = TrackedRun.resume(record.id)
    return _run(run, model, data, pictures, console or Console(stderr=True), spent=spent)


def prepare(config: ClassificationConfig) -> tuple[ImageData, OdeClassifier]:
    """Load the data and build the model of a configuration, on its device, as :func:`fit` would; train nothing.

    Raises:
        InputError: If :func:`fit` would refuse them.
    """
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise InputError("--device cuda: no GPU that this PyTorch can use; expected cpu or auto")
    data = load_images(config.data, config.split)
    if not len(data.val) + len(data.test):
        raise InputError("--split.test and --split.val are both 0: nothing is left to score")
    channels, *side = data.shape
    if min(side) < 2**config.halvings:
        raise InputError(f"--halvings: {config.halvings} are too many for images of {side[1]}x{side[0]} pixels")
    if config.shift >= min(side):
        raise InputError(f"--shift: expected less than the image's {min(side)} pixels, got {config.shift}")
    seed_everything(derive_seed(config.seed, "weights"))
    model = OdeClassifier(config, classes=data.classes, in_channels=channels, statistics=data.statistics())
    return data, model.to("cuda" if has_gpu and config.device != "cpu" else "cpu")


def _run(
    run: TrackedRun, model: OdeClassifier, data: ImageData, pictures: bool, console: Console, *, spent: float = 0.0
) -> ClassificationResult:
    with run:
        try:
            seconds = train(model, data, run, console, spent=spent)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"go on with: bcos-ode train --resume {run.id}") from None
        config = model.config
        scored, stage = (data.test, "test") if len(data.test) else (data.val, "val")
        logits = predict(model, scored, config.batch_size)
        metrics = _scores(model, scored, logits)
        run.log_metrics({f"{stage}/{name}": value for name, value in metrics.items()}, config.epochs)
        model.cpu().save(run.folder / MODEL)
        # McNemar's test compares two runs by them
        labels, predictions = scored.labels.numpy(), logits.argmax(1).numpy()
        np.savez_compressed(run.folder / PREDICTIONS, labels=labels, predictions=predictions)
        run.log_artifact(run.folder / PREDICTIONS)
        if pictures:
            from bcos_ode.figures.classification import draw_classification

            title = f"{config.arm}: {stage} accuracy {metrics['accuracy']:.2%}"
            for picture in draw_classification(model, scored, run.folder, title=title):
                run.log_artifact(picture, "pictures")
        described = {"variant": config.variant, "block": config.block, "b": config.b, "data": config.data_name}
        run.log_model(run.folder / MODEL, f"ode-{config.block}", described)
    return ClassificationResult(run.id, stage, metrics, model, run.folder, seconds)


def evaluate(config: ClassificationConfig, model_file: pathlib.Path) -> dict[str, float]:
    """Score a model file on the test of its configuration.

    Raises:
        InputError: If data or file cannot be used.
    """
    model, scored = _load(config, model_file)
    return _scores(model, scored, predict(model, scored, config.batch_size))


def explain_test(config: ClassificationConfig, model_file: pathlib.Path, folder: pathlib.Path) -> float:
    """Draw explanations of test images to their pixels and over depth time; returns the largest completeness error.

    Raises:
        InputError: If data or file cannot be used.
    """
    from bcos_ode.figures.classification import draw_classification

    model, scored = _load(config, model_file)
    draw_classification(model, scored, folder, title=config.arm)
    return _completeness_error(model, scored)


def _load(config: ClassificationConfig, model_file: pathlib.Path) -> tuple[OdeClassifier, LabelledImages]:
    data = load_images(config.data, config.split)
    return OdeClassifier.load(model_file), data.test if len(data.test) else data.val


def _scores(model: OdeClassifier, scored: LabelledImages, logits: Tensor) -> dict[str, float]:
    return {
        "accuracy": accuracy(logits, scored.labels),
        "loss": float(classification_loss(logits, scored.labels)),
        "completeness_error": _completeness_error(model, scored),
        "num_evaluations": float(model.num_evaluations),
        "num_parameters": float(sum(p.numel() for p in model.parameters())),
    }


def _completeness_error(model: OdeClassifier, images: LabelledImages) -> float:
    """The largest over evenly spread images: folders are sorted by class."""
    config, device = model.config, next(model.parameters()).device
    chosen = torch.linspace(0, len(images) - 1, min(config.num_explained, len(images))).round().long()
    batches = images.subset(chosen).images.split(config.batch_size) if len(chosen) else ()
    errors = [explain(model, to_unit_range(x.to(device))).completeness_error.cpu() for x in batches]
    return float(torch.cat([torch.zeros(1), *errors]).max())
