"""ImageNet and Tiny-ImageNet: class folders called by WordNet ids, with names and boxes in files beside them."""

import csv
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping

from bcos_core.run.error import InputError
from bcos_core.run.split import SplitConfig

from .files import Files, Sizes, load_files
from .folder import check_same_classes, find_files, find_parts
from .images import ImageData
from .picture import Box


def load_imagenet(
    root: pathlib.Path, name: str, split: SplitConfig, sizes: Sizes, *, skip_corrupt: bool = False
) -> ImageData:
    """A set of class folders called by WordNet ids: ``train/`` and ``val/``, or ``val/`` alone, which is only scored.

    Tiny-ImageNet may also lie as it is published: ``train/WNID/images/``, and ``val/images/`` with
    ``val_annotations.txt``. Readable class names come from ``classes.csv`` (wnid, name), ``LOC_synset_mapping.txt`` or
    ``words.txt``, boxes from ``boxes.csv`` (image, class, x_min, y_min, x_max, y_max) or the annotations.

    Args:
        root: The set's folder.
        name: What it is called.
        split: Shares; of ``train``, for validation.
        sizes: Sides to scale and crop to.
        skip_corrupt: Leave out files that cannot be decoded.

    Raises:
        InputError: As :func:`bcos_vision.data.folder.load_folder`.
    """
    boxes: dict[str, Box] = {}
    if (root / "val" / "val_annotations.txt").is_file():
        wnids, parts, boxes = _find_published(root)
    elif (root / "train").is_dir() or not (root / "val").is_dir():
        wnids, parts = find_parts(root)
    else:
        wnids, files = find_files(root / "val")
        parts = {"val": files}
    if (table := root / "boxes.csv").is_file():
        rows = _rows(table, "image", *_CORNERS)
        boxes = {str(root / row["image"]): _box(table, [row[corner] for corner in _CORNERS]) for row in rows}
    names = class_names(root, wnids)
    return load_files(name, names, parts, split, sizes, skip_corrupt=skip_corrupt, boxes=boxes, folders=wnids)


_CORNERS = ("x_min", "y_min", "x_max", "y_max")


def class_names(root: pathlib.Path, wnids: tuple[str, ...]) -> tuple[str, ...]:
    """The first word for each WordNet id, as the files in ``root`` have it.

    With its id where two ids there share it (crane), so that a class is called the same whichever others there are.
    """
    words: dict[str, str] = {}
    if (path := root / "classes.csv").is_file():
        words = {row["wnid"]: row["name"] for row in _rows(path, "wnid", "name")}
    elif (path := root / "LOC_synset_mapping.txt").is_file():
        words = _pairs(path, " ")
    elif (path := root / "words.txt").is_file():
        words = _pairs(path, "\t")
    first = {wnid: text.split(",")[0].replace("_", " ").strip() for wnid, text in words.items()}
    counts = Counter(first.values())
    names = ((wnid, first.get(wnid, wnid)) for wnid in wnids)
    return tuple(name if counts[name] <= 1 else f"{name} ({wnid})" for wnid, name in names)


def _find_published(root: pathlib.Path) -> tuple[tuple[str, ...], dict[str, Files], dict[str, Box]]:
    """Tiny-ImageNet's own layout. The images in ``test/`` have no labels: ``val/`` is the test."""
    wnids, train = find_files(root / "train", nested=True)
    table = root / "val" / "val_annotations.txt"
    rows = [line.split("\t") for line in table.read_text().splitlines() if line]
    if any(len(row) != 6 for row in rows):
        raise InputError(f"{table}: expected lines of image, wnid, x_min, y_min, x_max, y_max, with tabs between")
    check_same_classes(root / "train", wnids, table, tuple({row[1] for row in rows}))
    paths = [str(root / "val" / "images" / row[0]) for row in rows]
    labels = {wnid: k for k, wnid in enumerate(wnids)}
    val = Files(tuple(paths), tuple(labels[row[1]] for row in rows))
    return wnids, {"train": train, "val": val}, {p: _box(table, row[2:]) for p, row in zip(paths, rows, strict=True)}


def _rows(path: pathlib.Path, *columns: str) -> list[Mapping[str, str]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if missing := set(columns) - set(reader.fieldnames or ()):
            raise InputError(f'{path}: no column "{min(missing)}"; expected {", ".join(columns)}')
        return list(reader)


def _pairs(path: pathlib.Path, separator: str) -> dict[str, str]:
    lines = (line.partition(separator) for line in path.read_text().splitlines())
    return {wnid: text for wnid, _, text in lines if text}


def _box(path: pathlib.Path, corners: Iterable[str]) -> Box:
    try:
        x_min, y_min, x_max, y_max = map(int, corners)
    except ValueError as error:
        raise InputError(f"{path}: expected boxes of four whole numbers ({error})") from None
    return x_min, y_min, x_max, y_max
