"""B-cos networks: layers, exact explanations, run keeping.

Submodules load on first use, so that a command can answer ``--help`` without importing torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import convert, explanation, functional, nn, run
    from .convert import bcosify
    from .explanation import Explanation, explain, explanation_mode

__all__ = [
    "Explanation",
    "bcosify",
    "convert",
    "explain",
    "explanation",
    "explanation_mode",
    "functional",
    "nn",
    "run",
]


def __getattr__(name: str) -> object:
    if name in ("Explanation", "explain", "explanation_mode"):
        return getattr(importlib.import_module(".explanation", __name__), name)
    if name == "bcosify":
        return importlib.import_module(".convert", __name__).bcosify
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
