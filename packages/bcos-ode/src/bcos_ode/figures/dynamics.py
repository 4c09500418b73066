"""The pictures that a run over dynamics leaves: its solutions, and its accounts."""

import contextlib
import pathlib

import torch
from bcos_core.run.error import InputError

from bcos_ode.dynamics.data import DynamicsData
from bcos_ode.dynamics.evaluation import Evaluation
from bcos_ode.explanation import (
    Account,
    integrate_contributions,
    ledger,
    product_ledger,
    propagate,
    true_ledger,
    true_product_ledger,
)
from bcos_ode.model import VariableModel
from bcos_ode.threads import single_threaded

from .accounts import draw_account, draw_cancellation
from .fonts import fonts_for_names
from .ledger import draw_ledger, draw_products
from .phase import draw_phase
from .trajectories import draw_solutions

_STATES = 2000  # whose contributions are averaged
_TRAJECTORIES = 5  # of a phase portrait
_STEPS = 150  # of a propagator, at most: each asks for a Jacobian at four stages


@single_threaded()
@fonts_for_names()
def draw_dynamics(
    model: VariableModel, data: DynamicsData, evaluation: Evaluation, folder: pathlib.Path, *, title: str
) -> list[pathlib.Path]:
    """Draw solutions and, of a field without biases, its ledger, an account along a trajectory and the phase portrait.

    Args:
        model: The field.
        data: Its test.
        evaluation: Its solutions there.
        folder: Where solutions.png is written, and what :func:`draw_accounts` draws.
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
        title=f"{title}: RMSE / {'training' if data.is_forecast else 'test'} std {evaluation.metrics['nrmse']:.2g}",
        within=data.num_within if not data.is_forecast else 0,
        logarithmic=system is not None and system.spacing == "logarithmic",
        before=(train.times - train.times[-1], train.states[0]) if data.is_forecast else None,
        time_label=f"time ({system.time_unit})" if system is not None and system.time_unit else "time",
    )
    if not model.explains:
        return [solutions]
    return [solutions, *draw_accounts(model, data, folder, title=title)]


@single_threaded()
@fonts_for_names()
def draw_accounts(
    model: VariableModel,
    data: DynamicsData,
    folder: pathlib.Path,
    *,
    title: str,
    order: float | None = None,
    account: Account | None = None,
) -> list[pathlib.Path]:
    """Draw the ledger, an account along the first test trajectory, the phase portrait and the propagators' horizon.

    Args:
        model: A field without biases.
        data: Its test.
        folder: Where ledger.png, account.png, products.png (model degree), phase.png and horizon.png are written.
        title: First line of each picture.
        order: Of view J; by default :func:`order_for`.
        account: To draw; by default one along the first test trajectory.

    Returns:
        Paths of what was written: an account needs a solution, which may fail, by explicit steps, of which a stiff
        field takes too many.
    """
    system, unit = data.system, data.system.time_unit if data.system is not None else ""
    states = torch.from_numpy(data.truth).flatten(0, 1)
    states = states[:: max(1, len(states) // _STATES)]
    order = order_for(model, data) if order is None else order
    name = "J" if order == model.degree else f"J, order {order:g}"
    ledgers = {name: ledger(model, states, "J", order=order), "W": ledger(model, states, "W")}
    if system is not None and model.config.encoding == "constant":
        ledgers = {"equations": true_ledger(system, states, model, order=order), **ledgers}
    figures = {"ledger.png": draw_ledger(ledgers, title=f"{title}: what drives each variable")}
    if system is not None and model.config.model == "degree" and order >= 2:
        with contextlib.suppress(InputError):  # an equation that is no polynomial, or of a higher degree, has none
            figures["products.png"] = draw_products(
                product_ledger(model, states),
                true_product_ledger(system, states, model),
                title=f"{title}: which products drive each variable",
            )
    start = torch.from_numpy(data.starts[:1])
    if system is None or not system.stiff:
        # where its solution fails, solutions.png shows that
        with contextlib.suppress(InputError):
            account = account or integrate_contributions(model, start, data.times_within, order=order)
            # steps as long as those between observations: what a fixed-step method solves well enough
            views = {view: propagate(model, start, data.times[: _STEPS + 1], view=view) for view in ("W", "J")}
            figures["horizon.png"] = draw_cancellation(
                views, title=f"{title}: how far a start explains what follows", time_unit=unit
            )
    if account is not None:
        figures["account.png"] = draw_account(account, title=f"{title}: why it went where it went", time_unit=unit)
    if len(model.inputs) > 1:
        figures["phase.png"] = draw_phase(
            model, torch.from_numpy(data.truth[:_TRAJECTORIES]), title=f"{title}: what drives it where", order=order
        )
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=130)
    return [folder / name for name in figures]


def order_for(model: VariableModel, data: DynamicsData) -> float:
    """The order by which products are divided among their factors: that of the equations, where they are known."""
    assert model.degree is not None
    if data.system is None or model.config.encoding != "constant":
        return model.degree
    return max(model.degree, float(data.system.degree))
