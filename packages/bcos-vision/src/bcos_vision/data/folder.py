"""Images in class folders.

``PATH/train/CLASS/*.png`` and ``PATH/val/CLASS/*.png``: ``val`` is scored once, at the end, and a share of ``train``
chooses the best epoch. With a ``PATH/test`` too, ``val`` chooses and ``test`` is scored. ``PATH/CLASS/*.png`` alone is
split by shares.
"""

import pathlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from bcos_core.run.config import fingerprint
from bcos_core.run.error import InputError
from bcos_core.run.split import stratified_split
from PIL import Image, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from bcos_vision.config import SplitConfig
from bcos_vision.progress import track

from .images import ArrayImages, FileImages, ImageData, Images, check_depth, read_image

MEMORY_LIMIT = 2 * 2**30
"""Bytes of decoded images up to which a set is held in memory."""


@dataclass(frozen=True)
class _Found:
    """The files of one part, before any is decoded."""

    paths: tuple[pathlib.Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]


def load_folder(path: str, split: SplitConfig, image_size: int | None = None) -> ImageData:
    """Find, check and split the images of a folder.

    Args:
        path: Folder with ``train/`` and ``val/`` (and ``test/``), or with class folders.
        split: Shares, for what the folders do not split themselves.
        image_size: Side to scale and crop to; needed where sizes differ.

    Raises:
        InputError: If there is no such folder, no image, only one class, classes that differ between parts, images
            of different sizes, or a file that is no whole image.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise InputError(f'data folder "{path}": no such folder (--data folder:PATH)')
    if not (root / "train").is_dir():
        found = _find(root)
        images, channels, size = _open([found], image_size)
        parts = stratified_split(found.labels, test=split.test, val=split.val, seed=split.seed)
        train, val, test = (images[0].subset(i) for i in (parts.train, parts.val, parts.test))
    else:
        names = [name for name in ("val", "test") if (root / name).is_dir()]
        for other in ("valid", "validation", "dev", "eval", "testing"):
            if (root / other).is_dir():
                raise InputError(f"{root / other}: what is this? Parts of a set are called train, val and test")
        found = _find(root / "train")
        others = [_find(root / name) for name in names]
        for name, other in zip(names, others, strict=True):
            _check_same_classes(root, found.classes, name, other.classes)
        images, channels, size = _open([found, *others], image_size)
        own_test = split.test if not names else 0.0
        own_val = split.val if len(names) < 2 else 0.0
        parts = stratified_split(found.labels, test=own_test, val=own_val, seed=split.seed)
        train = images[0].subset(parts.train)
        val = images[1] if len(names) == 2 else images[0].subset(parts.val)
        test = images[-1] if names else images[0].subset(parts.test)
    return ImageData(
        name=root.resolve().name,
        classes=found.classes,
        channels=channels,
        size=size,
        train=train,
        val=val,
        test=test,
        fingerprint=_fingerprint(train, val, test),
    )


def _find(folder: pathlib.Path) -> _Found:
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
    for name in classes:
        inside = list((folder / name).iterdir())
        if any(p.is_dir() for p in inside) and not any(p.suffix.lower() in IMG_EXTENSIONS for p in inside):
            raise InputError(
                f"{folder / name}: folders instead of images; parts of a set are called train, val and test"
            )
    if len(classes) < 2:
        raise InputError(f'{folder}: only one class, "{classes[0]}"; a classifier needs two')
    paths, labels = zip(*samples, strict=True)
    return _Found(tuple(map(pathlib.Path, paths)), labels, tuple(classes))


def _check_same_classes(root: pathlib.Path, train: tuple[str, ...], name: str, other: tuple[str, ...]) -> None:
    for holder, lacking, names in (
        (root / "train", root / name, set(train) - set(other)),
        (root / name, root / "train", set(other) - set(train)),
    ):
        if names:
            raise InputError(f'{lacking}: no class folder "{min(names)}", which {holder} has')


def _open(parts: list[_Found], image_size: int | None) -> tuple[Sequence[Images], int, tuple[int, int]]:
    """Read the headers of all parts, settle on one size, and decode where memory allows."""
    paths = [path for part in parts for path in part.paths]
    with ThreadPoolExecutor() as pool:
        headers = list(track(pool.map(_header, paths), "reading headers", len(paths)))
        channels = 1 if all(mode in ("1", "L") for mode, _ in headers) else 3
        if image_size is None:
            size = headers[0][1]
            for path, (_, other) in zip(paths, headers, strict=True):
                if other != size:
                    raise InputError(
                        f"images of different sizes: {paths[0]} is {size[1]}x{size[0]}, "
                        f"{path} is {other[1]}x{other[0]}; give one with --image_size"
                    )
        else:
            size = (image_size, image_size)
        labels = [torch.tensor(part.labels) for part in parts]
        if len(paths) * channels * size[0] * size[1] > MEMORY_LIMIT:
            files = zip(parts, labels, strict=True)
            return [FileImages(part.paths, own, channels, size) for part, own in files], channels, size
        decode = pool.map(lambda path: read_image(path, channels, size), paths)
        decoded = torch.stack(list(track(decode, "decoding images", len(paths))))
    arrays = decoded.split([len(part.paths) for part in parts])
    return [ArrayImages(array, own) for array, own in zip(arrays, labels, strict=True)], channels, size


def _header(path: pathlib.Path) -> tuple[str, tuple[int, int]]:
    """Mode and (height, width) of an image, without decoding it."""
    try:
        with Image.open(path) as image:
            mode, (width, height) = image.mode, image.size
            turned = image.getexif().get(0x0112, 1) >= 5  # orientations 5 to 8 lie on their side
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: a damaged image ({error})") from None
    check_depth(path, mode)
    return mode, (width, height) if turned else (height, width)


def _fingerprint(*parts: Images) -> str:
    pieces: list[bytes | str] = []
    for part in parts:
        pieces.append(part.labels.numpy().tobytes())
        if isinstance(part, ArrayImages):
            pieces.append(part.images.numpy().tobytes())
        elif isinstance(part, FileImages):  # too many to read: names and sizes stand for the contents
            pieces.extend(f"{path.name} {path.stat().st_size}" for path in part.paths)
    return fingerprint(*pieces)
