"""The pictures that a run over dynamics leaves: its solutions, and its accounts."""

import contextlib
import pathlib

import torch
from bcos_core.run.error import InputError

from bcos_ode.dynamics.data import DynamicsData
from bcos_ode.dynamics.evaluation import Evaluation
from bcos_ode.explanation import integrate_contributions, ledger, propagate, true_ledger
from bcos_ode.model import VariableModel

from .accounts import draw_account, draw_cancellation
from .ledger import draw_ledger
from .phase import draw_phase
from .trajectories import draw_solutions

_STATES = 2000  # whose contributions are averaged
_TRAJECTORIES = 5  # of a phase portrait
_SUBSTEPS = 4  # between two times, where solutions are stepped


def draw_dynamics(
    model: VariableModel, data: DynamicsData, evaluation: Evaluation, folder: pathlib.Path, *, title: str
) -> list[pathlib.Path]:
    """Draw solutions and, of a field without biases, its ledger, an account along a trajectory and the phase portrait.

    Args:
        model: The field.
        data: Its test.
        evaluation: Its solutions there.
        folder: Where solutions.png, ledger.png, account.png, phase.png and horizon.png are written.
        title: First line of each picture.

    Returns:
        Paths of what was written.
    """
    system, train = data.system, data.train
    solutions = folder / "solutions.png"
    draw_solutions(
        data.times,
        data.truth,
        evaluation.solutions.states,
        train.variables,
        solutions,
        title=f"{title}: NRMSE {evaluation.metrics['nrmse']:.2g}",
        within=data.num_within if not data.is_forecast else 0,
        logarithmic=system is not None and system.spacing == "logarithmic",
        before=(train.times - train.times[-1], train.states[0]) if data.is_forecast else None,
        time_label=f"time ({system.time_unit})" if system is not None and system.time_unit else "time",
    )
    if not model.explains:
        return [solutions]
    return [solutions, *draw_accounts(model, data, folder, title=title)]


def draw_accounts(model: VariableModel, data: DynamicsData, folder: pathlib.Path, *, title: str) -> list[pathlib.Path]:
    """Draw the ledger, an account along the first test trajectory, the phase portrait and the propagators' horizon.

    Args:
        model: A field without biases.
        data: Its test.
        folder: Where ledger.png, account.png, phase.png and horizon.png are written.
        title: First line of each picture.

    Returns:
        Paths of what was written: an account needs a solution, which may fail, by explicit steps, of which a stiff
        field takes too many.
    """
    system, unit = data.system, data.system.time_unit if data.system is not None else ""
    states = torch.from_numpy(data.truth).flatten(0, 1)
    states = states[:: max(1, len(states) // _STATES)]
    ledgers = {"J": ledger(model, states, "J"), "W": ledger(model, states, "W")}
    if system is not None and model.config.encoding == "constant":
        ledgers = {"equations": true_ledger(system, states, model), **ledgers}
    figures = {"ledger.png": draw_ledger(ledgers, title=f"{title}: what drives each variable")}
    start = torch.from_numpy(data.starts[:1])
    if system is None or not system.stiff:
        # where its solution fails, solutions.png shows that
        with contextlib.suppress(InputError):
            account = integrate_contributions(model, start, data.times_within)
            figures["account.png"] = draw_account(account, title=f"{title}: why it went where it went", time_unit=unit)
            views = {view: propagate(model, start, data.times, view=view, substeps=_SUBSTEPS) for view in ("W", "J")}
            figures["horizon.png"] = draw_cancellation(
                views, title=f"{title}: how far a start explains what follows", time_unit=unit
            )
    if len(model.inputs) > 1:
        figures["phase.png"] = draw_phase(
            model, torch.from_numpy(data.truth[:_TRAJECTORIES]), title=f"{title}: what drives it where"
        )
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=130)
    return [folder / name for name in figures]
