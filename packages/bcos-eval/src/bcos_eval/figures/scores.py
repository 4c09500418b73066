"""Every arm's scores, point by point."""

import pathlib

import numpy as np
from matplotlib.figure import Figure

from ..stats.result import Comparison
from .canvas import FAINT, draw_interval, make_rows, mark_style, save, spread
from .unit import Metric

FEWEST_FOR_VIOLIN = 10
"""Below this, a density is the shape of its kernel: points and interval are all that there is to show."""
MOST_ARMS_JOINED = 4


def draw_scores(comparison: Comparison, path: pathlib.Path) -> Figure:
    """Draw each arm's scores as points, with their mean, its interval, and a violin where there are ten or more.

    Violins end at the smallest and the largest score. Arms are rows, so that long names stay level. Lines join the
    scores of one fold, or one seed, of up to four paired arms.

    Args:
        comparison: Of one metric; accuracies are drawn in percent.
        path: PNG to write, or SVG if it ends in ``.svg``.
    """
    arms, unit = comparison.arms, Metric(comparison.metric)
    paired = all(contrast.differences for contrast in comparison.contrasts)
    figure, (axes,) = make_rows([arm.arm for arm in arms], 0.72)
    values = [unit.scale * np.asarray(arm.values) for arm in arms]
    offsets = [i + 0.08 + spread(len(v), 0.2) for i, v in enumerate(values)]
    if paired and 1 < len(arms) <= MOST_ARMS_JOINED:
        axes.plot(np.stack(values), np.stack(offsets), color=FAINT, linewidth=0.7, alpha=0.55, zorder=2, gid="pair")
    for i, (arm, v, y) in enumerate(zip(arms, values, offsets, strict=True)):
        colour, marker = mark_style(i)
        if len(v) >= FEWEST_FOR_VIOLIN:
            violin = axes.violinplot([v], [i + 0.08], orientation="horizontal", widths=0.62, showextrema=False)
            for body in violin["bodies"]:  # type: ignore[attr-defined]
                body.set(facecolor=colour, alpha=0.18, edgecolor=colour, linewidth=1, zorder=1, gid="violin")
        axes.scatter(v, y, s=15, color=colour, marker=marker, alpha=0.75, linewidth=0, zorder=3, gid="scores")
        draw_interval(axes, arm, unit.scale, i - 0.3)
    axes.set_xlabel(unit.axis, fontsize=10)
    return save(figure, path)
