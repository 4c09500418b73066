"""Image files of known classes: checked, split, and decoded where memory allows."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from bcos_core.run.config import fingerprint
from bcos_core.run.error import InputError
from bcos_core.run.split import SplitConfig, divide
from rich.console import Console
from torchvision.datasets.folder import IMG_EXTENSIONS

from bcos_vision.progress import track

from .images import ArrayImages, FileImages, ImageData, Images
from .picture import Box, CorruptImage, Size, fit_box, open_picture, read_header, read_image

S = TypeVar("S")
T = TypeVar("T")

_UNREAD = (".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".svg", ".tga")

MEMORY_LIMIT = 2 * 2**30
"""Bytes of decoded images up to which a set is held in memory."""


@dataclass(frozen=True)
class Sizes:
    """Sides in pixels, as ``image_size``, ``eval_size`` and ``eval_resize`` of the run's configuration."""

    image: int | None = None
    eval: int | None = None
    eval_resize: int | None = None

    def require(self, name: str, side: int) -> None:
        """Refuse any other side than that of a set that is not scaled.

        Raises:
            InputError: Naming the option.
        """
        for option, given in (
            ("image_size", self.image),
            ("eval_size", self.eval),
            ("eval_resize", self.eval_resize),
        ):
            if given not in (None, side):
                raise InputError(f"--{option}: {name} is {side}x{side} pixels and is not scaled, got {given}")


@dataclass(frozen=True)
class Files:
    """The image files of one part of a set, and their classes."""

    paths: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Files":
        return Files(tuple(self.paths[i] for i in indices), tuple(self.labels[i] for i in indices))


def load_files(
    name: str,
    classes: tuple[str, ...],
    parts: Mapping[str, Files],
    split: SplitConfig,
    sizes: Sizes,
    *,
    skip_corrupt: bool = False,
    boxes: Mapping[str, Box] | None = None,
    folders: tuple[str, ...] = (),
) -> ImageData:
    """Check all files, split off what has no part of its own, and decode where memory allows.

    Args:
        name: What the set is called.
        classes: Names of the classes.
        parts: "train", "val" and "test", as far as they are there: "val" alone is the test; "val" without "train" is
            scored only.
        split: Shares for those that are not.
        sizes: Sides to scale and crop to.
        skip_corrupt: Decode every file once beforehand, leave out those that will not be, and list them.
        boxes: Where the object is, by path, in pixels of the file.
        folders: What the class folders are called, if not as the classes.

    Raises:
        InputError: If sizes differ and none is asked for, a file is no whole image, or none of a class is.
    """
    paths = [path for files in parts.values() for path in files.paths]
    inspect, text = (_verify, "checking images") if skip_corrupt else (read_header, "reading headers")
    found = dict(zip(paths, _in_parallel(inspect, paths, text), strict=True))
    corrupt = {path: error for path, error in found.items() if isinstance(error, CorruptImage)}
    headers = {path: header for path, header in found.items() if not isinstance(header, CorruptImage)}
    if corrupt:
        parts = {part: _leave_out(files, corrupt, f"{name}, {part}", classes) for part, files in parts.items()}
        _report(list(corrupt.values()), len(paths))
    channels = 1 if all(mode in ("1", "L") for mode, _ in headers.values()) else 3
    evaluated = None if sizes.eval is None else (sizes.eval, sizes.eval)
    if sizes.image is not None:
        size = (sizes.image, sizes.image)
    elif evaluated is not None and "train" not in parts:
        size = evaluated
    else:
        size = _common_size({path: size for path, (_, size) in headers.items()})
    evaluated = evaluated or size
    if sizes.eval_resize is not None and sizes.eval_resize < min(evaluated):
        raise InputError(f"--eval_resize: expected at least the crop's {min(evaluated)}, got {sizes.eval_resize}")
    train, val, test = _split(parts, split, classes)
    sets = [
        FileImages(files.paths, torch.tensor(files.labels, dtype=torch.long), channels, own, resize)
        for files, own, resize in (
            (train, size, None),
            (val, evaluated, sizes.eval_resize),
            (test, evaluated, sizes.eval_resize),
        )
    ]
    opened: list[Images] = list(sets)
    if sum(len(files) * channels * files.size[0] * files.size[1] for files in sets) <= MEMORY_LIMIT:
        opened = [_decode(files, scaled=any(headers[str(p)][1] != files.size for p in files.paths)) for files in sets]
    return ImageData(
        name=name,
        classes=classes,
        channels=channels,
        size=size,
        train=opened[0],
        val=opened[1],
        test=opened[2],
        fingerprint=_fingerprint(parts, opened),
        eval_size=evaluated,
        folders=folders,
        eval_resize=sizes.eval_resize,
        boxes={
            i: fit_box(boxes[path], headers[path][1], evaluated, sizes.eval_resize)
            for i, path in enumerate(test.paths)
            if boxes and path in boxes
        },
    )


def _verify(path: str) -> tuple[str, Size] | CorruptImage:
    """The header of a file that can be decoded to its end."""
    try:
        open_picture(path, 3)
        return read_header(path)
    except CorruptImage as error:
        return error


def _leave_out(files: Files, corrupt: Mapping[str, CorruptImage], part: str, classes: tuple[str, ...]) -> Files:
    kept = files.subset([i for i, path in enumerate(files.paths) if path not in corrupt])
    if lost := set(files.labels) - set(kept.labels):
        raise InputError(f'{part}: no image of class "{classes[min(lost)]}" can be decoded')
    return kept


def _report(errors: Sequence[CorruptImage], total: int) -> None:
    shown = "; ".join(map(str, errors[:5])) + ("; ..." if len(errors) > 5 else "")
    _warn(f"left out {len(errors)} of {total} images that cannot be decoded: {shown}")


def report_unread(folder: str | os.PathLike[str], names: Sequence[str]) -> None:
    """Say which files in a folder look like pictures, and are of kinds that are not read."""
    found = Counter(ending for name in names if (ending := os.path.splitext(name)[1].lower()) in _UNREAD)
    if found:
        kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(found.items()))
        _warn(f"{folder}: left out {kinds} (known endings: {', '.join(IMG_EXTENSIONS)})")


def _warn(text: str) -> None:
    Console(stderr=True).print(text, style="yellow", soft_wrap=True, markup=False, highlight=False)


def _split(parts: Mapping[str, Files], split: SplitConfig, classes: tuple[str, ...]) -> tuple[Files, Files, Files]:
    train, held = parts.get("train", Files()), [parts[name] for name in ("val", "test") if name in parts]
    test = held[-1] if held else None
    val = held[0] if len(held) == 2 else None
    if not train.paths:
        return train, val or Files(), test or Files()
    shares = divide(train.labels, split, own_test=test is not None, own_val=val is not None, names=classes)
    return (
        train.subset(shares.train),
        train.subset(shares.val) if val is None else val,
        train.subset(shares.test) if test is None or split.has_folds else test,
    )


def _common_size(sizes: Mapping[str, Size]) -> Size:
    first, size = next(iter(sizes.items()))
    for path, other in sizes.items():
        if other != size:
            raise InputError(
                f"images of different sizes: {first} is {size[1]}x{size[0]}, "
                f"{path} is {other[1]}x{other[0]}; give one with --image_size"
            )
    return size


def _decode(files: FileImages, *, scaled: bool) -> ArrayImages:
    images = torch.empty(len(files), files.channels, *files.size, dtype=torch.uint8)

    def decode(row: int) -> None:
        images[row] = read_image(files.paths[row], files.channels, files.size, files.resize)

    for _ in _in_parallel(decode, range(len(files)), "decoding images"):
        pass
    return ArrayImages(images, files.labels, files.paths if scaled else None)


def _in_parallel(work: Callable[[S], T], items: Sequence[S], text: str) -> Iterator[T]:
    """Results in order, behind a bar; in pieces, as an object for each of a million files would fill the memory."""
    pieces = [items[i : i + 64] for i in range(0, len(items), 64)]
    with ThreadPoolExecutor() as pool:
        for piece in track(pool.map(lambda piece: [work(item) for item in piece], pieces), text, len(pieces)):
            yield from piece


def _fingerprint(parts: Mapping[str, Files], sets: Sequence[Images]) -> str:
    """Of the whole set, however it was divided: names and labels in their parts, and contents in any order."""
    pieces: list[bytes | str] = []
    for name, files in parts.items():
        pieces.append(name)
        pieces.extend(f"{os.path.basename(p)} {label}" for p, label in zip(files.paths, files.labels, strict=True))
    contents: list[str] = []
    for images in sets:
        if isinstance(images, ArrayImages):
            contents.extend(fingerprint(image.tobytes()) for image in images.images.numpy())
        elif isinstance(images, FileImages):  # too many to read: sizes stand for the contents
            contents.extend(f"{os.path.basename(path)} {os.stat(path).st_size}" for path in images.paths)
    return fingerprint(*pieces, *sorted(contents))
