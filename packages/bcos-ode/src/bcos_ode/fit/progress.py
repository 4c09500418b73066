"""What a person sees while something is fitted: a bar for each stage on a terminal, a line now and then in a log."""

import time
from types import TracebackType

from bcos_core.run.tracking import TrackedRun
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_VALUES = 0.5  # that are kept of a curve


class FitProgress:
    """A report for :func:`bcos_ode.fit.network.fit_network` and its like; keeps the curves in a run.

    Args:
        stages: Each stage's name and its number of steps, in order.
        console: Where it is shown.
        run: Where losses are logged, as "train/STAGE".
    """

    def __init__(self, stages: dict[str, int], console: Console, run: TrackedRun | None = None) -> None:
        self._stages = stages
        self._console = console
        self._run = run
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._stage = ""
        self._began = self._last_seen = self._last_line = self._last_value = time.monotonic()

    def __enter__(self) -> "FitProgress":
        if self._console.is_terminal:
            columns = (TextColumn("{task.description:<14}"), BarColumn(), TaskProgressColumn(), TextColumn("left"))
            self._bar = Progress(
                *columns, TimeRemainingColumn(), TextColumn("{task.fields[text]}"), console=self._console
            )
            self._tasks = {n: self._bar.add_task(n, total=count, text="") for n, count in self._stages.items()}
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, step: int, loss: float) -> None:
        now = time.monotonic()
        total = self._stages[stage]
        if stage != self._stage:  # steps of one cost many times those of another
            self._stage, self._began = stage, self._last_seen
        self._last_seen = now
        if self._run is not None and (now - self._last_value > _SECONDS_BETWEEN_VALUES or step >= total):
            self._last_value = now
            self._run.log_metrics({f"train/{stage.replace(' ', '_')}": loss}, step)
        if self._bar is not None:
            self._bar.update(self._tasks[stage], completed=step, text=f"loss {loss:.2e}")
        elif now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (now - self._began) / max(1, step) * (total - step)
            text = f"{stage} {step}/{total}  loss {loss:.2e}  about {left:.0f} s left of it"
            self._console.print(text, highlight=False, markup=False)
