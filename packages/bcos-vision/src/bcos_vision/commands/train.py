"""``bcos-vision train``: choose a preset, apply options, run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bcos_core.run.command import CommandParser, given_options, parse_config
from bcos_core.run.config import flatten
from bcos_core.run.result_folder import short

from bcos_vision.config import TrainConfig
from bcos_vision.recipes import RECIPES, recipe_for

if TYPE_CHECKING:
    from bcos_vision.train import FitResult

_BOUND_TOLERANCE = 0.02


def train(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-vision train", description="Train a classifier, score it and explain it.")
    parser.add_argument("preset", nargs="?", help=f"{', '.join(RECIPES)}; by default the one that suits the data")
    parser.add_argument(
        "--resume",
        metavar="RUN_ID",
        help="go on with this run from its last finished epoch; --devices and --nodes may be others than before",
    )
    parser.add_argument(
        "--from",
        metavar="RUN_ID_OR_FILE",
        help="fine-tune this network, by default as it was trained, for a tenth of its epochs: a plain one is made a "
        "B-cos one, with B rising from 1; for other classes it gets a new head",
    )
    parser.add_argument("--config", action="config", help="a file of options (YAML or JSON)")
    parser.add_class_arguments(TrainConfig, as_group=True)
    # the preset sets the defaults that --print_config and --help show, so it has to be known first
    plain = [a for a in argv if not a.startswith("--print_config") and a not in ("-h", "--help")]
    first = parser.parse_args(plain)
    given = given_options(argv)
    if first.resume is not None:
        if first.preset is not None or given - {"resume", "devices", "nodes"}:
            parser.error("--resume takes the run's own configuration; give nothing else but --devices and --nodes")
        from bcos_vision.train import resume

        places = {name: getattr(first, name) for name in ("devices", "nodes") if name in given}
        return _print_result(resume(first.resume, **places))
    source = getattr(first, "from")
    if source is None:
        recipe = RECIPES[first.preset or recipe_for(first.data)]()
    else:
        from bcos_vision.train.fine_tuning import find_source, fine_tuning

        data = first.data if "data" in given else None
        recipe = fine_tuning(find_source(source), first.preset, data, learns=first.exponent.learn is not None)
    parser.set_defaults(flatten(recipe))
    config = parse_config(parser, TrainConfig, argv)
    from bcos_vision.train import fit

    return _print_result(fit(config))


def _print_result(result: "FitResult") -> None:
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
    if exponents := result.exponents:
        low, high = min(exponents, key=exponents.__getitem__), max(exponents, key=exponents.__getitem__)
        mean, drawn = sum(exponents.values()) / len(exponents), short(result.folder / "exponents.png")
        spread = f" over {len(exponents)} layers, {exponents[low]:.3f} ({low}) to {exponents[high]:.3f} ({high})"
        print(f"B at the end: {mean:.3f}{spread if exponents[low] < exponents[high] else ''}: {drawn}")
        if result.bound_excess > _BOUND_TOLERANCE:
            print(f"the bound does not hold yet: B is up to {result.bound_excess:.3f} beyond it; train longer")
    print(f"explanations: {short(result.folder / 'explanations.png')}")
    print(f"run id: {result.run_id}")
    print(f"next: uv run mlflow ui; uv run bcos-vision explain --run {result.run_id[:8]} picture.png")
