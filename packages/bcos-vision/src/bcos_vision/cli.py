"""``bcos-vision``: train, evaluate, explain, models. Thin: choose a recipe, apply options, call one function."""

import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bcos_core.run.command import CommandParser, parse_config, run_command
from bcos_core.run.config import flatten
from bcos_core.run.error import InputError

from .config import SplitConfig, TrainConfig
from .recipes import RECIPES, recipe_for

if TYPE_CHECKING:
    from .models import TrainedClassifier


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    commands = {
        "train": ("train a classifier, score it, explain it, keep the run", train),
        "evaluate": ("score a run's model", evaluate),
        "explain": ("explain what a run's model sees in a picture", explain),
        "models": ("list the models", models),
    }
    run_command("bcos-vision", commands, sys.argv[1:] if argv is None else argv, _version)


def train(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-vision train", description="Train a classifier, score it and explain it.")
    parser.add_argument("preset", nargs="?", help=f"{', '.join(RECIPES)}; by default the one that suits the data")
    parser.add_argument("--resume", metavar="RUN_ID", help="go on with this run from its last finished epoch")
    parser.add_argument("--config", action="config", help="a file of options (YAML or JSON)")
    parser.add_class_arguments(TrainConfig, as_group=True)
    # the preset sets the defaults that --print_config and --help show, so it has to be known first
    plain = [a for a in argv if not a.startswith("--print_config") and a not in ("-h", "--help")]
    first = parser.parse_args(plain)
    if first.resume is not None:
        if len(argv) > 2 or (len(argv) == 2 and argv[0] != "--resume"):
            parser.error("--resume takes the run's own configuration; give no other option with it")
        from .train import resume

        return _print_result(resume(first.resume))
    recipe = RECIPES[first.preset or recipe_for(first.data)]()
    parser.set_defaults(flatten(recipe))
    config = parse_config(parser, TrainConfig, argv)
    from .train import fit

    return _print_result(fit(config))


def evaluate(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-vision evaluate", description="Score a model on held-out images.")
    _add_model_options(parser)
    parser.add_argument("--data", type=str, default=None, help="other data than the run's, same classes")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="arithmetic")
    parser.add_argument("--num_explained", type=int, default=500, help="images whose completeness is checked")
    parser.add_argument("--out", type=str, default=None, help="folder for confusion.png and metrics.json")
    options = parser.parse_args(list(argv))
    trained, home, config = _load(options)

    import torch
    from bcos_core.run.config import save_values

    from .data import load_data
    from .evaluation import evaluate as score
    from .figures import draw_confusion

    out = _writable_folder(pathlib.Path(options.out) if options.out else home / "evaluation")
    if config is not None and options.data in (None, config.data):
        name, split, side = config.data, config.split, config.image_size
    elif options.data is not None:  # data of its own: score all of it, at the model's size
        name, split = options.data, SplitConfig(test=0, val=0)
        side = trained.image_size[0] if trained.image_size[0] == trained.image_size[1] else None
    else:
        raise InputError("--data: needed with --model_file, which does not know where its data is")
    data = load_data(name, split, image_size=side)
    _check_fits(trained, data.classes, data.channels, name)
    images = next(part for part in (data.test, data.val, data.train) if len(part))
    scores = score(
        trained.model,
        images,
        num_explained=options.num_explained,
        dtype=getattr(torch, options.dtype),
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    draw_confusion(scores.confusion, data.classes, out / "confusion.png", title=f"{name}, {len(images)} images")
    save_values(scores.metrics, out / "metrics.json")
    print(f"{name}: {len(images)} images, {options.dtype}")
    for metric in ("accuracy", "precision", "recall", "loss"):
        print(f"  {metric:<13} {scores.metrics[metric]:.4f}")
    print(
        f"  completeness  largest error {scores.metrics['completeness_error']:.1e} over {scores.num_explained} images"
    )
    print(f"saved {_short(out / 'confusion.png')} and metrics.json")


def explain(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-vision explain", description="Explain what a model sees in pictures.")
    parser.add_argument("images", nargs="+", help="image files")
    _add_model_options(parser)
    parser.add_argument("--target", type=str, default=None, help="class to explain; by default the predicted one")
    parser.add_argument("--out", type=str, default=None, help="PNG to write (one image), or folder")
    options = parser.parse_args(list(argv))
    trained, _, _ = _load(options)
    target = None if options.target is None else trained.class_index(options.target)

    import bcos_core

    from .data import read_image
    from .figures import draw_explanation

    model = trained.model
    paths = [pathlib.Path(p) for p in options.images]
    pixels = [read_image(p, model.in_channels, trained.image_size) for p in paths]  # all read before one is written
    outputs = _outputs(paths, options.out)
    for path, image, output in zip(paths, pixels, outputs, strict=True):
        x = image[None].float() / 255
        found = bcos_core.explain(model, x, target)
        answer, probability = trained.classes[found.logits[0].argmax()], found.logits[0].max().sigmoid()
        explained = trained.classes[found.target[0]]
        title = f"{path.name}: {answer} ({probability:.1%})" + (
            f", explained for {explained}" if target is not None else ""
        )
        draw_explanation(x[0], found, trained.classes, output, title=title)
        logit = found.logits[0, found.target[0]]
        print(f"{path}: {answer} ({probability:.1%})")
        print(
            f"  {explained}: logit {logit:+.3f} = pixels {found.contributions[0].sum():+.3f} "
            f"+ constants {found.remainder[0]:+.3f} (error {found.completeness_error[0]:.0e})"
        )
        print(f"  saved {output}")


def models(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-vision models", description="List the models.")
    parser.parse_args(list(argv))

    from .models.card import model_cards

    print(f"{'model':<12} {'variant':<9} {'parameters':>11} {'multiply-adds':>14}  input")
    for card in model_cards():
        print(
            f"{card.name:<12} {card.variant:<9} {card.parameters / 1e6:>9.2f} M {card.multiply_adds / 1e6:>12.1f} M"
            f"  {card.image_size}x{card.image_size}"
        )


def _add_model_options(parser: CommandParser) -> None:
    parser.add_argument("--run", metavar="RUN_ID", type=str, default=None, help="the run whose model to take")
    parser.add_argument("--model_file", type=str, default=None, help="or a model file (.safetensors)")


def _load(options: object) -> "tuple[TrainedClassifier, pathlib.Path, TrainConfig | None]":
    """The model that the options name, the folder where it lives, and the configuration of its run."""
    run, file = options.run, options.model_file  # type: ignore[attr-defined]
    if (run is None) == (file is None):
        raise InputError("give one of --run RUN_ID and --model_file FILE")
    from .models import TrainedClassifier

    if file is not None:
        return TrainedClassifier.load(pathlib.Path(file)), pathlib.Path(file).parent, None
    from bcos_core.run import config as configuration
    from bcos_core.run.tracking import fetch_artifact, find_run, run_folder

    run_id = find_run(run).id
    path = fetch_artifact(run_id, "model/model.safetensors")
    config = configuration.from_dict(TrainConfig, configuration.load_dict(fetch_artifact(run_id, "config.json")))
    return TrainedClassifier.load(path), run_folder(run_id), config


def _check_fits(trained: "TrainedClassifier", classes: tuple[str, ...], channels: int, data: str) -> None:
    if trained.classes != classes:
        raise InputError(
            f"{data} has {len(classes)} classes ({classes[0]}, ...), the model {len(trained.classes)} "
            f"({trained.classes[0]}, ...): they must be the same, in the same order"
        )
    if trained.model.in_channels != channels:
        raise InputError(f"{data} has {channels} channel(s), the model takes {trained.model.in_channels}")


def _outputs(paths: list[pathlib.Path], out: str | None) -> list[pathlib.Path]:
    if out is not None and out.lower().endswith(".png"):
        if len(paths) > 1:
            raise InputError(f"--out: expected a folder for {len(paths)} images, got {out}")
        return [_writable_folder(pathlib.Path(out).parent) / pathlib.Path(out).name]
    folder = _writable_folder(pathlib.Path(out) if out else pathlib.Path.cwd())
    outputs = [folder / f"{path.stem}-explained.png" for path in paths]
    if twice := [o for o in outputs if outputs.count(o) > 1]:
        raise InputError(f"two images would both be written to {twice[0]}; explain them one at a time, with --out")
    return outputs


def _writable_folder(folder: pathlib.Path) -> pathlib.Path:
    """Make a folder for results, or say why not, before anything is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror})") from None


def _print_result(result: object) -> None:
    from .train import FitResult

    assert isinstance(result, FitResult)
    scores = result.evaluation.metrics
    print(
        f"{result.stage} accuracy {scores['accuracy']:.2%}, precision {scores['precision']:.2%}, "
        f"recall {scores['recall']:.2%}, loss {scores['loss']:.4f}; "
        f"trained in {result.seconds:.1f} s ({result.images_per_second:.0f} images/s)"
    )
    print(
        f"contributions add up to the logit: largest error {scores['completeness_error']:.1e} "
        f"over {result.evaluation.num_explained} explained {result.stage} images"
    )
    print(f"explanations: {_short(result.folder / 'explanations.png')}")
    print(f"run id: {result.run_id}")
    print(f"next: uv run mlflow ui; uv run bcos-vision explain --run {result.run_id[:8]} picture.png")


def _short(path: pathlib.Path) -> pathlib.Path:
    """A path as a person would type it here."""
    here = pathlib.Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _version() -> str:
    from importlib.metadata import version

    import torch
    from bcos_core.functional import kernel_report

    return f"bcos-vision {version('bcos-vision')}, torch {torch.__version__}\nkernels: {kernel_report()}"


if __name__ == "__main__":
    main()
