"""B-cos image classifiers: build, train, evaluate, explain."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models import create_model, list_models

__all__ = ["create_model", "list_models"]


def __getattr__(name: str) -> object:  # torch loads on first use, so that `--help` need not wait for it
    if name in __all__:
        return getattr(importlib.import_module(".models", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
