"""One training, in a process of its own: what it does to memory and how it ends stay with it."""

import dataclasses
import os
import pathlib
import sys
import threading
import time
import traceback
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any

from bcos_core.run import config as configuration
from bcos_core.run.error import InputError
from bcos_core.run.tracking import RunPlace

from .studies.adapter import load_adapter
from .study import Job


def run_job(job: Job) -> dict[str, Any]:
    """Train, and return the result as plain values, with the seconds that all of it took.

    Raises:
        InputError: If it cannot be trained.
    """
    began = time.monotonic()
    adapter = load_adapter(job.package)
    config = configuration.from_dict(adapter.config_type, dict(job.values))
    key = f"{job.key}/{job.id}"
    place = RunPlace(job.experiment, job.arm, {**job.tags, "unit_key": key})
    result = adapter.run(adapter.place(config, job.unit, job.folds, job.inner), place, key)
    if job.fingerprint and result.fingerprint != job.fingerprint:
        raise InputError("the data has changed since the study was planned; start a new study")
    return {**dataclasses.asdict(result), "run_seconds": time.monotonic() - began}


def unit_process(job: Job, environment: dict[str, str], log: str, answer: Connection) -> None:
    """Entry point of the process: answers ("done", result) or ("failed", reason)."""
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()  # a killed worker's unit ends
    os.environ.update(environment)
    try:
        _write_to(log)
        answer.send(("done", run_job(job)))
    except InputError as error:
        answer.send(("failed", str(error)))
    except KeyboardInterrupt:
        answer.send(("interrupted", ""))
    except BaseException as error:
        traceback.print_exc()
        answer.send(("failed", f"{type(error).__name__}: {error}; see {log}"))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # taking all those modules down again would take a noticeable part of a short training


def _write_to(log: str) -> None:
    """Send what the process prints to its log."""
    try:
        pathlib.Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", buffering=1) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    except OSError as error:
        raise InputError(f"{log}: cannot write there ({error.strerror})") from None
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
