"""Accounts over time: contributions stacked up to how far a variable has come, and where propagators cancel."""

import numpy as np
from bcos_core.run.error import InputError
from matplotlib.figure import Figure

from bcos_ode.explanation import Account, Propagation
from bcos_ode.explanation.propagator import CANCELLATION

# hues that colour-blind eyes tell apart, each lighter or darker than its neighbours
COLOURS = ("#0b2f6b", "#e07b39", "#2f7d74", "#e8bd4a", "#7a3b69", "#7fb2e5", "#8c2f39", "#a3b18a", "#5c5c5c")
_INK, _FAINT = "#1f2328", "#57606a"


def draw_account(account: Account, *, trajectory: int = 0, title: str, time_unit: str = "") -> Figure:
    """Draw the states of one trajectory and, below, what each channel has contributed to each variable so far.

    Contributions above and below zero are stacked apart; the line is their sum, how far the variable has come.

    Args:
        account: Of :func:`bcos_ode.explanation.integrate_contributions`.
        trajectory: Which one.
        title: First line of the picture.
        time_unit: Of the times.

    Raises:
        InputError: If there is no such trajectory.
    """
    count = account.states.shape[1]
    if not 0 <= trajectory < count:
        raise InputError(f"trajectory: expected 0 to {count - 1}, got {trajectory}")
    times, states = account.times.numpy(), account.states[:, trajectory].numpy()
    parts = account.contributions[:, trajectory].numpy()  # (t, d, m)
    d = states.shape[1]
    figure = Figure(figsize=(8, 1.7 + 1.8 * d + 0.6), layout="constrained")
    top, *panels = figure.subplots(1 + d, 1, sharex=True, squeeze=False, height_ratios=[1.1, *[1.3] * d])[:, 0]
    for i, name in enumerate(account.variables):
        top.plot(times, states[:, i], color=COLOURS[i % len(COLOURS)], label=name, linewidth=1.6)
    top.set_ylabel("state")
    top.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    for i, axes in enumerate(panels):
        for sign in (1, -1):
            stack = np.clip(sign * parts[:, i].T, 0, None)
            axes.stackplot(
                times,
                sign * stack,
                colors=[COLOURS[k % len(COLOURS)] for k in range(parts.shape[2])],
                labels=[f"by {c}" for c in account.channels] if sign == 1 else (),
                alpha=0.85,
                linewidth=0,
            )
        name = account.variables[i]
        axes.plot(times, states[:, i] - states[0, i], color=_INK, linewidth=1.8, label=f"sum: {name}(t) - {name}(0)")
        axes.axhline(0, color=_INK, linewidth=0.6)
        axes.set_ylabel(f"contributed to {name}")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    for axes in (top, *panels):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
    error = float(account.completeness_error[:, trajectory].max())
    panels[-1].set_xlabel(f"time{f' ({time_unit})' if time_unit else ''}")
    figure.suptitle(title, fontsize=12, fontweight="bold")
    figure.supxlabel(f"The coloured parts add up to the line; largest error {error:.0e}.", fontsize=8, color=_FAINT)
    return figure


def draw_cancellation(propagations: dict[str, Propagation], *, title: str, time_unit: str = "") -> Figure:
    """Draw how much larger than the state its contributions from the start are, over time, and the horizon.

    Args:
        propagations: By name; each trajectory is a line.
        title: First line of the picture.
        time_unit: Of the times.
    """
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    for k, (name, found) in enumerate(propagations.items()):
        colour = COLOURS[k % len(COLOURS)]
        ends = found.horizon.numpy()
        reached = ends[np.isfinite(ends)]
        text = f"horizon of {len(reached)} of {len(ends)}" + (f", first at {reached.min():.3g}" if len(reached) else "")
        lines = axes.semilogy(found.times.numpy(), found.cancellation.numpy(), color=colour, linewidth=1.3, alpha=0.9)
        lines[0].set_label(f"{name}: {text}")
        for end in reached:
            axes.plot([end], [CANCELLATION], "o", color=colour, markersize=5)
    axes.axhline(CANCELLATION, color=_INK, linewidth=0.9, linestyle="--")
    axes.annotate(
        "beyond: what is accounted for cancels",
        (0.01, CANCELLATION),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8,
        color=_FAINT,
    )
    axes.set_xlabel(f"time{f' ({time_unit})' if time_unit else ''}")
    axes.set_ylabel("sum of |contributions| / |state|")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure
