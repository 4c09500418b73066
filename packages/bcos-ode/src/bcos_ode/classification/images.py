"""Labelled images in memory, as bytes: digits, or class folders."""

import itertools
import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bcos_core.run.config import fingerprint
from bcos_core.run.error import InputError, unknown_name
from bcos_core.run.split import SplitConfig, divide
from jaxtyping import Float, Int, UInt8
from rich.console import Console
from rich.progress import track
from torch import Tensor


@dataclass(frozen=True)
class LabelledImages:
    """A set of images."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int] | np.ndarray | Tensor) -> "LabelledImages":
        """The images at these indices, in this order."""
        index = torch.as_tensor(indices, dtype=torch.long)
        return LabelledImages(self.images.index_select(0, index), self.labels[index])


@dataclass(frozen=True)
class ImageData:
    """A data set, split."""

    classes: tuple[str, ...]
    train: LabelledImages
    val: LabelledImages
    """Scored after each epoch; may be empty."""
    test: LabelledImages
    """Scored once, after training; may be empty."""
    fingerprint: str
    """Changes when an image or a label does."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        c, h, w = self.train.images.shape[1:]
        return c, h, w

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel in [0, 1], over training images."""
        levels = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in self.train.images.unbind(1)])
        share = counts.double() / counts.sum(1, keepdim=True)
        mean = share @ levels
        return mean.tolist(), (share @ levels**2 - mean**2).clamp(min=1e-12).sqrt().tolist()


def to_unit_range(images: UInt8[Tensor, "n c h w"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "n c h w"]:
    """Bytes to [0, 1]."""
    return images.to(dtype) / 255


def load_images(data: str, split: SplitConfig) -> ImageData:
    """Read a set of images into memory, and split it.

    Args:
        data: "digits"; or "folder:PATH", of a folder with ``train/`` and ``test/`` or ``val/`` that hold a folder for
            each class, or of class folders alone. ``val`` is the test where there is no ``test``.
        split: Shares or folds, for what the folders do not split themselves.

    Raises:
        InputError: If there is no such data, an image cannot be read, sizes differ, or a class is too small.

    Example:
        >>> data = load_images("digits", SplitConfig())
        >>> data.shape, len(data.train), len(data.val), len(data.test)
        ((1, 8, 8), 1293, 144, 360)
    """
    kind, _, path = data.partition(":")
    if kind == "digits" and not path:
        classes, parts = _digits()
    elif kind == "folder":
        classes, parts = _folder(path)
    else:
        raise unknown_name("data", data, ["digits", "folder:PATH"])
    pool, test, val = parts["train"], parts.get("test"), parts.get("val")
    if test is None:
        test, val = val, None
    shares = divide(pool.labels.tolist(), split, own_test=test is not None, own_val=val is not None)
    return ImageData(
        classes,
        train=pool.subset(shares.train),
        val=pool.subset(shares.val) if val is None else val,
        test=pool.subset(shares.test) if test is None or split.has_folds else test,
        fingerprint=fingerprint(
            *itertools.chain(*((n, p.images.numpy().tobytes(), p.labels.numpy().tobytes()) for n, p in parts.items()))
        ),
    )


def _digits() -> tuple[tuple[str, ...], dict[str, LabelledImages]]:
    from sklearn.datasets import load_digits

    features, labels = load_digits(return_X_y=True)
    # they come as rows of whole numbers from 0 to 16
    pixels = np.rint(np.asarray(features) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    images = LabelledImages(torch.from_numpy(pixels), torch.from_numpy(np.asarray(labels)).long())
    return tuple(str(digit) for digit in range(10)), {"train": images}


def _folder(path: str) -> tuple[tuple[str, ...], dict[str, LabelledImages]]:
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise InputError(f'data "folder:{path}": no such folder; expected folder:PATH')
    names = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if names and "train" not in names:
        raise InputError(f"{root}: expected train/ beside {names[0]}/")
    found = {name: _read(root / name) for name in names} or {"train": _read(root)}
    classes, pool = found["train"]
    for name, (others, part) in found.items():
        if others != classes:
            odd = min(set(others) ^ set(classes))
            raise InputError(f'{root}: class folder "{odd}" is in only one of train/ and {name}/')
        if part.images.shape[1:] != pool.images.shape[1:]:
            raise InputError(f"{root}: images of {name}/ are {_size(part)}, those of train/ {_size(pool)}")
    return classes, {name: part for name, (_, part) in found.items()}


def _read(folder: pathlib.Path) -> tuple[tuple[str, ...], LabelledImages]:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import pil_to_tensor

    try:
        files = ImageFolder(os.fspath(folder))
    except FileNotFoundError as error:  # no class folders, or one without images
        raise InputError(f"{folder}: {str(error).splitlines()[0]}") from None
    if len(files.classes) < 2:
        raise InputError(f'{folder}: only one class, "{files.classes[0]}"; a classifier needs two')
    console = Console(stderr=True)
    numbers = range(len(files))
    images: list[Tensor] = []
    for i in track(numbers, "reading images", console=console, transient=True, disable=not console.is_terminal):
        path, _ = files.samples[i]
        try:
            images.append(pil_to_tensor(files[i][0]))
        except OSError as error:  # Pillow's for what is no whole image
            raise InputError(f"{path}: no readable image ({error})") from None
        if images[-1].shape != images[0].shape:
            expected = f"{_side(images[0])}, as the first"
            raise InputError(f"{path}: expected an image of {expected}, got {_side(images[-1])}")
    return tuple(files.classes), LabelledImages(torch.stack(images), torch.tensor(files.targets))


def _side(image: Tensor) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"


def _size(part: LabelledImages) -> str:
    return _side(part.images[0])
