"""Scikit-learn's digits: 1797 grey images of 8x8 pixels, in the package itself."""

import numpy as np
import torch
from bcos_core.run.config import fingerprint
from bcos_core.run.split import stratified_split

from bcos_vision.config import SplitConfig

from .images import ArrayImages, ImageData


def load_digits(split: SplitConfig) -> ImageData:
    """The digits, split and stratified."""
    from sklearn.datasets import load_digits as load

    found = load()
    pixels = np.rint(found.images * (255 / 16)).astype(np.uint8)  # they come as whole numbers from 0 to 16
    images = ArrayImages(torch.from_numpy(pixels)[:, None], torch.from_numpy(found.target).long())
    parts = stratified_split(found.target, test=split.test, val=split.val, seed=split.seed)
    return ImageData(
        name="digits",
        classes=tuple(str(name) for name in found.target_names),
        channels=1,
        size=(8, 8),
        train=images.subset(parts.train),
        val=images.subset(parts.val),
        test=images.subset(parts.test),
        fingerprint=fingerprint(pixels.tobytes(), found.target.tobytes()),
    )
