"""A worker: takes units from a study's queue and runs each in a process of its own, until nothing is left.

Processes branch off a server that has imported everything once (multiprocessing's forkserver).
"""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

from bcos_core.run.command import terminable
from bcos_core.run.error import InputError

from .queue import GRACE_SECONDS, Attempt, UnitQueue
from .studies.adapter import load_adapter
from .study import Job, Plan, Tuning, Unit, study_folder
from .tune import UnitFailed, run_nested, run_trial
from .unit import unit_process

_POLL_SECONDS = 0.5


class Stopped(BaseException):
    """This process was asked to end."""


class Lost(Exception):
    """The attempt was taken for dead, and is another's now."""


class Worker:
    """Runs units of one study.

    Args:
        queue: The study's queue.
    """

    def __init__(self, queue: UnitQueue) -> None:
        self._queue = queue
        self._environment: dict[str, str] = {}
        # a process that has loaded system libraries may not branch on macOS
        self._context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":
            self._context.set_forkserver_preload(list(load_adapter(queue.plan.package).preload))
            forkserver.ensure_running()  # it imports while this process sees to other things

    def work(self, environment: dict[str, str], on_done: Callable[[Unit], None]) -> int:
        """Run units until none is left, also waiting for those of others; returns how many were done here.

        Args:
            environment: Set in every unit's process: where its runs are kept.
            on_done: Called after each unit.

        Raises:
            Stopped: On SIGTERM, after the unit at work was given back.
        """
        self._environment = environment
        done = 0
        with terminable(Stopped):
            while True:
                if (attempt := self._queue.claim()) is not None:
                    done += self._run(attempt)
                    on_done(attempt.unit)
                elif any(s.state in ("waiting", "running") for s in self._queue.states()):
                    time.sleep(2 * _POLL_SECONDS)  # another's unit may come back
                else:
                    return done

    def _run(self, attempt: Attempt) -> bool:
        plan = self._queue.plan
        try:
            if isinstance(plan, Tuning):
                result = run_trial(self._queue, attempt, lambda job: self._train(job, attempt))
            elif plan.search is not None:
                result = run_nested(plan, attempt.unit, lambda job: self._train(job, attempt))
            else:
                result = self._train(plan.job(attempt.unit), attempt)
        except UnitFailed as error:
            self._queue.fail(attempt, str(error))
            return False
        except Lost:
            return False
        except BaseException:
            self._queue.release(attempt)
            raise
        return self._queue.complete(attempt, result)

    def _train(self, job: Job, attempt: Attempt) -> dict[str, Any]:
        """Run one training of an attempt to its end, in a process of its own.

        Raises:
            UnitFailed: If it failed or crashed; the message says how.
        """
        log = study_folder(self._queue.plan.name) / "logs" / f"{job.id}.log"
        here, there = self._context.Pipe(duplex=False)
        process = self._context.Process(target=unit_process, args=(job, self._environment, str(log), there))
        process.start()
        there.close()
        try:
            answer = self._wait(here, attempt)
        except BaseException:
            process.terminate()
            process.join(10)
            process.kill()
            raise
        process.join()
        kind: str
        value: Any
        kind, value = answer or ("ended", process.exitcode)
        if kind == "interrupted" or (kind == "ended" and value == -signal.SIGTERM):
            raise Stopped  # everything here is being ended, this worker next
        if kind != "done":
            raise UnitFailed(str(value) if kind == "failed" else f"its process ended with {_ending(value)}; see {log}")
        return value

    def _wait(self, answers: Any, attempt: Attempt) -> tuple[str, Any] | None:
        last = time.monotonic()
        while True:
            try:
                if answers.poll(_POLL_SECONDS):
                    return answers.recv()
            except EOFError:
                return None
            if time.monotonic() - last > GRACE_SECONDS / 6:
                if not self._queue.beat(attempt):
                    raise Lost
                last = time.monotonic()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"signal {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"code {code}"


def make_folder(plan: Plan) -> None:
    """Make the study's folder.

    Raises:
        InputError: If it cannot be written.
    """
    try:
        study_folder(plan.name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{study_folder(plan.name)}: cannot write there ({error.strerror})") from None
