"""Training: ``fit`` a configuration, ``resume`` a run."""

from .run import FitResult, fit, resume

__all__ = ["FitResult", "fit", "resume"]
