"""One regression, from configuration to explained, tracked result."""

import dataclasses
import pathlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from bcos_core.run.seed import derive_seed, seed_everything
from bcos_core.run.split import VARIES, Split
from bcos_core.run.tracking import RunPlace, TrackedRun
from rich.console import Console
from sklearn.linear_model import LinearRegression

from bcos_ode.config import absolute
from bcos_ode.fit.network import fit_network
from bcos_ode.fit.progress import FitProgress
from bcos_ode.model import DataScales, VariableModel, create_model
from bcos_ode.threads import single_threaded

from .config import RegressionConfig
from .contributions import Contributions, contributions_of
from .metrics import score
from .tables import Table, divide_table, load_table

MODEL, PREDICTIONS, CONTRIBUTIONS = "model.safetensors", "predictions.npz", "contributions.csv"


@dataclass(frozen=True)
class RegressionResult:
    """What a regression leaves behind."""

    run_id: str
    metrics: Mapping[str, float]
    """Of the test; see :func:`.score`; with "completeness_error", the largest over its samples and outputs."""
    references: Mapping[str, Mapping[str, float]]
    """The same of "linear" least squares, the "mean" of the training targets and, of a series, "persistence"."""
    model: VariableModel
    folder: pathlib.Path
    """Holds model.safetensors, predictions.npz, contributions.csv, config.json, and the pictures, if drawn."""
    seconds: float
    """Of the fit itself."""


@single_threaded()
def fit(
    config: RegressionConfig, *, place: RunPlace | None = None, pictures: bool = True, console: Console | None = None
) -> RegressionResult:
    """Fit, score and explain a regressor, tracked in MLflow.

    Scales come from the training samples alone. The same configuration on the same CPU and versions repeats bit for
    bit.

    Args:
        config: The run.
        place: Where the run is kept: by default under the experiment "ode/DATA", its arm called ``config.arm``.
        pictures: Draw predictions and contributions at the end, which takes a second or two.
        console: Where progress goes; standard error by default.

    Raises:
        InputError: If the data cannot be used, the store cannot be written, or the fit diverges; see the message.
    """
    config = dataclasses.replace(config, data=absolute(config.data))
    table = load_table(config)
    split = divide_table(table, config.split)
    place = place or RunPlace(f"ode/{config.data_name}", config.arm)
    run = TrackedRun.create(
        place.experiment,
        arm=place.arm,
        config=config,
        seed=config.seed,
        fold=config.split.fold,
        varies=VARIES,
        tags={
            "task": "regression",
            "data_fingerprint": table.fingerprint,
            "device": "cpu",
            "num_train": str(len(split.train)),
            "num_test": str(len(split.test)),
            **place.tags,
        },
    )
    with run:
        began = time.monotonic()
        model = _fit(run, config, table, split.train, console or Console(stderr=True))
        seconds = time.monotonic() - began
        run.log_metrics({"train/seconds": seconds}, _steps(config))
        metrics, references = _conclude(run, config, table, split, model, pictures)
    return RegressionResult(run.id, metrics, references, model, run.folder, seconds)


def check(config: RegressionConfig) -> tuple[Table, Split]:
    """Load and divide the data of a configuration, as :func:`fit` would, and fit nothing.

    Raises:
        InputError: If :func:`fit` would refuse it.
    """
    table = load_table(config)
    return table, divide_table(table, config.split)


def _steps(config: RegressionConfig) -> int:
    return config.fit.adam_steps + config.fit.lbfgs_steps


def _fit(run: TrackedRun, config: RegressionConfig, table: Table, rows: np.ndarray, console: Console) -> VariableModel:
    most = config.fit.max_samples
    if most and len(rows) > most:
        random = np.random.default_rng(derive_seed(config.seed, "samples"))
        rows = np.sort(random.choice(rows, most, replace=False))
    inputs, outputs = torch.from_numpy(table.inputs[rows]), torch.from_numpy(table.outputs[rows])
    seed_everything(derive_seed(config.seed, "weights"))
    model = create_model(config.network, table.input_names, table.output_names, DataScales.of(inputs, outputs))
    with FitProgress({"fit": _steps(config)}, console, run) as report:
        fit_network(model, inputs, outputs, config.fit, report=report)
    return model.eval()


def _conclude(
    run: TrackedRun, config: RegressionConfig, table: Table, split: Split, model: VariableModel, pictures: bool
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Score, explain and draw the fitted model, and log all of it."""
    observed = table.outputs[split.test]
    found = contributions_of(model, table.inputs[split.test])
    metrics, references = _scores(table, split, found)
    for prefix, scores in {"test": metrics, **references}.items():
        # of what columns can be called, MLflow takes little
        named = {f"{prefix}/" + re.sub(r"[^ .\w-]", "_", name): value for name, value in scores.items()}
        run.log_metrics(named, _steps(config))
    # tests that compare two runs sample by sample read them
    np.savez_compressed(run.folder / PREDICTIONS, rows=split.test, targets=observed, predictions=found.predictions)
    found.save(run.folder / CONTRIBUTIONS, split.test.tolist(), table.output_names, observed)
    for name in (PREDICTIONS, CONTRIBUTIONS):
        run.log_artifact(run.folder / name)
    if pictures:
        for picture in _draw(run.folder, config, table, split, found, metrics):
            run.log_artifact(picture, "pictures")
    model.save(run.folder / MODEL)
    run.log_model(run.folder / MODEL, config.network.model, {"data": config.data_name, "b": model.config.exponent})
    return metrics, references


def reference_predictions(table: Table, split: Split) -> dict[str, np.ndarray]:
    """Predictions of the test samples that any regressor has to beat, shape (n, k) each.

    Args:
        table: Samples.
        split: Which of them train and test.

    Returns:
        "linear": least squares; "mean": of the training targets; of a series "persistence": the last observation.
    """
    train, test = split.train, split.test
    linear = LinearRegression().fit(table.inputs[train], table.outputs[train])
    outputs = table.outputs
    found = {
        "linear": linear.predict(table.inputs[test]),
        "mean": np.broadcast_to(outputs[train].mean(0), outputs[test].shape),
    }
    if table.times is not None:
        found["persistence"] = table.inputs[test][:, : outputs.shape[1]]
    return found


@single_threaded()
def evaluate(config: RegressionConfig, model_file: pathlib.Path) -> dict[str, dict[str, float]]:
    """Score a model file on the test of its configuration: the model's own scores, and those of the references.

    Raises:
        InputError: If data or file cannot be used.
    """
    table, split = check(config)
    model = VariableModel.load(model_file)
    metrics, references = _scores(table, split, contributions_of(model, table.inputs[split.test]))
    return {config.network.model: metrics, **references}


@single_threaded()
def explain(config: RegressionConfig, model_file: pathlib.Path, folder: pathlib.Path) -> float:
    """Write contributions.csv and pictures of a model file's predictions of the test; returns the largest error.

    Raises:
        InputError: If data or file cannot be used.
    """
    table, split = check(config)
    found = contributions_of(VariableModel.load(model_file), table.inputs[split.test])
    found.save(folder / CONTRIBUTIONS, split.test.tolist(), table.output_names, table.outputs[split.test])
    _draw(folder, config, table, split, found, _scores(table, split, found)[0])
    return found.completeness_error


def _scores(table: Table, split: Split, found: Contributions) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Of the model, and of what it has to beat."""
    spread, observed = table.outputs[split.train].std(0), table.outputs[split.test]

    def scores(predictions: np.ndarray) -> dict[str, float]:
        return score(observed, predictions, spread=spread, names=table.output_names)

    metrics = {**scores(found.predictions), "completeness_error": found.completeness_error}
    return metrics, {name: scores(predicted) for name, predicted in reference_predictions(table, split).items()}


def _draw(
    folder: pathlib.Path,
    config: RegressionConfig,
    table: Table,
    split: Split,
    found: Contributions,
    metrics: Mapping[str, float],
) -> list[pathlib.Path]:
    from bcos_ode.figures.fonts import fonts_for_names
    from bcos_ode.figures.regression import draw_contributions, draw_predictions, draw_series

    title = f"{config.arm}: test RMSE / training std {metrics['nrmse']:.2f}, R² {metrics['r2']:.2f}"
    test, names = split.test, table.output_names
    with fonts_for_names():
        draw_predictions(table.outputs[test], found.predictions, names, folder / "predictions.png", title=title)
        draw_contributions(
            found,
            table.inputs[test],
            table.outputs[test],
            table.input_names,
            names,
            folder / "contributions.png",
            title=title,
        )
        if table.times is not None:
            draw_series(found, table.times, table.outputs, test, names, folder / "series.png", title=title)
    return sorted(folder.glob("*.png"))
