"""Data by name: ``digits``, ``folder:PATH``."""

import pathlib

from bcos_core.run.error import unknown_name

from bcos_vision.config import SplitConfig

from .images import ArrayImages, FileImages, ImageData, Images, read_image, to_unit_range
from .loader import make_loader

__all__ = [
    "ArrayImages",
    "FileImages",
    "ImageData",
    "Images",
    "absolute",
    "load_data",
    "make_loader",
    "read_image",
    "to_unit_range",
]


def absolute(name: str) -> str:
    """The name of a data set with its path, if it has one, made absolute: a run may be resumed from another folder."""
    kind, colon, path = name.partition(":")
    return f"{kind}:{pathlib.Path(path).expanduser().resolve()}" if colon and path else name


def load_data(name: str, split: SplitConfig | None = None, *, image_size: int | None = None) -> ImageData:
    """Load a data set.

    Args:
        name: "digits", or "folder:PATH".
        split: Shares for what the data does not split itself.
        image_size: Side to scale and crop to (folders only).

    Raises:
        InputError: If the name is unknown or the data is not usable; see :mod:`bcos_vision.data.folder`.

    Example:
        >>> data = load_data("digits")
        >>> len(data.train), len(data.val), len(data.test), data.size
        (1293, 144, 360, (8, 8))
    """
    split = split or SplitConfig()
    kind, _, path = name.partition(":")
    if name == "digits":
        from .digits import load_digits

        return load_digits(split)
    if kind == "folder":
        from .folder import load_folder

        return load_folder(path, split, image_size)
    raise unknown_name("data", name, ("digits", "folder:PATH"))
