"""Presets: functions that return a configuration."""

from .config import ClassificationConfig


def digits() -> ClassificationConfig:
    """Scikit-learn's 8x8 digits, in some forty seconds of one core."""
    return ClassificationConfig()


def cifar10() -> ClassificationConfig:
    """CIFAR-10 in class folders (data "folder:PATH"): 64 channels, and the field at 8x8 of 32x32 pixels."""
    return ClassificationConfig(
        data="folder:", channels=64, halvings=2, epochs=60, batch_size=64, lr=5e-3, shift=4, flip=True
    )
