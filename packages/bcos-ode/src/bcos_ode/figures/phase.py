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

from .accounts import COLOURS, OTHERS
from .names import find_largest, find_moving, label_names

_TIE = 0.05
"""Share of the largest |contribution| within which another one is as large."""
_ANOTHER = "#1f2328"
_MOST_PANELS, _COLUMNS = 12, 4


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
    where the equations are of a higher degree than the field. Of many equations those are drawn whose variables vary
    most against their own size; of many channels those that are largest most often have a colour of their own.

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
    shown = find_moving(trajectories.numpy(), _MOST_PANELS)
    pieces_won = torch.stack([(largest[..., shown] == k).sum() for k in range(len(field.channels))])
    named, others = find_largest(pieces_won.numpy(), len(COLOURS) - 1)
    colours = dict(zip(named.tolist(), COLOURS, strict=False)) | dict.fromkeys(others.tolist(), _ANOTHER)
    colours[-1] = OTHERS
    texts = label_names(names)
    columns = min(len(shown), _COLUMNS)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.3, 3.2 * rows + 1.0), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    for n, (i, axes) in enumerate(zip(shown, grid.flat, strict=False)):
        for k in range(-1, len(field.channels)):
            chosen = pieces[largest[:, :-1, i] == k]
            axes.add_collection(LineCollection(list(chosen.numpy()), colors=colours[k], linewidths=1.5))
        axes.autoscale_view()
        axes.set_title(f"d{texts[i]}/dt", fontsize=11)
        axes.set_xlabel(texts[across])
        axes.set_ylabel(texts[up] if n % columns == 0 else "")
        axes.spines[["top", "right"]].set_visible(False)
    won = pieces_won.tolist()
    keys = {k: colours[k] for k in named.tolist() if won[k] or not len(others)}
    num_others = sum(won[k] > 0 for k in others.tolist())
    _draw_key(figure, keys, label_names(field.channels), num_others)
    note = "" if len(shown) == len(names) else f"; {len(shown)} of {len(names)}, which vary most against their own size"
    figure.suptitle(title.replace("$", r"\$") + note, fontsize=12, fontweight="bold")
    return figure


def _draw_key(figure: Figure, colours: dict[int, str], channels: list[str], num_others: int) -> None:
    said = {f"{channels[k]} contributes most": colour for k, colour in colours.items()}
    if num_others:
        said[f"one of {num_others} others"] = _ANOTHER
    said["two alike"] = OTHERS
    keys = [Line2D([], [], color=colour, linewidth=3) for colour in said.values()]
    fit = int(figure.get_figwidth() / (0.07 * max(map(len, said)) + 0.55))  # inches
    figure.legend(keys, list(said), loc="outside lower center", ncols=min(fit, len(said)), frameon=False, fontsize=9)
