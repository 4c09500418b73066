"""What a person sees while it trains: one bar over all epochs on a terminal, a line now and then in a log."""

import time

import lightning
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 5.0


class TrainingProgress(lightning.Callback):
    """Shows epoch, loss, validation accuracy and the time that is left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._began = 0.0
        self._last_line = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._began = self._last_line = time.monotonic()
        self._first_step = trainer.global_step
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=self._console,
        )
        self._bar.start()
        total = int(trainer.estimated_stepping_batches)
        self._task = self._bar.add_task(self._epoch(trainer), total=total, completed=trainer.global_step, metrics="")

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, description=self._epoch(trainer))
        elif time.monotonic() - self._last_line > 6 * _SECONDS_BETWEEN_LINES:  # an epoch of minutes
            self._line(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(self._task, metrics=self._metrics(trainer))
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._line(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._stop()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, trainer: lightning.Trainer) -> None:
        self._last_line = time.monotonic()
        total = int(trainer.estimated_stepping_batches)
        done = trainer.global_step - self._first_step
        left = (self._last_line - self._began) / max(1, done) * (total - trainer.global_step)
        self._console.print(
            f"{self._epoch(trainer)}  {self._metrics(trainer)}  about {left:.0f} s left", highlight=False
        )

    @staticmethod
    def _epoch(trainer: lightning.Trainer) -> str:
        return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"

    @staticmethod
    def _metrics(trainer: lightning.Trainer) -> str:
        names = {"train/loss": "loss", "val/accuracy": "val accuracy", "b/mean": "B"}
        found = trainer.callback_metrics
        return "  ".join(f"{label} {float(found[name]):.4f}" for name, label in names.items() if name in found)
