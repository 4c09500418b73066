"""One unit, in a process of its own: what it does to memory and how it ends stay with it."""

import dataclasses
import os
import pathlib
import sys
import threading
import traceback
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any

from bcos_core.run import config as configuration
from bcos_core.run.error import InputError
from bcos_core.run.tracking import RunPlace

from .studies.adapter import load_adapter
from .study import Study, Unit


def run_unit(study: Study, unit: Unit, inner: tuple[int, int, dict[str, Any]] | None = None) -> dict[str, Any]:
    """Train a unit and return its result as plain values.

    Args:
        study: Its study.
        unit: Which unit.
        inner: For a trial inside the unit's training samples: number of inner folds, which of them, options.
    """
    adapter = load_adapter(study.package)
    values = dict(study.arms[unit.arm])
    tags = {"study": study.name, "repeat": str(unit.repeat), "unit": unit.id, "arm_name": unit.arm}
    arm, experiment, part = unit.arm, study.experiment, None
    if inner is not None:
        folds, fold, options = inner
        values = overlay(values, options)
        part = (folds, fold)
        experiment, arm = f"{study.experiment}/search", ", ".join(f"{k}={v}" for k, v in sorted(options.items()))
        tags["unit"] = f"{unit.id}-{configuration.fingerprint(repr(sorted(options.items())))}-i{fold}"
    config = adapter.place(configuration.from_dict(adapter.config_type, values), unit, study.design.folds, part)
    result = adapter.run(config, RunPlace(experiment, arm, tags), tags["unit"])
    return dataclasses.asdict(result)


def overlay(values: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Nested values with dotted options put over them."""
    changed = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    for name, value in options.items():
        *groups, last = name.split(".")
        place = changed
        for group in groups:
            place = place[group]
        place[last] = value
    return changed


def unit_process(
    study: dict[str, Any],
    unit: dict[str, Any],
    inner: tuple[int, int, dict[str, Any]] | None,
    environment: dict[str, str],
    log: str,
    answer: Connection,
) -> None:
    """Entry point of the process: answers ("done", result) or ("failed", reason)."""
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()  # a killed worker's unit ends
    os.environ.update(environment)
    pathlib.Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    try:
        answer.send(("done", run_unit(Study.from_dict(study), Unit(**unit), inner)))
    except InputError as error:
        answer.send(("failed", str(error)))
    except KeyboardInterrupt:
        answer.send(("failed", "interrupted"))
    except BaseException as error:
        traceback.print_exc()
        answer.send(("failed", f"{type(error).__name__}: {error}; see {log}"))
