"""Networks, each one definition for all variants."""

from .catalogue import Architecture, architecture, create_model, list_models
from .classifier import ImageClassifier
from .file import TrainedClassifier

__all__ = ["Architecture", "ImageClassifier", "TrainedClassifier", "architecture", "create_model", "list_models"]
