"""Dynamics: vector fields fitted to trajectories, solved, scored and explained.

Names load on first use: the command line reads the configuration without torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import DynamicsConfig
    from .data import DynamicsData, fresh_starts, load_dynamics
    from .evaluation import Evaluation, evaluate
    from .run import FitResult, fit, prepare

_HOMES = {
    "DynamicsConfig": "config",
    "DynamicsData": "data",
    "Evaluation": "evaluation",
    "FitResult": "run",
    "evaluate": "evaluation",
    "fit": "run",
    "fresh_starts": "data",
    "load_dynamics": "data",
    "prepare": "run",
}

__all__ = [
    "DynamicsConfig",
    "DynamicsData",
    "Evaluation",
    "FitResult",
    "evaluate",
    "fit",
    "fresh_starts",
    "load_dynamics",
    "prepare",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
