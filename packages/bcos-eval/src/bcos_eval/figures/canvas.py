"""What all figures share: colours that survive grey print, wrapped names, rows of arms, and the file."""

import pathlib
import re
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..stats.result import ArmSummary, Contrast

# hues that colour-blind eyes tell apart, each lighter or darker than its neighbours; markers are the second channel
COLOURS = ("#0b2f6b", "#e07b39", "#2f7d74", "#e8bd4a", "#7a3b69", "#7fb2e5")
MARKERS = "osD^vP*X<>"
INK, FAINT, BAND = "#1f2328", "#8c959f", "#e4e8ec"


def mark_style(i: int) -> tuple[str, str]:
    """Colour and marker of the i-th arm; thirty pass before a pair comes again."""
    return COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]


def wrap(name: str, width: int = 26) -> str:
    r"""A name in lines, broken after spaces and ``_ - / , = .`` where it can be; no ``$`` in it starts a formula.

    Example:
        >>> wrap("resnet20_b=2.0_seed=3_augmented_long", 16)
        'resnet20_b=2.0_\nseed=3_\naugmented_long'
    """
    lines = [""]
    for part in re.findall(r"[^\s_\-/,=.]+[\s_\-/,=.]*|[\s_\-/,=.]+", name):
        if lines[-1] and len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(piece for line in lines for piece in textwrap.wrap(line, width)).replace("$", r"\$")


def make_rows(names: Sequence[str], row: float, *, panels: int = 1, foot: float = 0.75) -> tuple[Figure, list[Axes]]:
    """A figure whose rows are named at the left and read from top to bottom: names stay level however long.

    Args:
        names: Of the rows.
        row: Height of a row in inches; names of many lines make it higher.
        panels: Axes side by side that share the rows.
        foot: Height in inches for what is above and below the rows.
    """
    labels = [wrap(name) for name in names]
    row = max(row, 0.17 * max(label.count("\n") + 1 for label in labels) + 0.1)
    figure = Figure(figsize=(7.2 if panels < 3 else 2.2 + 2.2 * panels, row * len(labels) + foot), layout="constrained")
    axes = list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
    for panel in axes:
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(labelsize=9)
        panel.grid(axis="x", color=BAND, linewidth=0.8)
        panel.set_axisbelow(True)
        panel.xaxis.set_major_locator(MaxNLocator(6 if panels < 3 else 4, steps=[1, 2, 2.5, 5, 10]))
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_ylim(len(labels) - 0.5, -0.5)
    return figure, axes


def spread(n: int, width: float) -> np.ndarray:
    """Offsets that keep n points apart: the same for every arm, so that lines between paired points run parallel.

    Multiples of the golden ratio, modulo one: neighbours in order lie far apart, and nothing is random.
    """
    return width * ((np.arange(n) * 0.6180339887498949 + 0.5) % 1 - 0.5)


def draw_interval(axes: Axes, found: ArmSummary | Contrast, scale: float, y: float, marker: str = "D") -> None:
    """A mean with its interval in a row, in the axis's unit."""
    ends = [scale * found.low, scale * found.high]
    axes.plot(ends, [y, y], color=INK, linewidth=2.2, solid_capstyle="butt", zorder=4, gid="interval")
    look = {"color": INK, "markersize": 6.5, "markeredgecolor": "white"}
    axes.plot([scale * found.mean], [y], marker, zorder=5, gid="mean", **look)


def save(figure: Figure, path: pathlib.Path) -> Figure:
    """Write a PNG, or what the suffix says; an SVG of the same numbers is the same file."""
    svg = path.suffix.lower() == ".svg"
    with rc_context({"svg.hashsalt": "bcos"}):
        figure.savefig(path, dpi=160, metadata={"Date": None} if svg else None)
    return figure
