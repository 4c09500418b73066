"""Dynamics: vector fields fitted to trajectories, solved, scored and explained."""

from .config import DynamicsConfig
from .data import DynamicsData, fresh_starts, load_dynamics
from .evaluation import Evaluation, evaluate
from .run import FitResult, fit, prepare

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
