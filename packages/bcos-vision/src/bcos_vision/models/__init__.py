"""Networks, each one definition for all variants."""

from .catalogue import Alias, Architecture, aliases, architecture, create_model, list_models, replace_head
from .classifier import ImageClassifier
from .file import TrainedClassifier

__all__ = [
    "Alias",
    "Architecture",
    "ImageClassifier",
    "TrainedClassifier",
    "aliases",
    "architecture",
    "create_model",
    "list_models",
    "replace_head",
]
