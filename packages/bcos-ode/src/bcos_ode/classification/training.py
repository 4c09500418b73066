"""The training loop: AdamW down one cycle, over images in memory, from a state that a killed run goes on from."""

import io
import pathlib
import time
from collections.abc import Iterator
from types import TracebackType

import torch
import torch.nn.functional as F
from bcos_core.run.checkpoint import write_atomically
from bcos_core.run.error import InputError
from bcos_core.run.seed import derive_seed
from bcos_core.run.tracking import TrackedRun
from jaxtyping import Float, Int, Shaped
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from .classifier import OdeClassifier
from .config import ClassificationConfig
from .images import ImageData, LabelledImages, to_unit_range

STATE = "last.pt"
_SECONDS_BETWEEN_LINES = 5.0


def classification_loss(logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"]) -> Float[Tensor, ""]:
    """Binary cross-entropy of each logit, averaged over all N K of them, of both variants.

    It asks that the right logit be large, which is what contributions explain (Böhle et al., CVPR 2022, sec. 3.2.3).
    """
    return F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, logits.shape[1]).to(logits.dtype))


def train(model: OdeClassifier, data: ImageData, run: TrackedRun, console: Console, *, spent: float = 0.0) -> float:
    """Train a model on its device, from the run's last state if there is one; returns the seconds of training.

    The state is written after each epoch. Nothing random depends on what ran before: an interrupted training ends as
    it would have ended, on a CPU bit for bit.

    Args:
        model: Of ``model.config``; left in evaluation mode.
        data: Images.
        run: Where metrics go, and the state lies.
        console: Where progress goes.
        spent: Seconds until that state.

    Raises:
        InputError: If the loss is no longer finite, or the state cannot be read or written.
    """
    config = model.config
    optimiser = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
    batches = -(-len(data.train) // config.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=config.epochs * batches)
    parts = {"model": model, "optimiser": optimiser, "schedule": schedule}
    path = run.folder / STATE
    first = 0
    if path.exists():
        state = _read_state(path)
        first = state.pop("epoch")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    began = time.monotonic()
    with _TrainingProgress(console, batches, first, config.epochs) as progress:
        for epoch in range(first, config.epochs):
            loss = _train_epoch(model, data.train, config, epoch, optimiser, schedule, progress)
            metrics = {"train/loss": loss, "train/learning_rate": schedule.get_last_lr()[0]}
            if len(data.val):
                logits = predict(model, data.val, config.batch_size)
                metrics["val/loss"] = float(classification_loss(logits, data.val.labels))
                metrics["val/accuracy"] = accuracy(logits, data.val.labels)
            metrics["train/seconds"] = spent + time.monotonic() - began
            run.log_metrics(metrics, epoch + 1)
            buffer = io.BytesIO()
            torch.save({"epoch": epoch + 1, **{name: part.state_dict() for name, part in parts.items()}}, buffer)
            write_atomically(path, buffer.getbuffer())
            progress.end_epoch(epoch, metrics)
    model.eval()
    return spent + time.monotonic() - began


def _train_epoch(
    model: OdeClassifier,
    images: LabelledImages,
    config: ClassificationConfig,
    epoch: int,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    progress: "_TrainingProgress",
) -> float:
    """Mean loss over the images."""
    device = next(model.parameters()).device
    model.train()
    total = torch.zeros((), device=device)
    for x, labels in epoch_batches(images, config, epoch):
        labels = labels.to(device)
        loss = classification_loss(model(to_unit_range(x.to(device))), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        total += loss.detach() * len(labels)
        progress.end_batch()
    mean = float(total) / len(images)
    if not mean < float("inf"):  # NaN, too
        raise InputError(
            f"the training loss is {mean} in epoch {epoch + 1}; start again with an --lr below {config.lr}"
        )
    return mean


def epoch_batches(
    images: LabelledImages, config: ClassificationConfig, epoch: int
) -> Iterator[tuple[Shaped[Tensor, "n c h w"], Int[Tensor, "n"]]]:
    """Shuffled, changed batches of an epoch: a function of seed and epoch alone."""
    order = torch.Generator().manual_seed(derive_seed(config.seed, "shuffle", epoch))
    change = torch.Generator().manual_seed(derive_seed(config.seed, "augment", epoch))
    for index in torch.randperm(len(images), generator=order).split(config.batch_size):
        batch = images.subset(index)
        x = shifted(batch.images, config.shift, change)
        if config.flip:
            mirrored = torch.rand(len(x), generator=change) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        yield x, batch.labels


def shifted(images: Shaped[Tensor, "n c h w"], most: int, generator: torch.Generator) -> Shaped[Tensor, "n c h w"]:
    """Shift each image by up to ``most`` pixels each way; zeros come in.

    Example:
        >>> shifted(torch.ones(2, 1, 8, 8), 1, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 8, 8])
    """
    if not most:
        return images
    n, _, h, w = images.shape
    padded = F.pad(images, [most] * 4).movedim(1, -1)
    corner = torch.randint(0, 2 * most + 1, (2, n, 1), generator=generator)
    rows, columns = corner[0] + torch.arange(h), corner[1] + torch.arange(w)
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


@torch.no_grad()
def predict(model: OdeClassifier, images: LabelledImages, batch_size: int) -> Float[Tensor, "n k"]:
    """Logits of all images, on the CPU; leaves the model in evaluation mode."""
    device = next(model.parameters()).device
    model.eval()
    return torch.cat([model(to_unit_range(x.to(device))).cpu() for x in images.images.split(batch_size)])


def accuracy(logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"]) -> float:
    """Share of images whose largest logit is that of their class."""
    return (logits.argmax(1) == labels).double().mean().item()


def _read_state(path: pathlib.Path) -> dict:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive, or no archive
        raise InputError(f"{path}: no readable training state ({str(error).splitlines()[0]})") from None


class _TrainingProgress:
    """One bar over all batches on a terminal, a line now and then in a log."""

    def __init__(self, console: Console, batches: int, first_epoch: int, epochs: int) -> None:
        self._console = console
        self._epochs = epochs
        self._first = first_epoch
        self._began = self._last_line = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("left"))
        text = TextColumn("{task.fields[metrics]}")
        self._bar = Progress(*columns, TimeRemainingColumn(), text, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(
            f"epoch {first_epoch + 1}/{epochs}", total=batches * epochs, completed=batches * first_epoch, metrics=""
        )

    def __enter__(self) -> "_TrainingProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def end_batch(self) -> None:
        self._bar.advance(self._task)

    def end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        names = {"train/loss": "loss", "val/accuracy": "val accuracy"}
        text = "  ".join(f"{label} {metrics[name]:.4f}" for name, label in names.items() if name in metrics)
        done = epoch + 1
        self._bar.update(self._task, description=f"epoch {min(done + 1, self._epochs)}/{self._epochs}", metrics=text)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (now - self._began) / (done - self._first) * (self._epochs - done)
            line = f"epoch {done}/{self._epochs}  {text}  about {left:.0f} s left"
            self._console.print(line, highlight=False)
