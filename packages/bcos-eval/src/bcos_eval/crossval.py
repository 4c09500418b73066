"""A study from its units to its answer: workers are started and watched, scores are gathered and tested."""

import contextlib
import glob
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from bcos_core.run.command import terminable
from bcos_core.run.error import InputError
from bcos_core.run.server import SAFE_PATH, tracking_server
from bcos_core.run.tracking import prepare_experiment
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .queue import QUEUE_VARIABLE, UnitQueue, UnitState
from .scores import UNIT_COLUMNS, ScoreTable
from .study import Study, study_folder
from .worker import Stopped

_POLL_SECONDS = 1.0
_SECONDS_BETWEEN_LINES = 15.0
_MAX_RESTARTS = 3


@dataclass(frozen=True)
class Timing:
    """What a study took."""

    wall_seconds: float
    """From the first worker's start until the last unit was done, by this command."""
    training_seconds: float
    """Of all training loops together, as each measured itself."""
    run_seconds: float
    """Of all runs together: with data, evaluation and tracking, as each would take without a study."""
    num_workers: int
    num_units: int
    """Units that were done in that time."""


def run_workers(queue: UnitQueue, location: str, *, workers: int, command: str, console: Console) -> Timing:
    """Start workers on a study and watch until every unit is done or has failed.

    A worker that is killed is started again; its unit goes on where its last epoch ended.

    Args:
        queue: The study's queue.
        location: Where it is, for the workers.
        workers: How many; the machine's cores, and its GPUs, are shared out among them.
        command: Of bcos-eval, that goes on with it.
        console: Where progress goes.

    Raises:
        InputError: If workers cannot be started.
        KeyboardInterrupt: On Ctrl-C, or Stopped on SIGTERM, after the workers have given their units back.
    """
    study, states = queue.plan, queue.states()
    if all(s.state in ("done", "failed") for s in states):  # nothing to start workers and a server for
        return Timing(0.0, 0.0, 0.0, workers, 0)
    before = {s.unit.id for s in states if s.state == "done"}
    prepare_experiment(study.experiment)
    if isinstance(study, Study) and study.search is not None:
        prepare_experiment(f"{study.experiment}/search")
    began = time.monotonic()
    # the workers find the server, or wait for it
    with terminable(Stopped), _Fleet(study.name, location, workers) as fleet, tracking_server():
        _watch(queue, fleet, command, console)
    wall = time.monotonic() - began
    done = [s for s in queue.states() if s.state == "done" and s.unit.id not in before]
    training, runs = (sum(s.result.get(name, 0.0) for s in done) for name in ("seconds", "run_seconds"))
    return Timing(wall, training, runs, workers, len(done))


class _Fleet:
    """The worker processes of this command."""

    def __init__(self, name: str, location: str, count: int) -> None:
        self._command = [sys.executable, "-m", "bcos_eval.cli", "worker", name]
        # not on the command line, which everybody on the machine can read: it may hold a password
        common = {**os.environ, **SAFE_PATH, QUEUE_VARIABLE: location}
        self._environments = [{**common, **share} for share in _shares(count)]
        self._log = study_folder(name) / "logs"
        self._log.mkdir(parents=True, exist_ok=True)
        self._restarts = [0] * count
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "_Fleet":
        self._processes = [self._start(i) for i in range(len(self._environments))]
        return self

    def _start(self, i: int) -> "subprocess.Popen[bytes]":
        with open(self._log / f"worker-{i}.log", "ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environments[i],
                start_new_session=True,  # Ctrl-C is for this command, which ends them in order
            )

    def mend(self) -> list[str]:
        """Start killed workers again; returns what there is to tell."""
        said = []
        for i, process in enumerate(self._processes):
            code = process.poll()
            if not code or self._restarts[i] > _MAX_RESTARTS:
                continue
            self._restarts[i] += 1
            if self._restarts[i] <= _MAX_RESTARTS:
                said.append(f"worker {i} ended with code {code}: started again, its unit goes on{self._why(i, code)}")
                self._processes[i] = self._start(i)
            else:
                said.append(f"worker {i} ended {self._restarts[i]} times and stays ended; see {self._log}")
        return said

    def _why(self, i: int, code: int) -> str:
        lines = (self._log / f"worker-{i}.log").read_text(errors="replace").strip().splitlines()
        return f" ({lines[-1]})" if code > 0 and lines else ""

    @property
    def alive(self) -> bool:
        return any(process.poll() is None for process in self._processes)

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _num_cores() -> int:
    """Cores that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shares(count: int) -> list[dict[str, str]]:
    """Each worker's part of the machine, as variables of its environment."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, _num_cores() // count))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count_gpus = len(glob.glob("/proc/driver/nvidia/gpus/*"))
    gpus = [g for g in visible.split(",") if g] if visible is not None else [str(i) for i in range(count_gpus)]
    shares = [{"OMP_NUM_THREADS": threads} for _ in range(count)]
    for i, share in enumerate(shares):
        if gpus:
            share["CUDA_VISIBLE_DEVICES"] = gpus[i % len(gpus)]
    return shares


def _watch(queue: UnitQueue, fleet: _Fleet, command: str, console: Console) -> None:
    total, began, last_line = len(queue.plan.units()), time.monotonic(), 0.0
    done_before = sum(s.state == "done" for s in queue.states())
    told: set[str] = set()
    with _bar(console, total) as bar:
        while True:
            queue.recover()
            states = queue.states()
            counts = {kind: sum(s.state == kind for s in states) for kind in ("waiting", "running", "done", "failed")}
            left = _time_left(counts, done_before, time.monotonic() - began)
            text = f"{counts['running']} at work" + (f", {counts['failed']} failed" if counts["failed"] else "") + left
            if bar is not None:
                bar.update(bar.task_ids[0], completed=counts["done"] + counts["failed"], text=text)
            elif time.monotonic() - last_line > _SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                console.print(f"units {counts['done']}/{total} done, {text}", highlight=False, markup=False)
            news = [f"unit {s.unit.id} failed: {s.reason}" for s in states if s.state == "failed"]
            for line in [*(n for n in news if n not in told), *fleet.mend()]:
                told.add(line)
                console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
            if not counts["waiting"] and not counts["running"]:
                return
            if not fleet.alive:
                raise InputError(
                    f"no worker is left, {counts['waiting'] + counts['running']} units are; "
                    f"bcos-eval {command} --resume {queue.plan.name} goes on"
                )
            time.sleep(_POLL_SECONDS)


def _time_left(counts: dict[str, int], done_before: int, elapsed: float) -> str:
    done = counts["done"] - done_before
    if not done:
        return ""
    seconds = elapsed / done * (counts["waiting"] + counts["running"] / 2)
    return f", about {seconds / 60:.0f} min left" if seconds > 90 else f", about {seconds:.0f} s left"


@contextlib.contextmanager
def _bar(console: Console, total: int) -> Iterator[Progress | None]:
    """One bar over all units on a terminal; None in a log."""
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("units"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=console) as bar:
        bar.add_task("units", total=total, text="")
        yield bar


def score_table(study: Study, states: Sequence[UnitState]) -> ScoreTable:
    """The scores of the units that are done.

    Raises:
        InputError: If none is.
    """
    rows = []
    for state in states:
        if state.state == "done":
            unit, r = state.unit, state.result
            own = (
                unit.arm,
                unit.repeat,
                unit.fold,
                unit.seed,
                r["num_train"],
                r["num_test"],
                r["seconds"],
                r["run_id"],
            )
            rows.append(dict(zip(UNIT_COLUMNS, own, strict=True)) | dict(r["metrics"]))
    if not rows:
        reasons = {s.reason for s in states if s.state == "failed"}
        raise InputError(f"no unit of {study.name} is done: {'; '.join(sorted(reasons)) or 'none has run'}")
    return ScoreTable(pd.DataFrame(rows), study.design)
