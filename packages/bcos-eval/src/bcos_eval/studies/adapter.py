"""What a package's training has to offer to be a unit of studies."""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bcos_core.run.error import unknown_name
from bcos_core.run.tracking import RunPlace

from bcos_eval.study import Unit

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class UnitResult:
    """What a finished unit is worth."""

    run_id: str
    metrics: Mapping[str, float]
    """Of the held-out part: "accuracy", "loss", "completeness_error", ..."""
    num_train: int
    num_test: int
    seconds: float
    """Training itself, before an interruption and since."""
    fingerprint: str
    """Of the whole data, however it was divided."""


class Adapter(Protocol):
    """A package's training, as studies see it."""

    @property
    def name(self) -> str: ...

    @property
    def program(self) -> str:
        """The command that trains one of them: "bcos-vision"."""
        ...

    @property
    def config_type(self) -> type[Any]:
        """The package's configuration, a frozen dataclass with a field ``seed``."""
        ...

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that every unit needs, imported once before units branch off."""
        ...

    @property
    def varied(self) -> frozenset[str]:
        """Options that the study sets itself, so that no arm may."""
        ...

    @property
    def shorthands(self) -> Mapping[str, Mapping[str, Any]]:
        """Arms that need no options: "bcos" for {"variant": "bcos"}."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """What a unit reports, first what arms are compared by unless one asks for another."""
        ...

    @property
    def secondary(self) -> tuple[str, ...]:
        """Metrics that are tested beside that one."""
        ...

    @property
    def says(self) -> Mapping[str, str]:
        """What metrics are whose names mean one thing here and another elsewhere."""
        ...

    def recipe(self, name: str | None, data: str | None) -> Any:
        """The configuration of a preset, or of the one that suits the data."""
        ...

    def place(self, config: Any, unit: Unit, folds: int, inner: tuple[int, int] | None = None) -> Any:
        """The configuration of one unit: its fold (of ``folds``, 1 for the data's own split) and seed.

        ``inner`` is (number of inner folds, which of them): the test is then a part of the unit's training samples.
        """
        ...

    def resolve(self, config: Any) -> Any:
        """The configuration with paths made absolute: its units run from wherever their workers were started."""
        ...

    def check(self, configs: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse arms that could not be trained, or not be compared; describe their data.

        Raises:
            InputError: Naming the arm and what is wrong.
        """
        ...

    def run(self, config: Any, place: RunPlace, key: str) -> UnitResult:
        """Train a unit, or go on with it, or read its result if it is finished.

        Args:
            config: Of the unit.
            place: Where its run is kept; among its tags is ``unit_key``.
            key: What that run is found by: its tag ``unit_key``.
        """
        ...

    def predictions(self, run_id: str) -> "tuple[np.ndarray, np.ndarray] | None":
        """True and predicted class of each held-out sample of a finished unit; None where there are no classes."""
        ...

    def draw_explanations(self, runs: Mapping[str, str], path: pathlib.Path) -> str | None:
        """Draw how the models of these runs, an arm each, explain the same held-out samples; returns the caption.

        None where they do not see the samples alike.
        """
        ...


PACKAGES = ("vision", "ode", "ode-regression", "ode-classification")
"""Names of the adapters."""


def load_adapter(package: str) -> Adapter:
    """The adapter of a package.

    Raises:
        InputError: If there is none.
    """
    if package not in PACKAGES:
        raise unknown_name("package", package, PACKAGES)
    if package == "vision":
        from .vision import VisionAdapter

        return VisionAdapter()
    from .ode import make_adapter

    return make_adapter(package)
