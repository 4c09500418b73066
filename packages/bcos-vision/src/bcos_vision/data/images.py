"""Labelled images, in memory or in files, fetched a batch at a time as bytes."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from bcos_core.run.error import InputError
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""Images, uint8, (N, C, H, W), and labels, int64, (N,)."""


Indices = Sequence[int] | np.ndarray


class Images(Protocol):
    """A set of labelled images; indexing with a list of indices gives a batch."""

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Indices) -> Batch: ...

    def subset(self, indices: Indices) -> "Images":
        """The images at these indices, in this order."""
        ...


@dataclass(frozen=True)
class ArrayImages:
    """Images held in memory: uint8, (N, C, H, W)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Indices) -> Batch:
        index = torch.as_tensor(indices, dtype=torch.long)
        return self.images[index], self.labels[index]

    def subset(self, indices: Indices) -> "ArrayImages":
        return ArrayImages(*self[indices])


@dataclass(frozen=True)
class FileImages:
    """Images that are decoded when they are asked for."""

    paths: tuple[pathlib.Path, ...]
    labels: Tensor
    channels: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: Indices) -> Batch:
        arrays = [read_image(self.paths[i], self.channels, self.size) for i in indices]
        return torch.stack(arrays), self.labels[torch.as_tensor(indices, dtype=torch.long)]

    def subset(self, indices: Indices) -> "FileImages":
        return FileImages(
            tuple(self.paths[i] for i in indices), self.labels[torch.as_tensor(indices)], self.channels, self.size
        )


@dataclass(frozen=True)
class ImageData:
    """A data set, split."""

    name: str
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    """Height and width of every image."""
    train: Images
    val: Images
    """Scored after each epoch; may be empty."""
    test: Images
    """Scored once, after training."""
    fingerprint: str
    """Changes when an image or a label does; of images too many to hold in memory, when a name or a file size does."""

    def statistics(self, most: int = 10_000) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel in [0, 1], over training images (``most``, evenly spread)."""
        chosen = torch.linspace(0, len(self.train) - 1, min(most, len(self.train))).round().long()
        count, total, squares = 0, torch.zeros(self.channels).double(), torch.zeros(self.channels).double()
        for part in chosen.split(256):
            values = self.train[part.tolist()][0].double() / 255
            count += values.numel() // self.channels
            total += values.sum((0, 2, 3))
            squares += values.square().sum((0, 2, 3))
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=1e-12).sqrt()
        return mean.tolist(), std.tolist()


def check_depth(path: pathlib.Path, mode: str) -> None:
    """Refuse images of more than 8 bits: they would be cut off at white, without a word.

    Raises:
        InputError: If the mode is a 16 or 32-bit one.
    """
    if mode.startswith(("I", "F")):
        raise InputError(f"{path}: more than 8 bits a channel (mode {mode}); convert it to 8 bits")


def to_unit_range(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bytes to [0, 1], channels-last."""
    return images.to(dtype=dtype, memory_format=torch.channels_last).div_(255)


def read_image(path: pathlib.Path, channels: int, size: tuple[int, int] | None = None) -> Tensor:
    """Decode an image file.

    Args:
        path: The file.
        channels: 1 for grey, 3 for RGB; the image is converted.
        size: Height and width to scale and centre-crop to; None to keep its own.

    Returns:
        Bytes, shape (channels, H, W).

    Raises:
        InputError: If the file is missing, no image, or truncated.
    """
    try:
        with Image.open(path) as image:
            depth = image.mode
            image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: a damaged image ({error})") from None
    check_depth(path, depth)
    if size is not None and image.size != (size[1], size[0]):
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)
    array = np.array(image, dtype=np.uint8)
    return torch.from_numpy(array).view(*array.shape[:2], channels).permute(2, 0, 1).contiguous()
