"""``bcos-ode evaluate``: score a run's model again, under other circumstances."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from bcos_core.run.command import CommandParser
from bcos_core.run.error import InputError
from bcos_core.run.result_folder import short, writable_folder

from bcos_ode.dynamics.config import SolverConfig

from .run_option import ChosenRun, choose_run
from .train import REGRESSION_COLUMNS, dynamics_columns, print_table

_OF_DYNAMICS = ("horizon", "starts", "start_seed", "method", "rtol", "atol")


def evaluate(argv: Sequence[str]) -> None:
    parser = CommandParser(
        prog="bcos-ode evaluate",
        description="Score a run's model on what it held out; a field also longer, elsewhere, or by another solver.",
    )
    parser.add_argument("--run", metavar="RUN_ID", type=str, required=True, help="the run whose model to take")
    parser.add_argument("--horizon", type=float, default=None, help="of a field: time over which it is solved")
    parser.add_argument("--starts", type=int, default=None, help="of a field: that many fresh starts, not the test's")
    parser.add_argument("--start_seed", type=int, default=0, help="seed of fresh starts")
    parser.add_argument("--method", type=str, default=None, help="of a field: dop853, rk45, radau, bdf or lsoda")
    parser.add_argument("--rtol", type=float, default=None, help="of the solver")
    parser.add_argument("--atol", type=float, default=None, help="of the solver")
    parser.add_argument("--out", type=str, default=None, help="folder for metrics.json and pictures")
    options = parser.parse_args(list(argv))
    run = choose_run(options.run)
    run.refuse_options(argv, _OF_DYNAMICS)
    if options.start_seed and options.starts is None:
        raise InputError("--start_seed: belongs to fresh starts; give their number, --starts, too")
    out = writable_folder(pathlib.Path(options.out) if options.out else run.folder / "evaluation")
    if run.task == "dynamics":
        rows = _evaluate_dynamics(run, options, out)
        print_table(rows, dynamics_columns(rows))
    elif run.task == "regression":
        from bcos_ode.regression import check
        from bcos_ode.regression import evaluate as evaluate_regression

        run.check_data(check(run.config)[0].fingerprint)
        rows = evaluate_regression(run.config, run.model_file)
        print_table(rows, REGRESSION_COLUMNS)
    else:
        from bcos_ode.classification import evaluate as evaluate_classifier
        from bcos_ode.classification import load_images

        run.check_data(load_images(run.config.data, run.config.split).fingerprint)
        rows = {run.config.variant: evaluate_classifier(run.config, run.model_file)}
        print_table(rows, {"accuracy": "accuracy", "loss": "loss", "completeness_error": "completeness"})
    from bcos_core.run.config import save_values

    save_values({name: dict(scores) for name, scores in rows.items()}, out / "metrics.json")
    print(f"saved {short(out / 'metrics.json')}")


def _evaluate_dynamics(run: ChosenRun, options: Any, out: pathlib.Path) -> dict[str, dict[str, float]]:
    from bcos_ode.dynamics import evaluate as score
    from bcos_ode.dynamics import fresh_starts, prepare
    from bcos_ode.figures.dynamics import draw_dynamics
    from bcos_ode.model import VariableModel

    config = run.config
    changes = {name: value for name in ("method", "rtol", "atol") if (value := getattr(options, name)) is not None}
    try:
        solver: SolverConfig = dataclasses.replace(config.solver, **changes)
        if options.horizon is not None:
            config = dataclasses.replace(config, horizon=options.horizon)
    except ValueError as error:
        raise InputError(str(error)) from None
    data, samples = prepare(config)
    run.check_data(data.fingerprint)
    if options.starts is not None:
        data = fresh_starts(data, options.starts, options.start_seed)
    model = VariableModel.load(run.model_file)
    evaluation = score(model, data, samples, solver)
    draw_dynamics(model, data, evaluation, out, title=config.arm)
    for trajectory, reason in list(evaluation.solutions.failures.items())[:3]:
        print(f"trajectory {trajectory}: {reason}")
    return {model.config.model: evaluation.metrics, **evaluation.references}
