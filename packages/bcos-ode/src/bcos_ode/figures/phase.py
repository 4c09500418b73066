"""Phase portraits, coloured by the channel that contributes most."""

import torch
from bcos_core.run.error import InputError
from jaxtyping import Float
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from bcos_ode.explanation import ledger
from bcos_ode.explanation.ledger import View
from bcos_ode.model import VariableModel

from .accounts import COLOURS

_TIE = 0.05
"""Share of the largest |contribution| within which another one is as large."""
_NEITHER = "#c3c9cf"


def draw_phase(
    field: VariableModel,
    trajectories: Float[Tensor, "n t d"],
    *,
    title: str,
    view: View = "J",
    order: float | None = None,
    plane: tuple[str, str] | None = None,
) -> Figure:
    """Draw trajectories in a plane, a panel for each equation, each piece in the colour of the largest |contribution|.

    Grey where a second one is as large to 5 %: the constant often has exactly what a variable has, with the other sign,
    where the equations are of a higher degree than the field.

    Args:
        field: Without biases (model "bcos" or "degree").
        trajectories: States.
        title: First line of the picture.
        view: Whose contributions, W or J.
        order: As :func:`~bcos_ode.explanation.ledger` has it.
        plane: Two variables; by default the first and the last.

    Raises:
        InputError: If the field has fewer than two variables, no exact ledger, or not these variables.
    """
    names = field.inputs
    if len(names) < 2:
        raise InputError(f"draw_phase: expected a field of at least two variables, got {', '.join(names)}")
    plane = (names[0], names[-1]) if plane is None else plane
    if not set(plane) <= set(names):
        raise InputError(f"plane: expected two of {', '.join(names)}, got {', '.join(plane)}")
    across, up = (names.index(name) for name in plane)
    found = ledger(field, trajectories.flatten(0, 1), view, order=order)
    size, ranks = found.contributions.abs().sort(-1, descending=True)
    tied = size[..., 1] > (1 - _TIE) * size[..., 0]
    largest = ranks[..., 0].masked_fill(tied, -1).unflatten(0, trajectories.shape[:2])  # (n, t, d)
    points = trajectories[..., [across, up]]
    pieces = torch.stack([points[:, :-1], points[:, 1:]], 2)
    figure = Figure(figsize=(3.6 * len(names) + 0.3, 4.2), layout="constrained")
    for i, axes in enumerate(figure.subplots(1, len(names), squeeze=False)[0]):
        for k in range(-1, len(field.channels)):
            chosen = pieces[largest[:, :-1, i] == k]
            axes.add_collection(LineCollection(list(chosen.numpy()), colors=_colour(k), linewidths=1.5))
        axes.autoscale_view()
        axes.set_title(f"d{names[i]}/dt", fontsize=11)
        axes.set_xlabel(plane[0])
        axes.set_ylabel(plane[1] if i == 0 else "")
        axes.spines[["top", "right"]].set_visible(False)
    keys = [Line2D([], [], color=_colour(k), linewidth=3) for k in (*range(len(field.channels)), -1)]
    labels = [*(f"{channel} contributes most" for channel in field.channels), "two alike"]
    figure.legend(keys, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure


def _colour(channel: int) -> str:
    return COLOURS[channel % len(COLOURS)] if channel >= 0 else _NEITHER
