"""``bcos-vision explain``: why a model answers what it answers, for pictures and folders of them."""

import pathlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bcos_core.run.command import CommandParser
from bcos_core.run.error import InputError
from bcos_core.run.result_folder import short, writable_folder

from .model_option import add_model_options, choose_model

if TYPE_CHECKING:
    from bcos_vision.explanation_files import Result
    from bcos_vision.models import TrainedClassifier

FEW = 12
"""Images named one by one, up to which each has its lines and its large picture."""

DESCRIPTION = """Explain what a model sees in pictures.
One picture becomes NAME-explained.png here; several, or a folder, become a folder that mirrors theirs, with table.csv:
image, predicted class and its probability, explained class, its logit, what the pixels contribute, the remainder (what
no pixel is responsible for), and the completeness error (how far these two are from the logit).
An .npz holds, for numpy.load: contributions (C, H, W), of the encoded image ([x, 1-x] for variant bcos);
contribution_map (H, W), their sum over C; logits (K,); classes (K,); target; remainder; completeness_error; and image
(C, H, W), bytes as the model saw them. With --compare, target is both classes; contributions, contribution_map and
remainder are differences; contributions_first and contributions_second are of each."""


def explain(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-vision explain", description=DESCRIPTION)
    parser.add_argument("images", nargs="+", help="image files, and folders of them at any depth")
    add_model_options(parser)
    parser.add_argument(
        "--classes",
        type=str,
        default="predicted",
        help="what to explain: predicted, all, or classes by name or number, separated by commas",
    )
    parser.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), type=str, default=None, help="instead: why class A and not class B"
    )
    parser.add_argument("--format", type=str, default="png", help="png, npz or png,npz")
    parser.add_argument(
        "--picture",
        choices=["full", "plain"],
        default=None,
        help="full: image, explanation, heat map, scores (the default for a few files); plain: the explanation alone, "
        "some 30 times faster (the default for folders)",
    )
    parser.add_argument("--out", type=str, default=None, help="folder to write [explanations], or for one image a .png")
    parser.add_argument("--batch_size", type=int, default=16, help="images at a time")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="arithmetic")
    parser.add_argument("--skip_corrupt", action="store_true", help="go on without images that cannot be decoded")
    options = parser.parse_args(list(argv))
    formats = tuple(dict.fromkeys(options.format.split(",")))
    if unknown := [f for f in formats if f not in ("png", "npz")]:
        parser.error(f'--format: expected png, npz or png,npz, got "{unknown[0]}"')
    if options.batch_size < 1:
        parser.error(f"--batch_size: expected at least 1, got {options.batch_size}")
    if options.compare and options.classes != "predicted":
        parser.error("--classes and --compare: give one of them")
    choice = choose_model(options, name_column=-1)
    classes, versus = _targets(options, choice.trained)

    import torch
    from torchvision.datasets.folder import IMG_EXTENSIONS

    from bcos_vision.explanation_files import Request, check_images, explain_files, find_images, name_results

    alone = len(options.images) == 1 and not pathlib.Path(options.images[0]).is_dir()
    single_file = options.out is not None and options.out.lower().endswith(".png")
    if single_file and not (alone and len(classes) == 1 and formats == ("png",)):
        raise InputError(f"--out: expected a folder, got {options.out}: there is more to write than one picture")
    if options.out is not None and not single_file and options.out.lower().endswith(IMG_EXTENSIONS):
        raise InputError(f"--out: expected a folder, or for one image a .png, got {options.out}")
    out = pathlib.Path(options.out or ("." if alone else "explanations"))
    paths = find_images(options.images, None if alone else out)
    few = len(paths) <= FEW and not any(pathlib.Path(p).is_dir() for p in options.images)
    request = Request(
        trained=choice.trained,
        classes=classes,
        versus=versus,
        formats=formats,
        full=few if options.picture is None else options.picture == "full",
        dtype=getattr(torch, options.dtype),
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    if not options.skip_corrupt:
        check_images(request, paths)
    if single_file:
        stems = [writable_folder(out.parent) / out.stem]
    else:
        folder = writable_folder(out)
        stems = [folder / name for name in name_results(paths, options.images)]
    began = time.monotonic()
    summary = explain_files(
        request,
        paths,
        stems,
        batch_size=options.batch_size,
        table=None if single_file or (options.out is None and alone) else out / "table.csv",
        skip_corrupt=options.skip_corrupt,
        report=_print_result if few else lambda _result: None,
    )
    for line in summary.skipped:
        sys.stderr.write(f"left out: {line}\n")
    if alone:
        return
    rate = summary.images / (time.monotonic() - began)
    print(
        f"{summary.images} images, {summary.results} explanations, {rate:.1f} images/s"
        + f", {len(summary.skipped)} left out that cannot be decoded" * bool(summary.skipped)
    )
    print(f"largest completeness error {summary.largest_error:.1e} ({summary.worst})")
    print(f"saved {short(out / 'table.csv')} and {' and '.join(f'{summary.results} {f}' for f in formats)} beside it")


def _targets(options: Any, trained: "TrainedClassifier") -> tuple[tuple[int | None, ...], tuple[int, int] | None]:
    """Classes to explain, None for the predicted one; or the two to compare."""
    if options.compare:
        first, second = map(trained.class_index, options.compare)
        if first == second:
            raise InputError(f'--compare: expected two classes, got "{trained.classes[first]}" twice')
        return (None,), (first, second)
    if options.classes == "predicted":
        return (None,), None
    if options.classes == "all":
        return tuple(range(len(trained.classes))), None
    whole = options.classes in trained.classes  # its name may have commas
    names = [options.classes] if whole else [name.strip() for name in options.classes.split(",")]
    return tuple(dict.fromkeys(map(trained.class_index, names))), None


def _print_result(result: "Result") -> None:
    _, predicted, probability, explained, logit, total, rest, error = result.row
    print(f"{result.path}: {predicted} ({probability:.1%})")
    print(
        f"  {explained}: logit {logit:+.3f} = pixels {total:+.3f} + constants {rest:+.3f} (error {error:.0e})\n"
        f"  saved {', '.join(str(short(file)) for file in result.files)}"
    )
