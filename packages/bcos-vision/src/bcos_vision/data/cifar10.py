"""CIFAR-10 as it was published: 60,000 photographs of 32x32 pixels in ten classes."""

import pathlib

import torch
from bcos_core.run.config import fingerprint
from bcos_core.run.error import InputError
from bcos_core.run.split import SplitConfig, divide

from .files import Sizes
from .images import ArrayImages, ImageData


def load_cifar10(root: pathlib.Path, split: SplitConfig, sizes: Sizes) -> ImageData:
    """CIFAR-10, downloaded into ``root`` where it is not there; a share of its training images is for validation, and a
    fold of them for the test where there are folds.

    Raises:
        InputError: If it can be neither found nor downloaded, or is asked for at another size.
    """
    from torchvision.datasets import CIFAR10

    sizes.require("cifar10", 32)
    try:
        train, test = (CIFAR10(root, train=part, download=True) for part in (True, False))
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise InputError(f"cifar10: cannot be downloaded ({error}); put cifar-10-python.tar.gz into {root}") from None
    pixels, tests = (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in (train, test))
    images = ArrayImages(pixels, torch.tensor(train.targets))
    shares = divide(train.targets, split, own_test=True)
    return ImageData(
        name="cifar10",
        classes=tuple(train.classes),
        channels=3,
        size=(32, 32),
        train=images.subset(shares.train),
        val=images.subset(shares.val),
        test=images.subset(shares.test) if split.has_folds else ArrayImages(tests, torch.tensor(test.targets)),
        fingerprint=fingerprint(*(part.numpy().tobytes() for part in (pixels, images.labels, tests))),
        eval_size=(32, 32),
    )
