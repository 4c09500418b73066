"""One training run, from configuration to explained, tracked result."""

import dataclasses
import inspect
import logging
import pathlib
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning
import torch
import torch.distributed as dist
from bcos_core.nn import synchronise_batch_norms
from bcos_core.run import config as configuration
from bcos_core.run.error import InputError
from bcos_core.run.seed import derive_seed, seed_everything
from bcos_core.run.split import VARIES
from bcos_core.run.tracking import RunPlace, TrackedRun, fetch_config, find_run, run_folder
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from rich.console import Console
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from bcos_vision.config import TrainConfig
from bcos_vision.data import ImageData, absolute, load_data, make_loader, picture_change
from bcos_vision.models import ImageClassifier, TrainedClassifier, aliases, create_model

from .averaging import MovingAverage
from .divergence import Diverged, DivergenceWatch
from .fine_tuning import find_source, starting_model
from .module import ClassifierTraining
from .progress import TrainingProgress
from .ranks import Ranks, device_of, find_ranks
from .result import FitResult, conclude
from .state import WholeCheckpoints

LAST, BEST = "last.ckpt", "best.ckpt"
ARCHITECTURE = "architecture.json"
_PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}  # as Lightning calls them


def fit(
    config: TrainConfig, *, place: RunPlace | None = None, pictures: bool = True, console: Console | None = None
) -> FitResult:
    """Train, evaluate and explain a classifier, tracked in MLflow.

    By default the last epoch's model is kept: the learning rate ends at zero there, and choosing an epoch by the loss
    of a small validation set adds noise (``config.keep``).
    The same configuration on the same CPU and versions repeats bit for bit.

    With ``config.devices`` the command that called this is started again for each further device; such a process
    leaves with SystemExit when the training is over, and the first one alone goes on.

    Args:
        config: The run.
        place: Where the run is kept: by default under the experiment "vision/DATA", its arm called ``config.arm``.
        pictures: Draw explanations and confusions at the end, which takes seconds.
        console: Where progress goes; standard error by default.

    Raises:
        InputError: If the data, the model or the store cannot be used, the disk is full, or the training diverges; see
            the message.
    """
    config = _resolve(config)
    work = _prepare(config, _load(config))
    run = None
    if work.ranks.is_first:
        place = place or RunPlace(f"vision/{config.data_name}", config.arm)
        run = TrackedRun.create(
            place.experiment,
            arm=place.arm,
            config=config,
            seed=config.seed,
            fold=config.split.fold,
            varies=VARIES,
            tags={
                "data_fingerprint": work.data.fingerprint,
                "device": device_of(config),
                "num_train": str(len(work.data.train)),
                "num_test": str(len(work.data.test) or len(work.data.val)),
                **place.tags,
            },
        )
        if config.conversion.source is not None:
            configuration.save_values(work.training.model.description, run.folder / ARCHITECTURE)
    console = console or Console(stderr=True)
    for note in work.notes if run is not None else ():
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    return _train(run, work, None, console, pictures)


def resume(
    run_id: str,
    *,
    devices: int | None = None,
    nodes: int | None = None,
    pictures: bool = True,
    console: Console | None = None,
) -> FitResult:
    """Go on with an interrupted run from its last finished epoch, in the same MLflow run.

    It ends as it would have ended uninterrupted: on a CPU with the same metrics, bit for bit; on other devices than
    before, up to rounding and what is drawn on each device.

    Args:
        run_id: The run, or the beginning of its id.
        devices: Devices on each node, if not as before; they share batches of the same images.
        nodes: Nodes, likewise.
        pictures: Draw explanations and confusions at the end.
        console: Where progress goes; standard error by default.

    Raises:
        InputError: If there is no such run, it is finished, its state is gone, or its data has changed.
    """
    record = find_run(run_id)
    if record.status == "FINISHED":
        raise InputError(f"run {record.id} is finished; bcos-vision evaluate --run {record.id} scores it")
    config = fetch_config(record.id, TrainConfig)
    config = dataclasses.replace(
        config, devices=config.devices if devices is None else devices, nodes=nodes or config.nodes
    )
    data = _load(config)
    if data.fingerprint != record.tags.get("data_fingerprint"):
        raise InputError(f"run {record.id}: the data {config.data} has changed since it began; start a new run")
    work = _prepare(config, data, _read_description(record.id))
    state = run_folder(record.id) / LAST  # none yet: it was killed in its first epoch, and begins again
    run = TrackedRun.resume(record.id) if work.ranks.is_first else None
    spent = record.metrics.get("train/seconds", 0.0) if state.exists() else 0.0
    return _train(run, work, state if state.exists() else None, console or Console(stderr=True), pictures, spent=spent)


def _resolve(config: TrainConfig) -> TrainConfig:
    """The same configuration with the names that stand for the same wherever and whenever it is read."""
    config = dataclasses.replace(_without_alias(config), data=absolute(config.data))
    if (source := config.conversion.source) is None:
        return config
    return dataclasses.replace(
        config, conversion=dataclasses.replace(config.conversion, source=find_source(source).name)
    )


def _without_alias(config: TrainConfig) -> TrainConfig:
    """The same configuration, with the model called by its own name and the alias's arguments in their places."""
    alias = aliases().get(config.model)
    if alias is None:
        return config
    for name, value in alias.arguments.items():
        if (given := getattr(config, name)) not in (value, getattr(TrainConfig, name)):
            raise InputError(f'--{name}: {config.model} is {alias.model} with {name} "{value}", got "{given}"')
    return dataclasses.replace(config, model=alias.model, **alias.arguments)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Work:
    """A training that is ready to begin, in this process."""

    config: TrainConfig
    ranks: Ranks
    data: ImageData
    training: ClassifierTraining
    batches: DataLoader
    val_batches: DataLoader | None
    notes: tuple[str, ...]
    """Of what the training begins with, for people."""


def _load(config: TrainConfig) -> ImageData:
    """The run's data, and what has to be right before a run is opened for it."""
    find_ranks(config)
    data = load_data(
        config.data,
        config.split,
        image_size=config.image_size,
        eval_size=config.eval_size,
        eval_resize=config.eval_resize,
        skip_corrupt=config.skip_corrupt,
    )
    if not len(data.train):
        raise InputError(f"{config.data}: no images to train on, only some to score (no train/ folder)")
    if not len(data.val) + len(data.test):
        raise InputError("--split.test and --split.val are both 0: nothing is left to score")
    if config.keep == "best" and not len(data.val):
        raise InputError("--keep best: needs a validation set, and there is none (--split.val)")
    return data


def _prepare(config: TrainConfig, data: ImageData, description: dict[str, Any] | None = None) -> _Work:
    ranks = find_ranks(config)
    model, notes = _build(config, data, description)
    if ranks.size > 1:
        synchronise_batch_norms(model)
    loader = partial(make_loader, rank=ranks.rank, world_size=ranks.size, num_workers=config.num_workers)
    change = picture_change(config.augment, data.size)
    batches = loader(data.train, config.batch_size, seed=config.seed, repeats=config.augment.repeats, change=change)
    val_batches = loader(data.val, config.batch_size) if len(data.val) else None
    training = ClassifierTraining(model, config, num_images=len(data.train), num_batches=len(batches))
    return _Work(config, ranks, data, training, batches, val_batches, notes)


def _build(
    config: TrainConfig, data: ImageData, description: dict[str, Any] | None
) -> tuple[ImageClassifier, tuple[str, ...]]:
    """The model that training begins with, and what people should know of it."""
    seed_everything(derive_seed(config.seed, "weights"))
    notes: tuple[str, ...] = ()
    if config.conversion.source is None:
        model = _create(config, data)
    elif description is not None:  # the run goes on, and what it was made of may be gone
        model = create_model(**description)
    else:
        model, notes = starting_model(config, data)
    _check_sizes(model, config, data)
    return model, notes


def _read_description(run_id: str) -> dict[str, Any] | None:
    """Of the model that a run began with, once its first epoch is kept; None before."""
    folder = run_folder(run_id)
    if not (folder / LAST).exists() or not (folder / ARCHITECTURE).exists():
        return None
    return configuration.load_dict(folder / ARCHITECTURE)


def _create(config: TrainConfig, data: ImageData) -> ImageClassifier:
    standardised = config.variant != "bcos" or config.encoding == "standardised"
    mean, std = data.statistics() if standardised else (None, None)
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
        stem=config.stem,
        logit_bias=config.logit_bias,
        temperature=config.temperature,
        encoding=config.encoding,
        bias=config.bias,
        learn_b=config.exponent.learn,
    )


def _check_sizes(model: ImageClassifier, config: TrainConfig, data: ImageData) -> None:
    """Refuse images that the network cannot take, before a run is opened for them."""
    for height, width in {data.size, data.eval_size}:
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(1, data.channels, height, width))
        except (RuntimeError, InputError) as error:
            small = "" if config.stem else ", or --stem cifar for small ones"
            raise InputError(
                f"--model {config.model}: cannot take images of {height}x{width} pixels "
                f"({str(error).splitlines()[0]}); give others with --image_size{small}"
            ) from None
    model.train()


class _MetricsToRun(lightning.Callback):
    """Hands each epoch's metrics to the tracked run, with the seconds of training until then."""

    def __init__(self, run: TrackedRun, spent: float) -> None:
        self._run = run
        self._spent = spent
        self._began = time.monotonic()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        found["train/seconds"] = self._spent + time.monotonic() - self._began  # a resumed run goes on from here
        found["train/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        self._run.log_metrics(found, trainer.current_epoch + 1)


def check(config: TrainConfig) -> ImageData:
    """Load the data and build the model of a configuration, as :func:`fit` would, and train nothing.

    Raises:
        InputError: If :func:`fit` would refuse them.
    """
    config = _resolve(config)
    return _prepare(config, _load(config)).data


def _train(
    run: TrackedRun | None,
    work: _Work,
    state: pathlib.Path | None,
    console: Console,
    pictures: bool,
    *,
    spent: float = 0.0,
) -> FitResult:
    """Train; then, in the process that has the run, conclude it."""
    config, data, model = work.config, work.data, work.training.model
    with run or nullcontext(), _quiet_lightning():
        first_epoch = 0 if state is None else int(WholeCheckpoints().load_checkpoint(state)["epoch"]) + 1
        work.batches.sampler.start_epoch(first_epoch)  # type: ignore[attr-defined] - before Lightning's first iterator
        trainer = _trainer(run, work, console, spent)
        began = time.monotonic()
        try:
            trainer.fit(work.training, work.batches, work.val_batches, ckpt_path=state)
        except BaseException as error:
            _explain_end(error, run, trainer)
            raise
        seconds = time.monotonic() - began
        if dist.is_initialized():  # what follows is for one process, whose metrics must not wait for others
            dist.destroy_process_group()
        if run is None:
            raise SystemExit(0)
        kept = run.folder / (BEST if config.keep == "best" else LAST)
        weights = WholeCheckpoints().load_checkpoint(kept, map_location="cpu")["state_dict"]
        model.load_state_dict({n.removeprefix("model."): v for n, v in weights.items() if n.startswith("model.")})
        synchronise_batch_norms(model, enabled=False)
        if exponents := work.training.exponents.metrics():  # of the model that is kept: an average, or another epoch's
            run.log_metrics(exponents, config.epochs)
        classifier = TrainedClassifier(
            model, data.classes, data.eval_size, config.data_name, resize=data.eval_resize, loss=config.loss
        )
        run.log_metrics({"train/seconds": spent + seconds}, config.epochs)
        evaluation = conclude(run, config, data, classifier, pictures=pictures)
    done = config.epochs - first_epoch
    stage = "test" if len(data.test) else "val"
    per_second = done * len(data.train) / seconds
    return FitResult(
        run.id, stage, evaluation, classifier, run.folder, seconds, per_second, work.training.exponents.excess()
    )


def _strategy(ranks: Ranks) -> DDPStrategy | str:
    if ranks.size == 1:
        return "auto"
    # running statistics are synchronised where they are made; older versions of torch call the option otherwise
    names = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    options: dict[str, Any] = {buffers: False}
    return DDPStrategy(gradient_as_bucket_view=True, **options)


def _trainer(run: TrackedRun | None, work: _Work, console: Console, spent: float) -> lightning.Trainer:
    options, ranks = work.config.optim, work.ranks
    # two: save_last would write the last state only in epochs that are the best so far
    places = {"dirpath": run and run.folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(filename=pathlib.Path(BEST).stem, monitor="val/loss", **places)
    last = ModelCheckpoint(filename=pathlib.Path(LAST).stem, **places)
    callbacks = [DivergenceWatch(), *([best, last] if work.val_batches else [last])]
    if options.ema:
        callbacks.append(MovingAverage(options.ema, options.ema_every, work.training.warmup_steps))
    if run is not None:
        callbacks += [_MetricsToRun(run, spent), TrainingProgress(console)]
    return lightning.Trainer(
        accelerator=device_of(work.config),
        devices=ranks.devices,
        num_nodes=work.config.nodes,
        strategy=_strategy(ranks),
        use_distributed_sampler=False,
        precision=_PRECISION[work.config.precision],  # type: ignore[arg-type]
        benchmark=device_of(work.config) == "cuda",  # a GPU's products, ours too, are chosen by measurement
        accumulate_grad_batches=options.accumulate,
        max_epochs=work.config.epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[WholeCheckpoints()],
        callbacks=callbacks,
    )


def _explain_end(error: BaseException, run: TrackedRun | None, trainer: lightning.Trainer) -> None:
    """Raise what tells a person how to go on, where there is something to tell."""
    if run is None:
        if isinstance(error, Diverged):  # the first process says so
            raise SystemExit(0) from None
        return
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):  # they would wait for this process
        launcher.kill(signal.SIGKILL)
        launcher.procs.clear()  # or Lightning, seeing them dead, would kill this one
    resume_it = f"bcos-vision train --resume {run.id}"
    if isinstance(error, Diverged):
        kept = f"{run.folder / LAST} is from before: {resume_it}, or " if (run.folder / LAST).exists() else ""
        raise Diverged(f"{error} -- {kept}start again with a smaller --optim.lr or with --optim.agc 0.01") from error
    if isinstance(error, InputError):
        raise InputError(f"{error} -- when that is mended: {resume_it}") from error
    if isinstance(error, SystemExit):  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt(f"go on with: {resume_it}") from None


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's advice is for those who write Trainers."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for text in (
            "does not have many workers",
            "no `val_dataloader`",
            "Checkpoint directory",
            "logging interval",
            "GPU available",
            "isinstance.treespec, LeafSpec",
        ):
            warnings.filterwarnings("ignore", message=f".*{text}")
        yield
