"""Which run a command is about, and what kind of run that is."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bcos_core.run.command import given_options
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

    def check_data(self, fingerprint: str) -> None:
        """Refuse data that is not the run's.

        Raises:
            InputError: If the fingerprints differ.
        """
        if fingerprint != self.fingerprint:
            raise InputError(
                f"{self.config.data} has changed since the run: what was held out then may not be now; train again"
            )

    def refuse_options(self, argv: Sequence[str], of_dynamics: Sequence[str]) -> None:
        """Refuse options that only runs over dynamics have.

        Raises:
            InputError: Naming the first of them that was given to another.
        """
        given = given_options(argv)
        if self.task != "dynamics" and (foreign := [name for name in of_dynamics if name in given]):
            raise InputError(f"--{foreign[0]}: belongs to runs over dynamics; this one is a {self.task}")


def choose_run(run_id: str) -> ChosenRun:
    """Look a run up, with its configuration and its model.

    Raises:
        InputError: If there is no such run, it is another package's, or it did not finish.
    """
    from bcos_core.run.tracking import fetch_artifact, fetch_config, find_run, run_folder

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
    config = fetch_config(record.id, kinds[task])
    file = fetch_artifact(record.id, "model/model.safetensors")
    return ChosenRun(record.id, task, config, file, run_folder(record.id), record.tags["data_fingerprint"])  # type: ignore[arg-type]
