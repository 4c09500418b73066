"""Explanations of image files: found in folders, explained in batches, kept as pictures, arrays and a table.

No more than a batch of images is in memory at a time.
"""

import csv
import os
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from bcos_core import Explanation, explain
from bcos_core.explanation import Comparison, compare
from bcos_core.run.error import InputError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from .data import read_image, to_unit_range
from .data.files import report_unread
from .figures import draw_comparison, draw_explanation, draw_plain
from .models import TrainedClassifier
from .probability import probabilities
from .progress import track

COLUMNS = (
    *("image", "predicted", "probability", "explained"),
    *("logit", "contributions", "remainder", "completeness_error"),
)
"""Of the table; in a comparison the logit and what adds up to it are differences, and ``explained`` reads A - B."""


def find_images(arguments: Sequence[str], out: pathlib.Path | None = None) -> list[pathlib.Path]:
    """Image files that arguments name, and all those in the folders that they name, at any depth.

    Args:
        arguments: Files and folders. Hidden files in folders, and hidden folders, are passed over.
        out: Folder of results, which is passed over too.

    Raises:
        InputError: If an argument does not exist, or a folder holds no image.
    """
    found: dict[str, pathlib.Path] = {}
    for argument in map(pathlib.Path, arguments):
        if not argument.is_dir():
            if not argument.exists():
                raise InputError(f"{argument}: no such file")
            found[os.path.abspath(argument)] = argument
            continue
        if out is not None and out.resolve() == argument.resolve():
            raise InputError(f"--out: {out} is the folder of the images; give another, or one inside it")
        count, unread = len(found), []
        for folder, folders, files in os.walk(argument):
            own = (pathlib.Path(folder) / name for name in folders)
            folders[:] = sorted(p.name for p in own if p.name[0] != "." and not (out and p.resolve() == out.resolve()))
            names = (name for name in sorted(files) if name[0] != "." and name.lower().endswith(IMG_EXTENSIONS))
            unread += files
            found.update((os.path.abspath(path), path) for path in (pathlib.Path(folder) / name for name in names))
        if len(found) == count:
            raise InputError(f"{argument}: no images in it (known endings: {', '.join(IMG_EXTENSIONS)})")
        report_unread(argument, unread)
    return list(found.values())


def name_results(paths: Sequence[pathlib.Path], arguments: Sequence[str]) -> list[pathlib.PurePath]:
    """Where each image's results go, without ending, below the folder of results: as the images lie themselves.

    Example:
        >>> name_results([pathlib.Path("a/x/1.png"), pathlib.Path("a/y/1.png"), pathlib.Path("a/y/1.jpg")], ["a"])
        [PurePosixPath('x/1-explained'), PurePosixPath('y/1.png-explained'), PurePosixPath('y/1.jpg-explained')]
    """
    given = [os.path.abspath(a) for a in arguments]
    files = set(map(os.path.abspath, paths))
    root = os.path.commonpath([os.path.dirname(a) if a in files else a for a in given])
    relative = [pathlib.PurePath(os.path.relpath(path, root)) for path in paths]
    stems = Counter(path.with_suffix("") for path in relative)
    return [p.with_name(f"{p.stem if stems[p.with_suffix('')] == 1 else p.name}-explained") for p in relative]


@dataclass(frozen=True)
class Request:
    """What is to be explained, and how it is kept."""

    trained: TrainedClassifier
    classes: tuple[int | None, ...] = (None,)
    """Classes to explain for each image; None is the predicted one."""
    versus: tuple[int, int] | None = None
    """Instead: why the first of two classes and not the second."""
    formats: tuple[str, ...] = ("png",)
    """Of "png" and "npz"."""
    full: bool = True
    """Pictures with image, heat map and titles; otherwise the explanation alone."""
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    def read(self, path: pathlib.Path) -> Tensor:
        """An image as the model expects it: bytes, (C, H, W).

        Raises:
            InputError: If it cannot be read.
        """
        trained = self.trained
        return read_image(path, trained.model.in_channels, trained.image_size, trained.resize)

    def explain(self, x: Tensor) -> Iterator[tuple[str, str, "Explanation | Comparison"]]:
        """For each explanation of a batch: its name in a file's, the words for it, and itself."""
        names, model = self.trained.classes, self.trained.model
        if self.versus is not None:
            a, b = self.versus
            yield "", f"{names[a]} - {names[b]}", compare(model, x, a, b)
            return
        for k in self.classes:
            word = "" if k is None else re.sub(r"[^\w.-]+", "_", names[k])[:60]
            part = f"{k}-{word}" if len(self.classes) > 1 else ""
            yield part, "" if k is None else names[k], explain(model, x, k)


@dataclass
class Summary:
    """What was done."""

    images: int = 0
    results: int = 0
    largest_error: float = 0.0
    worst: pathlib.Path | None = None
    """Image of the largest completeness error."""
    skipped: list[str] = field(default_factory=list)
    """Why each image that was left out could not be read."""


@dataclass(frozen=True)
class Result:
    """One explanation of one image."""

    path: pathlib.Path
    image: Tensor
    """In [0, 1], (C, H, W)."""
    explanation: Explanation | Comparison
    """Of this image alone, on the CPU."""
    predicted: str
    probability: float
    explained: str
    files: tuple[pathlib.Path, ...]

    @property
    def row(self) -> tuple[object, ...]:
        """Of the table."""
        e = self.explanation
        return (
            *(str(self.path), self.predicted, self.probability, self.explained),
            *(float(v[0]) for v in (e.logit, e.contributions.flatten(1).sum(1), e.remainder, e.completeness_error)),
        )


def check_images(request: Request, paths: Sequence[pathlib.Path]) -> None:
    """Decode every image once, so that a damaged one is known before anything is written.

    Raises:
        InputError: Naming the first that cannot be read.
    """
    channels = request.trained.model.in_channels
    with ThreadPoolExecutor() as pool:
        for batch in track(_batches(paths, 256), "checking images", -(-len(paths) // 256)):
            list(pool.map(lambda path: read_image(path, channels).shape, batch))


def explain_files(
    request: Request,
    paths: Sequence[pathlib.Path],
    stems: Sequence[pathlib.Path],
    *,
    batch_size: int = 16,
    table: pathlib.Path | None = None,
    skip_corrupt: bool = False,
    report: Callable[[Result], None] = lambda _result: None,
) -> Summary:
    """Explain image files and keep what was found.

    Args:
        request: What to explain, and how to keep it.
        paths: The images.
        stems: For each image the path of its results, without ending.
        batch_size: Images at a time.
        table: CSV to write, a line for each explanation (:data:`COLUMNS`); the lines of each batch as it is done.
        skip_corrupt: Go on without images that cannot be read.
        report: Called with each explanation, once it is kept.

    Raises:
        InputError: If an image cannot be read and ``skip_corrupt`` is off, or none can.
    """
    request.trained.model.to(request.device, request.dtype).eval()
    summary = Summary()
    pairs = list(zip(paths, stems, strict=True))
    with ThreadPoolExecutor() as pool, _Table(table) as rows:
        for batch in track(_batches(pairs, batch_size), "explaining", -(-len(pairs) // batch_size)):
            read = list(pool.map(lambda pair: _try_to_read(request, pair[0]), batch))
            for failed in (r for r in read if isinstance(r, InputError)):
                if not skip_corrupt:
                    raise failed
                summary.skipped.append(str(failed))
            kept = [(pair, image) for pair, image in zip(batch, read, strict=True) if isinstance(image, Tensor)]
            if not kept:
                continue
            summary.images += len(kept)
            x = to_unit_range(torch.stack([image for _, image in kept]).to(request.device), request.dtype)
            for part, words, found in request.explain(x):
                results = list(_results(request, [pair for pair, _ in kept], x, part, words, found))
                for result in results:
                    if request.full:  # matplotlib wants one thread
                        _keep(request, result)
                if not request.full:
                    list(pool.map(lambda result: _keep(request, result), results))
                for result in results:
                    rows.write(result.row)
                    report(result)
                    error = float(result.explanation.completeness_error[0])
                    summary.results += 1
                    if summary.worst is None or not error <= summary.largest_error:  # a NaN is the worst there is
                        summary.largest_error, summary.worst = error, result.path
    if not summary.images:
        raise InputError(f"none of the {len(paths)} images can be read; the first: {summary.skipped[0]}")
    return summary


class _Table:
    """Lines of a CSV file, or of none."""

    def __init__(self, path: pathlib.Path | None) -> None:
        self._file = None if path is None else path.open("w", newline="", encoding="utf-8")
        self.write(COLUMNS)

    def write(self, row: Sequence[object]) -> None:
        if self._file is not None:
            csv.writer(self._file).writerow(row)

    def __enter__(self) -> "_Table":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _batches(items: Sequence, size: int) -> Iterator[Sequence]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _try_to_read(request: Request, path: pathlib.Path) -> Tensor | InputError:
    try:
        return request.read(path)
    except InputError as error:
        return error


def _results(
    request: Request,
    pairs: Sequence[tuple[pathlib.Path, pathlib.Path]],
    x: Tensor,
    part: str,
    words: str,
    found: Explanation | Comparison,
) -> Iterator[Result]:
    names = request.trained.classes
    chances = probabilities(found.logits, softmax=request.trained.softmax).cpu()
    for i, (path, stem) in enumerate(pairs):
        own = found.at(i).cpu()
        predicted = int(own.logits[0].argmax())
        base = stem / part if part else stem
        yield Result(
            path=path,
            image=x[i].cpu(),
            explanation=own,
            predicted=names[predicted],
            probability=float(chances[i, predicted]),
            explained=words or names[predicted],
            files=tuple(base.with_name(f"{base.name}.{ending}") for ending in request.formats),
        )


def _keep(request: Request, result: Result) -> None:
    names, found = request.trained.classes, result.explanation
    result.files[0].parent.mkdir(parents=True, exist_ok=True)
    for file in result.files:
        if file.suffix == ".npz":
            _save_arrays(request, result, file)
        elif not request.full:
            draw_plain(found, file)
        elif isinstance(found, Comparison):
            first, second = (names[int(e.target[0])] for e in (found.first, found.second))
            title = f"{result.path.name}: {result.predicted} ({result.probability:.1%}). Why {first}, not {second}?"
            draw_comparison(result.image, found, names, file, title=title)
        else:
            title = f"{result.path.name}: {result.predicted} ({result.probability:.1%})"
            title += f", explained for {result.explained}" * (request.classes != (None,))
            draw_explanation(result.image, found, names, file, title=title, softmax=request.trained.softmax)


def _save_arrays(request: Request, result: Result, file: pathlib.Path) -> None:
    found = result.explanation
    arrays = {
        "contributions": found.contributions[0],
        "contribution_map": found.contribution_map[0],
        "logits": found.logits[0],
        "remainder": found.remainder[0],
        "completeness_error": found.completeness_error[0],
        "image": (result.image * 255).round().to(torch.uint8),
    }
    if isinstance(found, Comparison):
        arrays["target"] = torch.cat([found.first.target, found.second.target])
        arrays["contributions_first"] = found.first.contributions[0]
        arrays["contributions_second"] = found.second.contributions[0]
    else:
        arrays["target"] = found.target[0]
    kept = {name: values.numpy() for name, values in arrays.items()}
    np.savez(file, allow_pickle=False, classes=np.array(request.trained.classes), **kept)
