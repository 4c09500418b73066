"""Scikit-learn's digits: 1797 grey images of 8x8 pixels, in the package itself."""

import numpy as np
import torch
from bcos_core.run.config import fingerprint
from bcos_core.run.split import SplitConfig, divide

from .files import Sizes
from .images import ArrayImages, ImageData


def load_digits(split: SplitConfig, sizes: Sizes) -> ImageData:
    """The digits, split and stratified.

    Raises:
        InputError: If they are asked for at another size.
    """
    from sklearn.datasets import load_digits as load

    sizes.require("digits", 8)
    features, labels = load(return_X_y=True)
    # they come as rows of whole numbers from 0 to 16
    pixels = np.rint(np.asarray(features) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    classes = np.asarray(labels)
    images = ArrayImages(torch.from_numpy(pixels), torch.from_numpy(classes).long())
    parts = divide(classes.tolist(), split)
    return ImageData(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        channels=1,
        size=(8, 8),
        train=images.subset(parts.train),
        val=images.subset(parts.val),
        test=images.subset(parts.test),
        fingerprint=fingerprint(pixels.tobytes(), classes.tobytes()),
        eval_size=(8, 8),
    )
