"""Attribution methods behind one protocol."""

from .attributor import Attribution, Attributor
from .baseline import Baseline
from .catalogue import METHODS, Method, create_attributor
from .coincidence import coincidences
from .preflight import PreflightReport, preflight

__all__ = [
    "METHODS",
    "Attribution",
    "Attributor",
    "Baseline",
    "Method",
    "PreflightReport",
    "coincidences",
    "create_attributor",
    "preflight",
]
