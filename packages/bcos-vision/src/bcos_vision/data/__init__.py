"""Data by name: ``digits``, ``cifar10``, ``imagenet``, ``tiny-imagenet``, ``folder:PATH``."""

import os
import pathlib

from bcos_core.run.error import InputError, unknown_name
from bcos_core.run.split import SplitConfig
from bcos_core.run.tracking import project_root

from .change import PictureChange, picture_change
from .images import ArrayImages, FileImages, ImageData, Images, to_unit_range
from .loader import Loader, make_loader
from .picture import read_image

__all__ = [
    "ArrayImages",
    "FileImages",
    "ImageData",
    "Images",
    "Loader",
    "PictureChange",
    "absolute",
    "data_folder",
    "load_data",
    "make_loader",
    "picture_change",
    "read_image",
    "to_unit_range",
]


def absolute(name: str) -> str:
    """The name of a data set with its path, if it has one, made absolute: a run may be resumed from another folder."""
    kind, colon, path = name.partition(":")
    return f"{kind}:{pathlib.Path(path).expanduser().resolve()}" if colon and path else name


def data_folder(name: str) -> pathlib.Path:
    """Where a set called by its name alone lies: in ``$BCOS_DATA``, or in ``data/`` in the project's root."""
    home = os.environ.get("BCOS_DATA")
    return (pathlib.Path(home).expanduser() if home else project_root() / "data") / name


def load_data(
    name: str,
    split: SplitConfig | None = None,
    *,
    image_size: int | None = None,
    eval_size: int | None = None,
    eval_resize: int | None = None,
    skip_corrupt: bool = False,
) -> ImageData:
    """Load a data set.

    Images for evaluation are scaled until the shorter side is ``eval_resize`` and cropped to ``eval_size`` at the
    centre, as torchvision's Resize (antialiased, bilinear) and CenterCrop do it; training images likewise, to
    ``image_size``.

    Args:
        name: "digits", "cifar10", "imagenet", "tiny-imagenet" or "folder:PATH"; with ":PATH", cifar10 and the two
            ImageNets lie there instead of in :func:`data_folder`.
        split: Shares for what the data does not split itself.
        image_size: Side of training images; by default their own, which has to be the same of all.
        eval_size: Side of images for evaluation, if not that of training images.
        eval_resize: Their shorter side before the crop, if not the crop's.
        skip_corrupt: Decode all files beforehand, leave out those that cannot be, and list them on standard error.

    Raises:
        InputError: If the name is unknown or the data is not usable; see :mod:`bcos_vision.data.folder`.

    Example:
        >>> data = load_data("digits")
        >>> len(data.train), len(data.val), len(data.test), data.size
        (1293, 144, 360, (8, 8))
    """
    from .files import Sizes

    split = split or SplitConfig()
    sizes = Sizes(image_size, eval_size, eval_resize)
    kind, _, path = name.partition(":")
    if name == "digits":
        from .digits import load_digits

        return load_digits(split, sizes)
    if kind == "folder":
        from .folder import load_folder

        return load_folder(path, split, sizes, skip_corrupt=skip_corrupt)
    root = pathlib.Path(path).expanduser() if path else data_folder(kind)
    if kind == "cifar10":
        from .cifar10 import load_cifar10

        return load_cifar10(root, split, sizes)
    if kind in ("imagenet", "tiny-imagenet"):
        from .imagenet import load_imagenet

        if not root.is_dir():
            raise InputError(f'data "{name}": no folder {root}; if it lies elsewhere: --data {kind}:PATH')
        return load_imagenet(root, kind, split, sizes, skip_corrupt=skip_corrupt)
    raise unknown_name("data", name, ("digits", "cifar10", "imagenet", "tiny-imagenet", "folder:PATH"))
