"""Which model a command is about: a run's, one of our files, or a public checkpoint with the name of its network."""

import csv
import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bcos_core.run.command import CommandParser
from bcos_core.run.error import InputError

from bcos_vision.config import TrainConfig

if TYPE_CHECKING:
    from bcos_vision.models import TrainedClassifier


@dataclass(frozen=True)
class ModelChoice:
    """A model, and what is known about it."""

    trained: "TrainedClassifier"
    folder: pathlib.Path
    """Where it lives."""
    config: TrainConfig | None
    """Of its run."""
    named: bool
    """Whether its classes have names; otherwise they are called by their numbers."""
    fingerprint: str | None = None
    """Of the data of its run."""


def add_model_options(parser: CommandParser) -> None:
    """Add the options that :func:`choose_model` reads."""
    parser.add_argument("--run", metavar="RUN_ID", type=str, default=None, help="the run whose model to take")
    parser.add_argument("--model_file", metavar="FILE", type=str, default=None, help="or a model file")
    parser.add_argument(
        "--model",
        metavar="NAME",
        type=str,
        default=None,
        help="the network of a public checkpoint (--model_file), which does not say so itself",
    )
    parser.add_argument(
        "--variant", choices=["bcos", "baseline", "standard"], default="bcos", help="with --model: its kind of layers"
    )
    parser.add_argument(
        "--class_names",
        metavar="FILE",
        type=str,
        default=None,
        help="with --model: names of its classes, one a line; or a .csv with a header, whose first column has the "
        "names of data folders, its last those to show",
    )


def choose_model(options: Any, *, name_column: int) -> ModelChoice:
    """Load the model that the options name, in evaluation mode.

    Args:
        options: Parsed, of a parser with :func:`add_model_options`.
        name_column: Column of a table of class names: 0 for names of folders, -1 for names to show.

    Raises:
        InputError: If none or two are named, or the file is not a model.
    """
    if (options.run is None) == (options.model_file is None):
        raise InputError("give one of --run RUN_ID and --model_file FILE")
    if options.model is not None:
        if options.model_file is None:
            raise InputError("--model: belongs to --model_file; a run knows its own")
        return _public(options, name_column)
    if options.class_names is not None:
        raise InputError("--class_names: belongs to --model and --model_file; other models know their classes")
    from bcos_vision.models import TrainedClassifier

    if options.model_file is not None:
        file = pathlib.Path(options.model_file)
        return ModelChoice(TrainedClassifier.load(file), file.parent, None, named=True)
    from bcos_core.run.tracking import fetch_artifact, fetch_config, find_run, run_folder

    record = find_run(options.run)
    run_id = record.id
    config = fetch_config(run_id, TrainConfig)
    path = fetch_artifact(run_id, "model/model.safetensors")
    fingerprint = record.tags.get("data_fingerprint")
    return ModelChoice(TrainedClassifier.load(path), run_folder(run_id), config, named=True, fingerprint=fingerprint)


def _public(options: Any, name_column: int) -> ModelChoice:
    from bcos_vision.models import TrainedClassifier, architecture, create_model
    from bcos_vision.models.public import count_classes

    file = pathlib.Path(options.model_file)
    side = architecture(options.model).image_size
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    num_classes = count_classes(file)
    model = create_model(options.model, num_classes=num_classes, variant=options.variant, weights=file).eval()
    names = tuple(map(str, range(num_classes)))
    if options.class_names is not None:
        names = _read_names(pathlib.Path(options.class_names), name_column)
        if len(names) != num_classes:
            raise InputError(f"{options.class_names}: {len(names)} names for the {num_classes} classes of {file}")
    trained = TrainedClassifier(
        model,
        names,
        (side, side),
        data="",
        resize=256 if side == 224 else None,  # as ImageNet's networks are scored
        loss="cross_entropy" if model.description["variant"] == "standard" else "bce",  # as they were published
    )
    return ModelChoice(trained, file.parent, None, named=options.class_names is not None)


def _read_names(file: pathlib.Path, column: int) -> tuple[str, ...]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--class_names: {file} cannot be read ({error})") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if file.suffix.lower() == ".csv":
        return tuple(row[column] for row in csv.reader(lines[1:]))
    return tuple(line.strip() for line in lines)
