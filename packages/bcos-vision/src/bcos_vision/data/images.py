"""Labelled images, in memory or in files, fetched a batch at a time as bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from .picture import Box, Path, Size, fit_picture, open_picture, stack, to_picture

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

    def picture(self, index: int, *, whole: bool) -> Image:
        """One image as a picture, as in a batch, or ``whole``: before it was scaled and cropped."""
        ...


@dataclass(frozen=True)
class ArrayImages:
    """Images held in memory: uint8, (N, C, H, W)."""

    images: Tensor
    labels: Tensor
    paths: tuple[Path, ...] | None = None
    """The files, where the images are scaled or cropped from them."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Indices) -> Batch:
        index = torch.as_tensor(indices, dtype=torch.long)
        # some eighty times as fast as images[index], which copies byte by byte
        return self.images.index_select(0, index), self.labels[index]

    def subset(self, indices: Indices) -> "ArrayImages":
        paths = None if self.paths is None else tuple(self.paths[i] for i in indices)
        return ArrayImages(*self[indices], paths)

    def picture(self, index: int, *, whole: bool) -> Image:
        if whole and self.paths is not None:
            return open_picture(self.paths[index], self.images.shape[1])
        return to_picture(self.images[index])


@dataclass(frozen=True)
class FileImages:
    """Images that are decoded when they are asked for, scaled and cropped as by :func:`read_image`."""

    paths: tuple[Path, ...]
    labels: Tensor
    channels: int
    size: Size
    resize: int | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: Indices) -> Batch:
        images = stack(self.picture(i, whole=False) for i in indices)
        return images, self.labels[torch.as_tensor(indices, dtype=torch.long)]

    def subset(self, indices: Indices) -> "FileImages":
        paths, labels = tuple(self.paths[i] for i in indices), self.labels[torch.as_tensor(indices, dtype=torch.long)]
        return FileImages(paths, labels, self.channels, self.size, self.resize)

    def picture(self, index: int, *, whole: bool) -> Image:
        picture = open_picture(self.paths[index], self.channels)
        return picture if whole else fit_picture(picture, self.size, self.resize)


@dataclass(frozen=True)
class ImageData:
    """A data set, split."""

    name: str
    classes: tuple[str, ...]
    channels: int
    size: Size
    """Height and width of training images."""
    train: Images
    val: Images
    """Scored after each epoch; may be empty."""
    test: Images
    """Scored once, after training."""
    fingerprint: str
    """Changes when an image or a label does; of images too many to hold in memory, when a name or a file size does."""
    eval_size: Size
    """Height and width of the images in ``val`` and ``test``."""
    eval_resize: int | None = None
    """Length of the shorter side before those were cropped from the centre, if not the crop's."""
    folders: tuple[str, ...] = ()
    """What the class folders are called, if not as the classes (WordNet ids)."""
    boxes: Mapping[int, Box] = field(default_factory=dict)
    """Where the object is in images of ``test``, by their index, in pixels of the image as it is delivered."""

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


def to_unit_range(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bytes to [0, 1], channels-last."""
    return images.to(dtype=dtype, memory_format=torch.channels_last).div_(255)
