"""One training run, from configuration to explained, tracked result."""

import dataclasses
import logging
import pathlib
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import lightning
import torch
from bcos_core.run import config as configuration
from bcos_core.run.error import InputError
from bcos_core.run.seed import derive_seed, seed_everything
from bcos_core.run.tracking import TrackedRun, fetch_artifact, find_run, run_folder
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console
from torch import Tensor

from bcos_vision.config import TrainConfig
from bcos_vision.data import ImageData, absolute, load_data, make_loader
from bcos_vision.evaluation import Evaluation, evaluate
from bcos_vision.figures import draw_confusion, draw_test_explanations
from bcos_vision.models import ImageClassifier, TrainedClassifier, create_model

from .module import ClassifierTraining
from .progress import TrainingProgress
from .state import WholeCheckpoints

LAST, BEST, MODEL = "last.ckpt", "best.ckpt", "model.safetensors"


@dataclass(frozen=True)
class FitResult:
    """What a training run leaves behind."""

    run_id: str
    stage: str
    """What was scored: "test", or "val" where nothing was held out for a test."""
    evaluation: Evaluation
    classifier: TrainedClassifier
    folder: pathlib.Path
    """Holds model.safetensors, explanations.png, confusion.png, config.json and the training states."""
    seconds: float
    """Training itself, without data, evaluation and pictures."""
    images_per_second: float
    """Training images in that time."""


def fit(config: TrainConfig, *, console: Console | None = None) -> FitResult:
    """Train, evaluate and explain a classifier, tracked in MLflow.

    By default the last epoch's model is kept: the learning rate ends at zero there, and choosing an epoch by the loss
    of a small validation set adds noise (``config.keep``).
    The same configuration on the same CPU and versions repeats bit for bit.

    Args:
        config: The run.
        console: Where progress goes; standard error by default.

    Raises:
        InputError: If the data, the model or the store cannot be used, or the disk is full; see the message.
    """
    config = dataclasses.replace(config, data=absolute(config.data))
    data = _load(config)
    seed_everything(derive_seed(config.seed, "weights"))
    model = _build(config, data)
    run = TrackedRun.create(
        f"vision/{config.data_name}",
        arm=config.arm,
        config=config,
        seed=config.seed,
        tags={"data_fingerprint": data.fingerprint, "device": _device(config)},
    )
    return _train(run, config, data, model, None, console or Console(stderr=True))


def resume(run_id: str, *, console: Console | None = None) -> FitResult:
    """Go on with an interrupted run from its last finished epoch, in the same MLflow run.

    It ends as it would have ended uninterrupted: on a CPU with the same metrics, bit for bit.

    Args:
        run_id: The run, or the beginning of its id.
        console: Where progress goes; standard error by default.

    Raises:
        InputError: If there is no such run, it is finished, its state is gone, or its data has changed.
    """
    record = find_run(run_id)
    if record.status == "FINISHED":
        raise InputError(f"run {record.id} is finished; bcos-vision evaluate --run {record.id} scores it")
    stored = run_folder(record.id) / "config.json"
    config = configuration.from_dict(
        TrainConfig, configuration.load_dict(stored if stored.exists() else fetch_artifact(record.id, "config.json"))
    )
    data = _load(config)
    if data.fingerprint != record.tags.get("data_fingerprint"):
        raise InputError(f"run {record.id}: the data {config.data} has changed since it began; start a new run")
    seed_everything(derive_seed(config.seed, "weights"))
    model = _build(config, data)
    state = run_folder(record.id) / LAST  # none yet: it was killed in its first epoch, and begins again
    return _train(
        TrackedRun.resume(record.id),
        config,
        data,
        model,
        state if state.exists() else None,
        console or Console(stderr=True),
    )


def _load(config: TrainConfig) -> ImageData:
    """The run's data, and what has to be right before a run is opened for it."""
    _device(config)
    data = load_data(config.data, config.split, image_size=config.image_size)
    if not len(data.val) + len(data.test):
        raise InputError("--split.test and --split.val are both 0: nothing is left to score")
    if config.keep == "best" and not len(data.val):
        raise InputError("--keep best: needs a validation set, and there is none (--split.val)")
    return data


def _device(config: TrainConfig) -> str:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here; --device auto takes what there is")
    return "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"


def _build(config: TrainConfig, data: ImageData) -> ImageClassifier:
    mean, std = data.statistics() if config.variant != "bcos" else (None, None)
    return create_model(
        config.model,
        num_classes=len(data.classes),
        variant=config.variant,
        b=config.b,
        max_out=config.max_out,
        norm=config.norm,
        in_channels=data.channels,
        mean=mean,
        std=std,
    )


class _MetricsToRun(lightning.Callback):
    """Hands each epoch's metrics to the tracked run."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = run

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        found["train/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        self._run.log_metrics(found, trainer.current_epoch + 1)


def _train(
    run: TrackedRun,
    config: TrainConfig,
    data: ImageData,
    model: ImageClassifier,
    state: pathlib.Path | None,
    console: Console,
) -> FitResult:
    train_loader = make_loader(data.train, config.batch_size, seed=config.seed, num_workers=config.num_workers)
    val_loader = make_loader(data.val, max(256, config.batch_size), num_workers=config.num_workers)
    training = ClassifierTraining(model, config, len(train_loader))
    # two callbacks: save_last would write the last state only in epochs that are the best so far
    states = {"dirpath": run.folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(filename=pathlib.Path(BEST).stem, monitor="val/loss", **states)
    last = ModelCheckpoint(filename=pathlib.Path(LAST).stem, **states)
    checkpoints = [best, last] if len(data.val) else [last]
    with run, _quiet_lightning():
        trainer = lightning.Trainer(
            accelerator=_device(config),
            devices=1,
            max_epochs=config.epochs,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            plugins=[WholeCheckpoints()],
            callbacks=[_MetricsToRun(run), *checkpoints, TrainingProgress(console)],
        )
        first_epoch = 0 if state is None else int(WholeCheckpoints().load_checkpoint(state)["epoch"]) + 1
        train_loader.sampler.start_epoch(first_epoch)  # type: ignore[attr-defined] - before Lightning's first iterator
        began = time.monotonic()
        try:
            trainer.fit(training, train_loader, val_loader if len(data.val) else None, ckpt_path=state)
        except InputError as error:
            raise InputError(f"{error} -- when that is mended: bcos-vision train --resume {run.id}") from error
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt(f"go on with: bcos-vision train --resume {run.id}") from None
        seconds = time.monotonic() - began
        kept = run.folder / (BEST if config.keep == "best" else LAST)
        weights = WholeCheckpoints().load_checkpoint(kept, map_location="cpu")["state_dict"]
        model.load_state_dict({n.removeprefix("model."): v for n, v in weights.items() if n.startswith("model.")})
        classifier = TrainedClassifier(model, data.classes, data.size, config.data_name)
        evaluation = _conclude(run, config, data, classifier)
    done = config.epochs - first_epoch
    stage = "test" if len(data.test) else "val"
    return FitResult(run.id, stage, evaluation, classifier, run.folder, seconds, done * len(data.train) / seconds)


def _conclude(run: TrackedRun, config: TrainConfig, data: ImageData, classifier: TrainedClassifier) -> Evaluation:
    """Score, explain and draw the trained model, and log all of it."""
    model = classifier.model
    classifier.save(run.folder / MODEL)
    scored, stage = (data.test, "test") if len(data.test) else (data.val, "val")
    evaluation = evaluate(model, scored, num_explained=config.num_explained, device=_device(config))
    run.log_metrics({f"{stage}/{name}": value for name, value in evaluation.metrics.items()}, config.epochs)
    shown = choose_examples(evaluation.predictions, scored.labels)
    images, labels = scored[shown.tolist()]
    accuracy = f"{config.arm}: {stage} accuracy {evaluation.metrics['accuracy']:.2%}"
    draw_test_explanations(model, images, labels, data.classes, run.folder / "explanations.png", title=accuracy)
    draw_confusion(evaluation.confusion, data.classes, run.folder / "confusion.png", title=accuracy)
    for name in ("explanations.png", "confusion.png"):
        run.log_artifact(run.folder / name, "pictures")
    model.cpu()
    run.log_model(run.folder / MODEL, config.model, {"variant": config.variant, "b": config.b, "data": data.name})
    return evaluation


def choose_examples(predictions: Tensor, labels: Tensor, *, num_right: int = 12, num_wrong: int = 4) -> Tensor:
    """Indices of images to show: right ones, a class at a time, then wrong ones likewise.

    Example:
        >>> choose_examples(torch.tensor([0, 0, 1, 0]), torch.tensor([0, 0, 1, 1]), num_right=2)
        tensor([0, 2, 3])
    """

    def by_turns(indices: list[int]) -> list[int]:
        """The first of each class, then the second of each, and so on."""
        turns: dict[int, int] = {}
        ranked = []
        for i in indices:
            label = int(labels[i])
            ranked.append((turns.setdefault(label, 0), label, i))
            turns[label] += 1
        return [i for _, _, i in sorted(ranked)]

    right = by_turns((predictions == labels).nonzero()[:, 0].tolist())
    wrong = by_turns((predictions != labels).nonzero()[:, 0].tolist())
    return torch.tensor(right[:num_right] + wrong[:num_wrong], dtype=torch.long)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's advice is for those who write Trainers."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for text in (
            "does not have many workers",
            "Checkpoint directory",
            "logging interval",
            "GPU available",
            "isinstance.treespec, LeafSpec",
        ):
            warnings.filterwarnings("ignore", message=f".*{text}")
        yield
