"""Small real-looking data."""

import pathlib

import numpy as np
import pytest
from PIL import Image


def write_images(folder: pathlib.Path, classes: dict[str, int], *, side: int = 8, grey: bool = False, seed: int = 0):
    """Class folders of noisy images that a classifier can tell apart: each class is bright in a place of its own."""
    rng = np.random.default_rng(seed)
    for k, (name, count) in enumerate(sorted(classes.items())):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 120, (side, side, 3))
            pixels[k * 2 : k * 2 + 2] += 130
            image = Image.fromarray(pixels.astype(np.uint8))
            (image.convert("L") if grey else image).save(folder / name / f"{i:03}.png")


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """train/ and val/ with two classes of 8x8 RGB images."""
    root = tmp_path_factory.mktemp("images") / "stripes"
    write_images(root / "train", {"ant": 30, "bee": 30})
    write_images(root / "val", {"ant": 8, "bee": 8}, seed=1)
    return root


@pytest.fixture
def writer():
    return write_images
