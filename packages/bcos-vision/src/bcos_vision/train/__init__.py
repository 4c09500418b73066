"""Training: ``fit`` a configuration, ``resume`` a run."""

from .result import FitResult
from .run import check, fit, resume

__all__ = ["FitResult", "check", "fit", "resume"]
