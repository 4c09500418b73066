"""Pictures: files decoded, then scaled and cropped as torchvision's Resize and CenterCrop do it."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from bcos_core.run.error import InputError
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

Path = str | os.PathLike[str]

Size = tuple[int, int]
"""Height and width in pixels."""

Box = tuple[int, int, int, int]
"""x_min, y_min, x_max, y_max: the first and the last column and row."""


class CorruptImage(InputError):
    """A file that cannot be decoded."""


def read_image(path: Path, channels: int, size: Size | None = None, resize: int | None = None) -> Tensor:
    """Decode an image file.

    Args:
        path: The file.
        channels: 1 for grey, 3 for RGB; the image is converted.
        size: Height and width to scale and centre-crop to; None to keep its own.
        resize: Length of the shorter side before that crop; by default the crop's.

    Returns:
        Bytes, shape (channels, H, W).

    Raises:
        InputError: If the file is missing, no image, or truncated.
    """
    picture = open_picture(path, channels)
    return to_bytes(picture if size is None else fit_picture(picture, size, resize))


def open_picture(path: Path, channels: int) -> Image.Image:
    """Decode an image file, upright and whole: grey for 1 channel, RGB for 3.

    Raises:
        InputError: As :func:`read_image`.
    """
    with _named_errors(path), Image.open(path) as image:
        depth = image.mode
        upright = image if _orientation(image) == 1 else ImageOps.exif_transpose(image)  # which copies
        picture = upright.convert("L" if channels == 1 else "RGB")
    _check_depth(path, depth)
    return picture


def read_header(path: Path) -> tuple[str, Size]:
    """Mode and upright size of an image, without decoding it.

    Raises:
        InputError: As :func:`read_image`, as far as a header tells.
    """
    with _named_errors(path), Image.open(path) as image:
        mode, (width, height) = image.mode, image.size
        turned = _orientation(image) >= 5  # those lie on their side
    _check_depth(path, mode)
    return mode, (width, height) if turned else (height, width)


def fit_picture(picture: Image.Image, size: Size, resize: int | None = None) -> Image.Image:
    """Scale a picture (antialiased, bilinear) until its shorter side is ``resize``, and crop its centre.

    Without ``resize`` it is scaled until it just covers the crop.
    """
    scaled = _scaled((picture.height, picture.width), size, resize)
    if scaled != (picture.height, picture.width):
        picture = picture.resize((scaled[1], scaled[0]), Image.Resampling.BILINEAR)
    if scaled == size:
        return picture
    top, left = _corner(scaled, size)
    return picture.crop((left, top, left + size[1], top + size[0]))


def fit_box(box: Box, original: Size, size: Size, resize: int | None = None) -> Box:
    """Where a box of a picture lies after :func:`fit_picture`, cut off at the crop's edges.

    Example:
        >>> fit_box((0, 0, 31, 63), (64, 64), (32, 32))
        (0, 0, 15, 31)
    """
    scaled = _scaled(original, size, resize)
    top, left = _corner(scaled, size)
    down, across = scaled[0] / original[0], scaled[1] / original[1]
    x_min, x_end = (min(max(round(x * across) - left, 0), size[1]) for x in (box[0], box[2] + 1))
    y_min, y_end = (min(max(round(y * down) - top, 0), size[0]) for y in (box[1], box[3] + 1))
    return x_min, y_min, x_end - 1, y_end - 1


def to_bytes(picture: Image.Image) -> Tensor:
    """A grey or RGB picture as a tensor of bytes, shape (channels, H, W)."""
    return stack([picture])[0].contiguous()


def stack(pictures: Iterable[Image.Image]) -> Tensor:
    """Pictures of one size as bytes, shape (N, channels, H, W); channels last in memory, as files and networks are."""
    array = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(array.reshape(*array.shape[:3], -1)).permute(0, 3, 1, 2)


def to_picture(image: Tensor) -> Image.Image:
    """What :func:`to_bytes` was given."""
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy())


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:  # Pillow would decode it all to look for one at its end
        return 1
    return image.getexif().get(0x0112, 1)


def _scaled(original: Size, size: Size, resize: int | None) -> Size:
    (height, width), (h, w) = original, size if resize is None else (resize, resize)
    if height * w >= width * h:  # its width decides; rounded down as torchvision does
        return int(w * height / width), w
    return h, int(h * width / height)


def _corner(scaled: Size, size: Size) -> tuple[int, int]:
    return round((scaled[0] - size[0]) / 2), round((scaled[1] - size[1]) / 2)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Whatever Pillow raises about a file, as one line with its name."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise CorruptImage(f"{path}: not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CorruptImage(f"{path}: a damaged image ({error})") from None


def _check_depth(path: Path, mode: str) -> None:
    """Refuse images of more than 8 bits: they would be cut off at white, without a word."""
    if mode.startswith(("I", "F")):
        raise InputError(f"{path}: more than 8 bits a channel (mode {mode}); convert it to 8 bits")
