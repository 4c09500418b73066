"""One run over dynamics, from configuration to explained, tracked result."""

import dataclasses
import pathlib
import time
from dataclasses import dataclass

import numpy as np
import torch
from bcos_core.run.seed import derive_seed, seed_everything
from bcos_core.run.split import VARIES
from bcos_core.run.tracking import RunPlace, TrackedRun
from rich.console import Console

from bcos_ode.config import absolute
from bcos_ode.fit.derivatives import MatchingSamples, estimate_derivatives
from bcos_ode.fit.network import fit_network
from bcos_ode.fit.progress import FitProgress
from bcos_ode.fit.windows import check_windows, fit_windows
from bcos_ode.model import DataScales, VariableModel, create_model
from bcos_ode.threads import single_threaded

from .config import DynamicsConfig
from .data import DynamicsData, load_dynamics
from .evaluation import Evaluation, evaluate

MODEL, PREDICTIONS, EQUATIONS = "model.safetensors", "predictions.npz", "equations.txt"


@dataclass(frozen=True)
class FitResult:
    """What a run leaves behind."""

    run_id: str
    metrics: dict[str, float]
    """Of the held-out part."""
    evaluation: Evaluation
    model: VariableModel
    folder: pathlib.Path
    """Holds model.safetensors, predictions.npz, config.json, equations.txt (of the sparse regression, where there is
    one), and the pictures, if drawn."""
    seconds: float
    """Fitting itself, without data, evaluation and pictures."""


@single_threaded()
def fit(
    config: DynamicsConfig, *, place: RunPlace | None = None, pictures: bool = True, console: Console | None = None
) -> FitResult:
    """Fit a vector field to trajectories, solve it, score it and account for it, tracked in MLflow.

    First the derivatives of splines through the data are fitted, then solutions over windows of it
    (``config.windows``). The same configuration on the same CPU and versions repeats bit for bit.

    Args:
        config: The run.
        place: Where the run is kept: by default under the experiment "ode/DATA", its arm called ``config.arm``.
        pictures: Draw solutions, ledger and accounts at the end, which takes seconds.
        console: Where progress goes; standard error by default.

    Raises:
        InputError: If the data or the store cannot be used, or the fit diverges; see the message.
    """
    config = dataclasses.replace(config, data=absolute(config.data))
    data, samples = prepare(config)
    place = place or RunPlace(f"ode/{config.data_name}", config.arm)
    tags = {
        "task": "dynamics",
        "data_fingerprint": data.fingerprint,
        "device": "cpu",
        "num_train": str(len(samples.states)),
        "num_test": str(data.truth.shape[0] * data.truth.shape[1]),
        **place.tags,
    }
    run = TrackedRun.create(
        place.experiment,
        arm=place.arm,
        config=config,
        seed=config.seed,
        fold=config.split.fold,
        varies=VARIES,
        tags=tags,
    )
    with run:
        began = time.monotonic()
        model = _train(config, data, samples, run, console or Console(stderr=True))
        seconds = time.monotonic() - began
        run.log_metrics({"train/seconds": seconds}, 1)
        model.save(run.folder / MODEL)
        evaluation = evaluate(model, data, samples, config.solver)
        run.log_metrics({f"test/{name}": value for name, value in evaluation.metrics.items()}, 1)
        for reference, scores in evaluation.references.items():
            name = reference.replace(" ", "_")
            run.log_metrics({f"reference/{name}/{metric}": value for metric, value in scores.items()}, 1)
        np.savez_compressed(
            run.folder / PREDICTIONS, times=data.times, truth=data.truth, predictions=evaluation.solutions.states
        )
        run.log_artifact(run.folder / PREDICTIONS)
        if evaluation.sparse is not None:
            (run.folder / EQUATIONS).write_text(f"{evaluation.sparse.equations()}\n", encoding="utf-8")
            run.log_artifact(run.folder / EQUATIONS)
        if pictures:
            from bcos_ode.figures.dynamics import draw_dynamics

            for picture in draw_dynamics(model, data, evaluation, run.folder, title=config.arm):
                run.log_artifact(picture, "pictures")
        network = model.config
        run.log_model(run.folder / MODEL, network.model, {"b": network.b, "depth": network.depth, "data": config.data})
    return FitResult(run.id, evaluation.metrics, evaluation, model, run.folder, seconds)


def prepare(config: DynamicsConfig) -> tuple[DynamicsData, MatchingSamples]:
    """Load the data of a configuration as :func:`fit` would, with its derivatives; train nothing.

    Raises:
        InputError: If :func:`fit` would refuse them.
    """
    data = load_dynamics(config)
    samples = estimate_derivatives(data.train, data.smoothing)
    if config.windows.lengths:
        check_windows(data.train, config.windows)
    return data, samples


def _train(
    config: DynamicsConfig, data: DynamicsData, samples: MatchingSamples, run: TrackedRun, console: Console
) -> VariableModel:
    states, derivatives, weights = map(torch.from_numpy, (samples.states, samples.derivatives, samples.weights))
    variables = data.train.variables
    network = config.network.resolve(2 if data.system is None else data.system.degree)
    seed_everything(derive_seed(config.seed, "weights"))
    model = create_model(network, variables, variables, DataScales.of(states, derivatives))
    if config.fit.max_samples and len(states) > config.fit.max_samples:
        random = np.random.default_rng(derive_seed(config.seed, "samples"))
        chosen = np.sort(random.choice(len(states), config.fit.max_samples, replace=False))
        states, derivatives, weights = states[chosen], derivatives[chosen], weights[chosen]
    stages = {"derivatives": config.fit.adam_steps + config.fit.lbfgs_steps}
    stages |= {f"windows of {length}": config.windows.steps for length in config.windows.lengths}
    with FitProgress(stages, console, run) as report:
        fit_network(model, states, derivatives, config.fit, weights=weights, what="derivatives", report=report)
        if config.windows.lengths:
            fit_windows(model, data.train, samples.smoothed, config.windows, seed=config.seed, report=report)
    return model.eval()
