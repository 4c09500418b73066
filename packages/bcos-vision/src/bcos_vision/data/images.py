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
    """Changes when an image or a label does."""

    def statistics(self, most: int = 10_000) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over (at most the first 10,000) training images, in [0, 1]."""
        images, _ = self.train[range(min(most, len(self.train)))]
        values = images.double() / 255
        return values.mean((0, 2, 3)).tolist(), values.std((0, 2, 3)).clamp(min=1e-6).tolist()


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
            image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: a damaged image ({error})") from None
    if size is not None and image.size != (size[1], size[0]):
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)
    array = np.array(image, dtype=np.uint8)
    return torch.from_numpy(array).view(*array.shape[:2], channels).permute(2, 0, 1).contiguous()
