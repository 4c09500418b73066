"""``bcos-eval attribute``: what attribution methods say of pictures, method by method."""

import csv
import pathlib
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bcos_core.run.command import CommandParser, given_options
from bcos_core.run.error import InputError
from bcos_core.run.result_folder import short, writable_folder
from bcos_vision.commands.model_option import ModelChoice, add_model_options, choose_model

if TYPE_CHECKING:
    from torch import Tensor

    from bcos_eval.attribution import Attribution, Attributor

MOST_DRAWN = 12
"""Images in the gallery; more are in the table and the arrays."""

DESCRIPTION = """Attribute a model's answers by many methods, and see where they agree.
Writes gallery.png (methods x images); table.csv (image, method, target, seconds, residual, coincides_with); and
attributions.npz, for numpy.load: for each method its maps (N, H, W), images (N, C, H, W), bytes as the model saw them,
target (N,), names (N,) and classes (K,)."""


@dataclass(frozen=True)
class _Pictures:
    names: list[str]
    images: "Tensor"
    """Bytes, (N, C, H, W)."""


@dataclass(frozen=True)
class _Found:
    """What a method says of all pictures."""

    method: str
    maps: "Tensor"
    seconds: float
    """For an image."""
    residual: "Tensor | None"


def attribute(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-eval attribute", description=DESCRIPTION)
    parser.add_argument("images", nargs="*", help="image files, and folders of them at any depth")
    add_model_options(parser)
    parser.add_argument("--data", type=str, default=None, help="instead of files: test images of this data")
    parser.add_argument("--count", type=int, default=6, help="with --data: how many, evenly spread")
    parser.add_argument(
        "--methods",
        type=str,
        default="quick",
        help="names separated by commas; quick: those of less than a hundred passes for an image; or all",
    )
    parser.add_argument("--target", type=str, default="predicted", help="class to attribute: predicted, name or number")
    parser.add_argument(
        "--baseline",
        choices=["grey", "black", "mean", "blur", "zero"],
        default=None,
        help="what images are compared with, by the methods that do; zero is of the encoded input [grey]",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what methods draw at random")
    parser.add_argument("--out", type=str, default="attributions", help="folder to write")
    options = parser.parse_args(list(argv))
    if bool(options.images) == (options.data is not None):
        parser.error("give image files, or --data NAME")
    if options.count < 1:
        parser.error(f"--count: expected at least 1, got {options.count}")
    given = given_options(argv)
    if "count" in given and options.data is None:
        parser.error("--count: belongs to --data; of files all are taken")
    if "variant" in given and options.model is None:
        parser.error("--variant: belongs to --model; other models know their own")
    choice = choose_model(options, name_column=-1)
    target = None if options.target == "predicted" else choice.trained.class_index(options.target)

    from bcos_eval.attribution import coincidences

    names = _choose_methods(options.methods, options.baseline)
    attributors, left_out = _prepare(choice, names, options)
    pictures = _read(options, choice)
    out = writable_folder(pathlib.Path(options.out))
    found, targets = _attribute_all(choice, pictures, attributors, target, left_out)
    groups = coincidences({f.method: f.maps for f in found})
    same = {name: tuple(other for other in group if other != name) for group in groups for name in group}
    _save(out, choice, pictures, found, targets, same)
    title = f"{choice.trained.model.description['name']}, {choice.trained.model.kind}"
    _draw(out / "gallery.png", choice, pictures, found, targets, same, title)
    _print(found, same)
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    print(f"saved {short(out / 'gallery.png')}, table.csv and attributions.npz")
    if len(pictures.names) > MOST_DRAWN:
        print(f"the gallery shows {MOST_DRAWN} of {len(pictures.names)} images; the other files have all")
    if options.model is None:  # localise takes models that say what they are
        kind, place = ("run", options.run) if options.run else ("model_file", options.model_file)
        named = shlex.quote(f"{choice.trained.model.kind}={place}")
        methods = "" if options.methods == "quick" else f" --methods {shlex.quote(options.methods)}"
        print(f"next: bcos-eval localise --{kind} {named}{methods}   (scores where these methods point)")


def _choose_methods(given: str, baseline: str | None) -> tuple[str, ...]:
    from bcos_eval.attribution import METHODS

    if given == "all":
        return tuple(METHODS)
    if given == "quick":
        return tuple(name for name, method in METHODS.items() if method.is_quick)
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",")))
    chosen = [METHODS[name] for name in names]  # an unknown one is refused with the nearest name
    if baseline is not None and not any("baseline" in method.options for method in chosen):
        raise InputError(f"--baseline: none of {', '.join(names)} compares with one")
    return names


def _prepare(choice: ModelChoice, names: Sequence[str], options: Any) -> "tuple[dict[str, Attributor], dict[str, str]]":
    """The methods, and why some of them cannot do what is asked; a method that was named is refused instead."""
    from bcos_eval.attribution import METHODS, create_attributor

    made, left_out = {}, {}
    for name in names:
        own = {"baseline": options.baseline} if METHODS[name].baselines else {}
        try:
            made[name] = create_attributor(name, choice.trained.model, seed=options.seed, **own)
        except InputError as error:
            if options.methods not in ("all", "quick"):
                raise
            left_out[name] = str(error)
    return made, left_out


def _read(options: Any, choice: ModelChoice) -> _Pictures:
    """Pictures as the model expects them."""
    import torch
    from bcos_vision.data import load_data, read_image
    from bcos_vision.explanation_files import find_images

    trained = choice.trained
    if options.images:
        paths = find_images(options.images, pathlib.Path(options.out))
        size, channels = trained.image_size, trained.model.in_channels
        return _Pictures(
            [str(path) for path in paths],
            torch.stack([read_image(path, channels, size, trained.resize) for path in paths]),
        )
    height, width = trained.image_size
    split = choice.config.split if choice.config else None  # the run's: what it held out
    side = height if height == width else None
    data = load_data(options.data, split, image_size=side, eval_resize=trained.resize)
    if data.channels != trained.model.in_channels:
        raise InputError(f"{options.data} has {data.channels} channel(s), the model takes {trained.model.in_channels}")
    part = next(part for part in (data.test, data.val, data.train) if len(part))
    index = torch.linspace(0, len(part) - 1, min(options.count, len(part))).round().long().tolist()
    images, labels = part[index]
    return _Pictures(
        [f"{options.data} {i} ({data.classes[k]})" for i, k in zip(index, labels.tolist(), strict=True)], images
    )


def _attribute_all(
    choice: ModelChoice,
    pictures: _Pictures,
    attributors: "dict[str, Attributor]",
    target: int | None,
    left_out: dict[str, str],
) -> "tuple[list[_Found], Tensor]":
    """Every method on every picture, some pictures at a time; adds to ``left_out`` those that cannot."""
    import torch
    from bcos_vision.data import to_unit_range
    from bcos_vision.progress import track

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = choice.trained.model.to(device).eval()
    batches = pictures.images.split(8)
    with torch.no_grad():
        logits = torch.cat([model(to_unit_range(batch.to(device))) for batch in batches])
    targets = logits.argmax(1) if target is None else torch.full((len(logits),), target, device=device)
    parts: dict[str, list[Attribution]] = {name: [] for name in attributors}
    seconds = dict.fromkeys(attributors, 0.0)
    work = [(name, i) for i in range(len(batches)) for name in attributors]
    for name, i in track(work, "attributing", len(work)):
        if name in left_out:
            continue
        x = to_unit_range(batches[i].to(device))
        began = time.perf_counter()
        try:
            part = attributors[name].attribute(x, targets[8 * i : 8 * i + 8])
        except InputError as error:
            left_out[name] = str(error)
            continue
        part.map.cpu()  # a GPU answers before it is done
        seconds[name] += time.perf_counter() - began
        parts[name].append(part)
    found = []
    for name, own in parts.items():
        if name in left_out:
            continue
        residuals = [part.residual for part in own if part.residual is not None]
        found.append(
            _Found(
                name,
                torch.cat([part.map for part in own]).cpu(),
                seconds[name] / len(logits),
                torch.cat(residuals).cpu() if residuals else None,
            )
        )
    if not found:
        raise InputError(f"no method worked: {next(iter(left_out.values()))}")
    return found, targets.cpu()


def _save(
    out: pathlib.Path,
    choice: ModelChoice,
    pictures: _Pictures,
    found: Sequence[_Found],
    targets: "Tensor",
    same: dict[str, tuple[str, ...]],
) -> None:
    import numpy as np

    classes = choice.trained.classes
    with (out / "table.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("image", "method", "target", "seconds", "residual", "coincides_with"))
        for i, name in enumerate(pictures.names):
            for f in found:
                residual = "" if f.residual is None else float(f.residual[i])
                others = " ".join(same.get(f.method, ()))
                table.writerow((name, f.method, classes[int(targets[i])], f.seconds, residual, others))
    np.savez(
        out / "attributions.npz",
        allow_pickle=False,
        images=pictures.images.numpy(),
        target=targets.numpy(),
        names=np.array(pictures.names),
        classes=np.array(classes),
        **{f.method: f.maps.numpy() for f in found},  # type: ignore[arg-type]
    )


def _draw(
    path: pathlib.Path,
    choice: ModelChoice,
    pictures: _Pictures,
    found: Sequence[_Found],
    targets: "Tensor",
    same: dict[str, tuple[str, ...]],
    title: str,
) -> None:
    from bcos_vision.data import to_unit_range

    from bcos_eval.figures.gallery import GalleryRow, draw_gallery

    rows = []
    for f in found:
        notes = [f"{_time(f.seconds)} an image"]
        if f.residual is not None:
            notes.append(f"residual up to {float(f.residual.max()):.1g}")
        if f.method in same:
            notes.append(f"same as {', '.join(same[f.method])}")
        rows.append(GalleryRow(f.method, f.maps[:MOST_DRAWN], tuple(notes)))
    captions = [choice.trained.classes[int(k)] for k in targets[:MOST_DRAWN]]
    draw_gallery(to_unit_range(pictures.images[:MOST_DRAWN]), captions, rows, path, title=title)


def _print(found: Sequence[_Found], same: dict[str, tuple[str, ...]]) -> None:
    print(f"{'method':<22}{'an image':>10}{'residual':>11}  same as")
    for f in found:
        residual = "" if f.residual is None else f"{float(f.residual.max()):.1e}"
        print(f"{f.method:<22}{_time(f.seconds):>10}{residual:>11}  {', '.join(same.get(f.method, ()))}".rstrip())
    print("residual: how far a map is from adding up to what its method promises, the largest over the images")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
