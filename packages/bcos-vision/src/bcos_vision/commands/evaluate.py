"""``bcos-vision evaluate``: scores on held-out images, over all and class by class."""

import csv
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bcos_core.run.command import CommandParser
from bcos_core.run.error import InputError
from bcos_core.run.result_folder import short, writable_folder
from bcos_core.run.split import SplitConfig

from .model_option import ModelChoice, add_model_options, choose_model

if TYPE_CHECKING:
    from bcos_vision.data import ImageData
    from bcos_vision.evaluation import ClassScores

MOST_CLASSES = 25
"""Classes that are printed; more are in the file."""


def evaluate(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-vision evaluate", description="Score a model on held-out images.")
    add_model_options(parser)
    parser.add_argument("--data", type=str, default=None, help="other data than the run's, of classes the model knows")
    parser.add_argument("--skip_corrupt", action="store_true", help="leave out images that cannot be decoded")
    parser.add_argument("--batch_size", type=int, default=64, help="images at a time")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="arithmetic")
    parser.add_argument("--num_explained", type=int, default=500, help="images whose completeness is checked")
    parser.add_argument(
        "--out", type=str, default=None, help="folder for per_class.csv, confusion.png and metrics.json"
    )
    options = parser.parse_args(list(argv))
    for name, least in (("batch_size", 1), ("num_explained", 0)):
        if (value := getattr(options, name)) < least:
            parser.error(f"--{name}: expected at least {least}, got {value}")
    choice = choose_model(options, name_column=0)

    import torch
    from bcos_core.run.config import save_values

    from bcos_vision.data import absolute, load_data
    from bcos_vision.evaluation import MatchedImages, scored_loss
    from bcos_vision.evaluation import evaluate as score
    from bcos_vision.figures import draw_confusion

    trained, config = choice.trained, choice.config
    height, width = trained.image_size
    skip_corrupt = options.skip_corrupt
    own = config is not None and (options.data is None or absolute(options.data) == config.data)
    if own and config is not None:
        name, split = config.data, config.split
        sizes = {o: getattr(config, o) for o in ("image_size", "eval_size", "eval_resize")}
        skip_corrupt |= config.skip_corrupt  # or the split would be another
    elif options.data is not None:  # data of its own: score all of it, at the model's size
        name, split = options.data, SplitConfig(test=1, val=0)
        sizes = {"image_size": height if height == width else None, "eval_resize": trained.resize}
    else:
        raise InputError("--data: needed with --model_file, which does not know where its data is")
    data = load_data(name, split, **sizes, skip_corrupt=skip_corrupt)
    usual = "evaluation" if own else "evaluation-" + re.sub(r"[^\w.-]+", "_", data.name)  # of each data its own
    out = writable_folder(pathlib.Path(options.out) if options.out else choice.folder / usual)
    if own and data.fingerprint != choice.fingerprint:
        raise InputError(
            f"{name} has changed since the run: what was held out then may not be now; to score all of a folder "
            "that the model was not trained on, give it with --data"
        )
    index = match_classes(choice, data, name)
    part = next(part for part in (data.test, data.val, data.train) if len(part))
    scores = score(
        trained.model,
        MatchedImages(part, torch.tensor(index)),
        batch_size=options.batch_size,
        num_explained=options.num_explained,
        dtype=getattr(torch, options.dtype),
        device="cuda" if torch.cuda.is_available() else "cpu",
        loss=scored_loss(trained.loss),
    )
    names = dict(zip(index, data.classes, strict=True))
    confusion = scores.confusion[index]
    elsewhere = confusion.sum(1, keepdim=True) - confusion[:, index].sum(1, keepdim=True)
    confusion = torch.cat([confusion[:, index], elsewhere], 1) if elsewhere.any() else confusion[:, index]
    draw_confusion(confusion, data.classes, out / "confusion.png", title=f"{name}, {len(part)} images")
    save_values(scores.metrics, out / "metrics.json")
    _save_per_class(scores.per_class, names, out / "per_class.csv")
    known = f", {len(index)} of the model's {len(trained.classes)} classes" * (len(index) < len(trained.classes))
    print(f"{name}: {len(part)} images{known}, {options.dtype}")
    for metric, label in (("accuracy", "accuracy"), ("top5_accuracy", "top-5"), ("precision", "precision")):
        if metric in scores.metrics:
            print(f"  {label:<13} {scores.metrics[metric]:.4f}")
    for metric in ("recall", "loss"):
        print(f"  {metric:<13} {scores.metrics[metric]:.4f}")
    print(
        f"  completeness  largest error {scores.metrics['completeness_error']:.1e} over {scores.num_explained} images"
    )
    _print_per_class(scores.per_class, names)
    print(f"saved {short(out / 'per_class.csv')}, confusion.png and metrics.json")


def match_classes(choice: ModelChoice, data: "ImageData", name: str) -> list[int]:
    """The model's number of each class of the data, matched by name.

    Raises:
        InputError: If the model lacks one of the classes, or takes other channels.
    """
    trained = choice.trained
    if trained.model.in_channels != data.channels:
        raise InputError(f"{name} has {data.channels} channel(s), the model takes {trained.model.in_channels}")
    if not choice.named and len(data.classes) == len(trained.classes):
        return list(range(len(data.classes)))  # folders in the order of their names, as ImageNet numbers its classes
    number = {known: i for i, known in enumerate(trained.classes)}
    if data.folders and all(folder in number for folder in data.folders):
        return [number[folder] for folder in data.folders]
    if unknown := [known for known in data.classes if known not in number]:
        remedy = "" if choice.named else "; --class_names FILE says what the model's are called"
        raise InputError(
            f'{name}: the model does not know its class "{unknown[0]}"; it knows {len(number)} '
            f"({trained.classes[0]}, {trained.classes[1] if len(number) > 1 else ''}, ...){remedy}"
        )
    return [number[known] for known in data.classes]


def _save_per_class(scores: "Sequence[ClassScores]", names: dict[int, str], path: pathlib.Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("class", "images", "precision", "recall", "f1", "confidence"))
        table.writerows((names[s.index], s.images, s.precision, s.recall, s.f1, s.confidence) for s in scores)


def _print_per_class(scores: "Sequence[ClassScores]", names: dict[int, str]) -> None:
    hidden = len(scores) - MOST_CLASSES
    shown = scores if hidden <= 0 else sorted(scores, key=lambda s: s.f1)[:MOST_CLASSES]
    width = min(40, max(len(names[s.index]) for s in shown))
    print(f"\n  {'class':<{width}}  images  precision  recall      F1  confidence")
    for s in shown:
        print(
            f"  {names[s.index][:width]:<{width}}  {s.images:>6}  {s.precision:>9.4f}  {s.recall:>6.4f}  {s.f1:>6.4f}"
            f"  {s.confidence:>10.4f}"
        )
    print(f"  the {MOST_CLASSES} of lowest F1; {hidden} better ones are in per_class.csv\n" if hidden > 0 else "")
