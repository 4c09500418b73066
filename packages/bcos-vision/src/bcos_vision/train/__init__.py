"""Training: ``fit`` a configuration, ``resume`` a run."""

from .fit import FitResult, fit, resume

__all__ = ["FitResult", "fit", "resume"]
