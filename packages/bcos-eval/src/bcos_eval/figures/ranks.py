"""Many arms at a glance: their mean ranks."""

import pathlib
from collections.abc import Sequence

from matplotlib.figure import Figure

from ..stats.number import write_percent
from ..stats.result import Comparison
from .canvas import INK, mark_style, save, wrap
from .unit import Metric


def find_cliques(ranks: Sequence[float], width: float) -> list[tuple[int, int]]:
    """Longest runs of sorted ranks that span less than ``width``: first and last index of each, two ranks at least.

    Example:
        >>> find_cliques([1.0, 1.5, 2.4, 3.9], 1.0)
        [(0, 1), (1, 2)]
    """
    ends = [max(j for j, rank in enumerate(ranks) if rank - first < width) for first in ranks]
    return [(i, end) for i, end in enumerate(ends) if end > i and (i == 0 or end > ends[i - 1])]


def draw_ranks(comparison: Comparison, path: pathlib.Path) -> Figure:
    """Draw the arms' mean ranks on a line, 1 the best, with bars over those nearer than the critical difference.

    A description, and labelled as one: the critical difference holds for independent data sets, which folds or seeds on
    one data set are not (Demšar, JMLR 7, 2006, sec. 3.2.2 and 3.2.4).

    Args:
        comparison: Of three or more paired arms.
        path: PNG to write, or SVG if it ends in ``.svg``.

    Raises:
        ValueError: If the comparison has no ranks.
    """
    if comparison.omnibus is None:
        raise ValueError("comparison: expected ranks of three or more paired arms, got none")
    ranks, width = comparison.omnibus.ranks, comparison.omnibus.critical_difference
    k, number = len(ranks), {arm.arm: i for i, arm in enumerate(comparison.arms)}
    cliques = find_cliques([rank for _, rank in ranks], width)
    left, right = ranks[: (k + 1) // 2], ranks[(k + 1) // 2 :][::-1]  # nearest the middle of the line at the bottom
    step = 0.17 * max(wrap(name, 24).count("\n") + 1 for name, _ in ranks) + 0.14
    first = 0.35 + 0.14 * len(cliques)
    height = first + step * len(left) + 0.95
    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(1, k)
    axes.set_ylim(first + step * len(left), -0.05)  # inches below the line
    axes.spines[["left", "right", "bottom"]].set_visible(False)
    axes.set_yticks([])
    axes.xaxis.tick_top()
    axes.set_xticks(range(1, k + 1))
    for side, arms in ((0, left), (1, right)):
        for row, (name, rank) in enumerate(arms):
            y, (colour, marker) = first + step * (row + 0.4), mark_style(number[name])
            edge, label = (1, k)[side], wrap(name, 24)
            axes.plot([rank, rank, edge], [0, y, y], color=colour, linewidth=1.1, clip_on=False)
            axes.plot([rank], [0], marker, color=colour, markersize=7, clip_on=False, gid="rank", zorder=4)
            axes.annotate(
                f"{rank:.2f}  {label}" if side else f"{label}  {rank:.2f}",
                (edge, y),
                (6 * (2 * side - 1), 0),
                textcoords="offset points",
                ha=("right", "left")[side],
                va="center",
                fontsize=9,
                annotation_clip=False,
            )
    for row, (a, b) in enumerate(cliques):
        ends = ranks[a][1] - 0.03, ranks[b][1] + 0.03
        axes.plot(ends, [0.16 + 0.14 * row] * 2, color=INK, linewidth=3.5, solid_capstyle="round", gid="clique")
    axes.set_title(f"mean rank by {Metric(comparison.metric).label} (1 is best)", fontsize=10)
    figure.supxlabel(
        f"Bars join arms whose ranks differ by less than {width:.2f} (Nemenyi, {write_percent(comparison.alpha)}). "
        "Descriptive: that\nnumber holds for independent data sets; these are folds or seeds on one. "
        "The contrasts are the tests.",
        fontsize=8,
        color="#57606a",
    )
    return save(figure, path)
