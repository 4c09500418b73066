"""Images in class folders.

``PATH/train/CLASS/*.png`` and ``PATH/val/CLASS/*.png``: ``val`` is scored once, at the end, and a share of ``train``
chooses the best epoch. With a ``PATH/test`` too, ``val`` chooses and ``test`` is scored. ``PATH/CLASS/*.png`` alone is
split by shares.
"""

import os
import pathlib
from collections import Counter

from bcos_core.run.error import InputError
from bcos_core.run.split import SplitConfig
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from .files import Files, Sizes, load_files, report_unread
from .images import ImageData


def load_folder(path: str, split: SplitConfig, sizes: Sizes, *, skip_corrupt: bool = False) -> ImageData:
    """Find, check and split the images of a folder.

    Args:
        path: Folder with ``train/`` and ``val/`` (and ``test/``), or with class folders.
        split: Shares, for what the folders do not split themselves.
        sizes: Sides to scale and crop to; needed where sizes differ.
        skip_corrupt: Leave out files that cannot be decoded.

    Raises:
        InputError: If there is no such folder, no image, only one class, classes that differ between parts, images
            of different sizes, or a file that is no whole image.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise InputError(f'data folder "{path}": no such folder (--data folder:PATH)')
    classes, parts = find_parts(root)
    return load_files(root.resolve().name, classes, parts, split, sizes, skip_corrupt=skip_corrupt)


_PARTS = ("train", "val", "test")


def find_parts(root: pathlib.Path) -> tuple[tuple[str, ...], dict[str, Files]]:
    """The class folders of a set, and the files of its parts: train, and val and test where they are.

    Raises:
        InputError: As :func:`load_folder`, as far as names tell.
    """
    if not (root / "train").is_dir():
        classes, files = find_files(root)
        return classes, {"train": files}
    for other in sorted(path for path in root.iterdir() if path.is_dir()):
        is_misspelt = other.name.lower() in _PARTS and other.name not in _PARTS
        if is_misspelt or other.name.lower() in ("valid", "validation", "dev", "eval", "testing"):
            raise InputError(f"{other}: what is this? Parts of a set are called train, val and test")
    classes, files = find_files(root / "train")
    parts = {"train": files}
    for name in _PARTS[1:]:
        if (root / name).is_dir():
            others, parts[name] = find_files(root / name)
            check_same_classes(root / "train", classes, root / name, others)
    return classes, parts


def find_files(folder: pathlib.Path, *, nested: bool = False) -> tuple[tuple[str, ...], Files]:
    """The class folders in a folder, and the image files in them; ``nested`` where those are in folders again."""
    try:
        classes, index = find_classes(str(folder))
    except FileNotFoundError:
        raise InputError(f"{folder}: no class folders in it") from None
    samples = make_dataset(str(folder), index, IMG_EXTENSIONS, allow_empty=True)
    counts = Counter(label for _, label in samples)
    if not samples:
        raise InputError(f"{folder}: no images in its class folders (known endings: {', '.join(IMG_EXTENSIONS)})")
    if empty := [name for name in classes if not counts[index[name]]]:
        raise InputError(f'{folder}: class folder "{empty[0]}" holds no images')
    unread: list[str] = []
    for name in () if nested else classes:
        inside = os.listdir(folder / name)
        if not any(file.lower().endswith(IMG_EXTENSIONS) for file in inside):
            raise InputError(
                f"{folder / name}: folders instead of images; parts of a set are called train, val and test"
            )
        unread += inside
    report_unread(folder, unread)
    if len(classes) < 2:
        raise InputError(f'{folder}: only one class, "{classes[0]}"; a classifier needs two')
    paths, labels = zip(*samples, strict=True)
    return tuple(classes), Files(paths, labels)


def check_same_classes(
    folder: pathlib.Path, classes: tuple[str, ...], other: pathlib.Path, others: tuple[str, ...]
) -> None:
    """Refuse two parts of a set whose classes differ."""
    for holder, lacking, names in (
        (folder, other, set(classes) - set(others)),
        (other, folder, set(others) - set(classes)),
    ):
        if names:
            raise InputError(f'{lacking}: no class folder "{min(names)}", which {holder} has')
