"""Training: ``fit`` a configuration, ``resume`` a run."""

from .result import FitResult
from .run import fit, resume

__all__ = ["FitResult", "fit", "resume"]
