"""Accounts over time: contributions stacked up to how far a variable has come, and where propagators cancel."""

from collections.abc import Sequence

import numpy as np
from bcos_core.run.error import InputError
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bcos_ode.explanation import Account, Propagation
from bcos_ode.explanation.propagator import CANCELLATION

from .names import find_largest, find_moving, label_names

# hues that colour-blind eyes tell apart, each lighter or darker than its neighbours
COLOURS = ("#0b2f6b", "#e07b39", "#2f7d74", "#e8bd4a", "#7a3b69", "#7fb2e5", "#8c2f39", "#a3b18a", "#5c5c5c")
_INK, _FAINT, OTHERS = "#1f2328", "#57606a", "#c3c9cf"
_STYLES = ("-", "--", ":")  # of more lines than colours
_MOST_VARIABLES = 12
_SHORT = 8  # characters that fit twice into a line of a legend
_MOST_CHANNELS = len(COLOURS) - 1  # of a panel: one more is shown where it would be the only other


def draw_account(account: Account, *, trajectory: int = 0, title: str, time_unit: str = "") -> Figure:
    """Draw the states of one trajectory and, below, what each channel has contributed to each variable so far.

    Contributions above and below zero are stacked apart; the line is their sum, how far the variable has come. Of many
    variables those that vary most against their own size are shown, of many channels each variable's largest, and the
    others together.

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
    names, channels = label_names(account.variables), label_names(account.channels)
    shown = find_moving(states, _MOST_VARIABLES)
    entries = min(len(channels), _MOST_CHANNELS + 1) + 1
    heights = [max(1.6, 0.22 * len(shown)), *[max(1.8, 0.23 * entries)] * len(shown)]  # inches, of legends
    figure = Figure(figsize=(8, sum(heights) + 0.8))
    figure.set_layout_engine("constrained", w_pad=0.1)  # ticks that come with the layout move labels a little
    top, *panels = figure.subplots(1 + len(shown), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for n, i in enumerate(shown):
        style = _STYLES[n // len(COLOURS) % len(_STYLES)]
        top.plot(times, states[:, i], style, color=COLOURS[n % len(COLOURS)], label=names[i], linewidth=1.6)
    top.set_ylabel("state")
    top.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    for i, axes in zip(shown, panels, strict=True):
        _stack(axes, times, parts[:, i], channels)
        name = names[i]
        text = f"sum: {name}(t) - {name}(0)" if len(name) <= _SHORT else "sum: how far it came"
        axes.plot(times, states[:, i] - states[0, i], color=_INK, linewidth=1.8, label=text)
        axes.axhline(0, color=_INK, linewidth=0.6)
        axes.set_ylabel(f"contributed to{' ' if len(name) <= _SHORT else chr(10)}{name}")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    for axes in (top, *panels):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
    error = float(account.completeness_error[:, trajectory].max())
    panels[-1].set_xlabel(f"time{f' ({time_unit})' if time_unit else ''}")
    figure.suptitle(title.replace("$", r"\$"), fontsize=12, fontweight="bold")
    notes = [f"The coloured parts add up to the line; largest error {error:.0e}."]
    if len(channels) > len(COLOURS):
        notes.append("Each panel has its own largest channels, and its own colours.")
    if len(shown) < len(names):
        notes.append(f"{len(shown)} of {len(names)} variables: those that vary most against their own size.")
    figure.supxlabel("\n".join(notes), fontsize=8, color=_FAINT)
    return figure


def _stack(axes: Axes, times: np.ndarray, parts: np.ndarray, channels: Sequence[str]) -> None:
    """Stack the contributions (t, m) to one variable: the largest channels, and the others as one."""
    chosen, others = find_largest(np.abs(parts).max(0), _MOST_CHANNELS)
    # by channel where there are colours for all, so that panels can be compared
    colours = [COLOURS[k if len(channels) <= len(COLOURS) else n] for n, k in enumerate(chosen)]
    rows, labels = list(parts[:, chosen].T), [f"by {channels[k]}" for k in chosen]
    if len(others):
        rows.append(parts[:, others].sum(1))
        labels.append(f"by {len(others)} others, together")
        colours.append(OTHERS)
    for sign in (1, -1):
        stack = np.clip(sign * np.stack(rows), 0, None)
        said = labels if sign == 1 else ()
        axes.stackplot(times, sign * stack, colors=colours, labels=said, alpha=0.85, linewidth=0)


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
    figure.suptitle(title.replace("$", r"\$"), fontsize=12, fontweight="bold")
    return figure
