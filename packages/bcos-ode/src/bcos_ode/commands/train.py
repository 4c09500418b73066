"""``bcos-ode train``: choose a preset, apply options, run."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bcos_core.run.command import CommandParser, parse_config
from bcos_core.run.config import flatten
from bcos_core.run.result_folder import short

from bcos_ode.classification.config import ClassificationConfig
from bcos_ode.dynamics.config import DynamicsConfig
from bcos_ode.recipes import RECIPES, recipe_for
from bcos_ode.regression.config import RegressionConfig

if TYPE_CHECKING:
    from bcos_ode.classification import ClassificationResult
    from bcos_ode.dynamics import FitResult
    from bcos_ode.dynamics.sparse import SparseModel
    from bcos_ode.regression import RegressionResult

DESCRIPTION = """Fit dynamics, a regression or an image classifier; score it, account for it, keep the run.
The preset, or else --data, says which of the three, and so which options there are: `bcos-ode train digits --help`."""
_FLAGS = ("--help", "--print_config")
_MOST_EQUATIONS, _MOST_TERMS = 12, 8  # that are printed


def train(argv: Sequence[str]) -> None:
    if (resumed := _value_of("--resume", argv)) is not None:
        if len(argv) > (1 if argv[0].startswith("--resume=") else 2):
            CommandParser(prog="bcos-ode train").error("--resume takes the run's own configuration; give nothing else")
        return _resume(resumed)
    preset = _preset(argv)
    recipe = RECIPES[preset]()
    parser = CommandParser(prog="bcos-ode train", description=DESCRIPTION)
    parser.add_argument("preset", nargs="?", help=f"{', '.join(RECIPES)}; by default the one that suits the data")
    parser.add_argument("--resume", metavar="RUN_ID", help="go on with the interrupted run of a classifier")
    parser.add_argument("--config", action="config", help="a file of options (YAML or JSON)")
    parser.add_class_arguments(type(recipe), as_group=True)
    parser.set_defaults(flatten(recipe))
    config = parse_config(parser, type(recipe), argv)
    if isinstance(config, DynamicsConfig):
        from bcos_ode.dynamics import fit as fit_dynamics

        return _print_dynamics(fit_dynamics(config))
    if isinstance(config, RegressionConfig):
        from bcos_ode.regression import fit as fit_regression

        return _print_regression(fit_regression(config))
    assert isinstance(config, ClassificationConfig)
    from bcos_ode.classification import fit as fit_classifier

    return _print_classification(fit_classifier(config))


def _preset(argv: Sequence[str]) -> str:
    """Name of the preset that the arguments ask for: it decides which options there are."""
    for before, word in zip(["", *argv], argv, strict=False):
        takes_value = before.startswith("--") and "=" not in before and before not in _FLAGS
        if not word.startswith("-") and not takes_value:
            return word
    data = _value_of("--data", argv)
    if data is None and (file := _value_of("--config", argv)) is not None:
        data = _data_of(pathlib.Path(file))
    return recipe_for("lotka-volterra" if data is None else data)


def _data_of(file: pathlib.Path) -> str | None:
    """The data that a file of options names; the parser says what is wrong with a file that cannot be read."""
    from jsonargparse import get_loader

    try:
        values = get_loader("yaml")(file.read_text())
    except Exception:  # of the loader's library, which is not ours to import
        return None
    data = values.get("data") if isinstance(values, dict) else None
    return data if isinstance(data, str) else None


def _value_of(option: str, argv: Sequence[str]) -> str | None:
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _resume(run_id: str) -> None:
    from bcos_core.run.error import InputError
    from bcos_core.run.tracking import find_run

    record = find_run(run_id)
    if record.tags.get("task") != "classification":
        raise InputError(f"run {record.id} is no classifier's: such fits take a minute or two; start it again")
    from bcos_ode.classification import resume

    _print_classification(resume(record.id))


def _print_dynamics(result: "FitResult") -> None:
    rows = {result.model.config.model: result.metrics, **result.evaluation.references}
    print_table(rows, dynamics_columns(rows))
    if result.evaluation.sparse is not None:
        _print_equations(result.evaluation.sparse, result.folder)
    for trajectory, reason in list(result.evaluation.solutions.failures.items())[:3]:
        print(f"test trajectory {trajectory}: {reason}")
    if "completeness_error" in result.metrics:
        print(f"accounts add up to the derivatives and to the way gone: {result.metrics['completeness_error']:.1e}")
    _print_end(result.seconds, result.folder, result.run_id, "solutions.png", explains=result.model.explains)


def _print_equations(sparse: "SparseModel", folder: pathlib.Path) -> None:
    from bcos_ode.dynamics.run import EQUATIONS

    print("the sparse regression reads:")
    lines = sparse.equations(_MOST_TERMS).splitlines()
    for line in lines[:_MOST_EQUATIONS]:
        print(f"    {line}")
    if len(lines) > _MOST_EQUATIONS:
        print(f"    and {len(lines) - _MOST_EQUATIONS} more equations")
    if lines[:_MOST_EQUATIONS] != sparse.equations().splitlines():
        print(f"    all of it: {short(folder / EQUATIONS)}")


def _print_regression(result: "RegressionResult") -> None:
    print_table({result.model.config.model: result.metrics, **result.references}, REGRESSION_COLUMNS)
    print(say_how_exact(result.model.explains, "predictions", result.metrics["completeness_error"]))
    _print_end(result.seconds, result.folder, result.run_id, "contributions.png")


def _print_classification(result: "ClassificationResult") -> None:
    m = result.metrics
    print(
        f"test accuracy {m['accuracy']:.2%}, loss {m['loss']:.4f}; {m['num_evaluations']:.0f} evaluations of the "
        f"field, {m['num_parameters']:.0f} parameters"
    )
    print(f"contributions add up to the logit: largest error {m['completeness_error']:.1e}")
    _print_end(result.seconds, result.folder, result.run_id, "explanations.png")


def say_how_exact(explains: bool, what: str, error: float) -> str:
    """A line on contributions: of a network that does not account for itself, how far they are from adding up."""
    if explains:
        return f"contributions add up to the {what}: largest error {error:.1e}"
    said = f"contributions do not add up to the {what}, this network does not account for itself"
    return f"{said}: largest error {error:.1e}"


def _print_end(seconds: float, folder: pathlib.Path, run_id: str, picture: str, *, explains: bool = True) -> None:
    print(f"fitted in {seconds:.1f} s; pictures: {short(folder / picture)} and others beside it")
    print(f"run id: {run_id}")
    print(f"next: uv run mlflow ui; uv run bcos-ode {'explain' if explains else 'evaluate'} --run {run_id[:8]}")


REGRESSION_COLUMNS = {"rmse": "RMSE", "nrmse": "RMSE / training std", "r2": "R²"}


def dynamics_columns(rows: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Metrics of fields and what they are called in a table: errors say whose standard deviation divides them."""
    error = f"RMSE / {'training' if 'persistence' in rows else 'test'} std"  # persistence: of a forecast, see _nrmse
    within = any("nrmse_within" in scores for scores in rows.values())
    return {
        "field_error": "field error",
        "nrmse_within": error,
        "nrmse": "to horizon" if within else error,
        "nrmse_outside": "outside",
        "valid_time": "valid time",
        "period_error": "period",
        "ledger_error": "ledger",
    }


def print_table(rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str]) -> None:
    """Print metrics, an arm a line; columns that no arm has are left out."""
    shown = {name: title for name, title in columns.items() if any(name in scores for scores in rows.values())}
    width, widths = max(map(len, rows)), [max(11, len(title)) for title in shown.values()]
    print(" " * width + "".join(f"  {title:>{w}}" for title, w in zip(shown.values(), widths, strict=True)))
    for arm, scores in rows.items():
        cells: list[Any] = [f"{scores[name]:.3g}" if name in scores else "-" for name in shown]
        print(f"{arm:<{width}}" + "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths, strict=True)))
