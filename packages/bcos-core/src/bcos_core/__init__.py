"""B-cos networks: layers, exact explanations, run keeping.

Submodules load on first use, so that a command can answer ``--help`` without importing torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import explanation, functional, nn, run
    from .explanation import Explanation, explain, explanation_mode

__all__ = ["Explanation", "explain", "explanation", "explanation_mode", "functional", "nn", "run"]


def __getattr__(name: str) -> object:
    if name in ("Explanation", "explain", "explanation_mode"):
        return getattr(importlib.import_module(".explanation", __name__), name)
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
