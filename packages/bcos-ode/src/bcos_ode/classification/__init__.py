"""Classification of images by a network whose depth is time.

Names load on first use: the command line reads the configuration without torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .classifier import OdeClassifier
    from .config import ClassificationConfig
    from .depth import DepthEvidence, depth_evidence
    from .images import ImageData, load_images
    from .run import ClassificationResult, evaluate, explain_test, fit, prepare, resume

_HOMES = {
    "ClassificationConfig": "config",
    "ClassificationResult": "run",
    "DepthEvidence": "depth",
    "ImageData": "images",
    "OdeClassifier": "classifier",
    "depth_evidence": "depth",
    "evaluate": "run",
    "explain_test": "run",
    "fit": "run",
    "load_images": "images",
    "prepare": "run",
    "resume": "run",
}

__all__ = [
    "ClassificationConfig",
    "ClassificationResult",
    "DepthEvidence",
    "ImageData",
    "OdeClassifier",
    "depth_evidence",
    "evaluate",
    "explain_test",
    "fit",
    "load_images",
    "prepare",
    "resume",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
