"""A worker: takes units from a study's queue and runs each in a process of its own, until nothing is left.

Processes branch off a server that has imported everything once (multiprocessing's forkserver).
"""

import contextlib
import multiprocessing
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from bcos_core.run.error import InputError

from .queue import GRACE_SECONDS, Attempt, UnitQueue
from .studies.adapter import load_adapter
from .study import Study, Unit, study_folder
from .unit import unit_process

_POLL_SECONDS = 0.5


class Stopped(BaseException):
    """The worker was asked to end (SIGTERM)."""


class UnitFailed(Exception):
    """A unit's process ended without a result."""


class Worker:
    """Runs units of one study.

    Args:
        queue: The study's queue.
        environment: Set in every unit's process (where its runs are kept, say).
    """

    def __init__(self, queue: UnitQueue, environment: dict[str, str]) -> None:
        self._queue = queue
        self._environment = environment
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(load_adapter(queue.study.package).preload))

    def work(self, on_done: Callable[[Unit], None] = lambda unit: None) -> int:
        """Run units until none is left, also waiting for those of others; returns how many were done here.

        Raises:
            Stopped: On SIGTERM, after the unit at work was given back.
        """
        done = 0
        with _terminable():
            while True:
                if (attempt := self._queue.claim()) is not None:
                    done += self._run(attempt)
                    on_done(attempt.unit)
                elif any(s.state in ("waiting", "running") for s in self._queue.states()):
                    time.sleep(2 * _POLL_SECONDS)  # another's unit may come back
                else:
                    return done

    def _run(self, attempt: Attempt) -> bool:
        study = self._queue.study
        try:
            if study.search is not None:
                from .tune import run_nested

                result = run_nested(self, attempt)
            else:
                result = self.run_process(attempt)
        except UnitFailed as error:
            self._queue.fail(attempt, str(error))
            return False
        except BaseException:
            self._queue.release(attempt)
            raise
        return self._queue.complete(attempt, result)

    def run_process(self, attempt: Attempt, inner: tuple[int, int, dict[str, Any]] | None = None) -> dict[str, Any]:
        """Run one training of an attempt to its end.

        Raises:
            UnitFailed: If it failed or crashed; the message says how.
        """
        study, unit = self._queue.study, attempt.unit
        log = study_folder(study.name) / "logs" / f"{unit.id}.log"
        here, there = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=unit_process,
            args=(study.to_dict(), asdict(unit), inner, self._environment, str(log), there),
            daemon=False,
        )
        process.start()
        there.close()
        try:
            answer = self._wait(process, here, attempt)
        except BaseException:
            process.terminate()
            process.join(10)
            process.kill()
            raise
        process.join()
        if answer is None:
            raise UnitFailed(f"its process ended with {_ending(process.exitcode)}; see {log}")
        kind, value = answer
        if kind == "failed":
            raise UnitFailed(value)
        return value

    def _wait(
        self, process: multiprocessing.process.BaseProcess, answers: Any, attempt: Attempt
    ) -> tuple[str, Any] | None:
        last = time.monotonic()
        while True:
            try:
                if answers.poll(_POLL_SECONDS):
                    return answers.recv()
            except EOFError:
                return None
            if time.monotonic() - last > GRACE_SECONDS / 6:
                self._queue.beat(attempt)
                last = time.monotonic()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"signal {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"code {code}"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise Stopped

    found = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, found)


def unit_environment(uri: str) -> dict[str, str]:
    """What a unit's process needs to know of where it is."""
    return {"MLFLOW_TRACKING_URI": uri, "PWD": str(pathlib.Path.cwd())} | (
        {"CUDA_VISIBLE_DEVICES": os.environ["CUDA_VISIBLE_DEVICES"]} if "CUDA_VISIBLE_DEVICES" in os.environ else {}
    )


def check_folder(study: Study) -> None:
    """Make the study's folder.

    Raises:
        InputError: If it cannot be written.
    """
    try:
        study_folder(study.name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{study_folder(study.name)}: cannot write there ({error.strerror})") from None
