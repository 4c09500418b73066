"""Regression: tables and series whose predictions account for themselves."""

import importlib
from typing import TYPE_CHECKING

from .config import RegressionConfig

if TYPE_CHECKING:
    from .contributions import Contributions, contributions_of
    from .metrics import score
    from .run import RegressionResult, check, evaluate, explain, fit, reference_predictions
    from .tables import Table, divide_table, lag_series, load_table, read_table

__all__ = [
    "Contributions",
    "RegressionConfig",
    "RegressionResult",
    "Table",
    "check",
    "contributions_of",
    "divide_table",
    "evaluate",
    "explain",
    "fit",
    "lag_series",
    "load_table",
    "read_table",
    "reference_predictions",
    "score",
]

_HOMES = {
    "contributions": ("Contributions", "contributions_of"),
    "metrics": ("score",),
    "run": ("RegressionResult", "check", "evaluate", "explain", "fit", "reference_predictions"),
    "tables": ("Table", "divide_table", "lag_series", "load_table", "read_table"),
}


def __getattr__(name: str) -> object:  # torch loads on first use, so that `--help` need not wait for it
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
