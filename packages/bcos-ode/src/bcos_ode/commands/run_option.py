"""Which run a command is about, and what kind of run that is."""

import pathlib
from dataclasses import dataclass
from typing import Any, Literal

from bcos_core.run.error import InputError

Task = Literal["dynamics", "regression", "classification"]


@dataclass(frozen=True)
class ChosenRun:
    """A finished run of this package."""

    id: str
    task: Task
    config: Any
    """Its configuration, of the task's own type."""
    model_file: pathlib.Path
    folder: pathlib.Path
    fingerprint: str
    """Of its data."""


def choose_run(run_id: str) -> ChosenRun:
    """Look a run up, with its configuration and its model.

    Raises:
        InputError: If there is no such run, it is another package's, or it did not finish.
    """
    from bcos_core.run import config as configuration
    from bcos_core.run.tracking import fetch_artifact, find_run, run_folder

    from bcos_ode.classification.config import ClassificationConfig
    from bcos_ode.dynamics.config import DynamicsConfig
    from bcos_ode.regression.config import RegressionConfig

    kinds: dict[str, type[Any]] = {
        "dynamics": DynamicsConfig,
        "regression": RegressionConfig,
        "classification": ClassificationConfig,
    }
    record = find_run(run_id)
    task = record.tags.get("task")
    if task not in kinds:
        raise InputError(f"run {record.id} is none of bcos-ode train; bcos-vision has commands for its own")
    config = configuration.from_dict(kinds[task], configuration.load_dict(fetch_artifact(record.id, "config.json")))
    file = fetch_artifact(record.id, "model/model.safetensors")
    return ChosenRun(record.id, task, config, file, run_folder(record.id), record.tags["data_fingerprint"])  # type: ignore[arg-type]
