"""Many arms at a glance: their average ranks."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata, studentized_range

from .canvas import INK, mark_style, save, wrap
from .unit import Metric


def critical_difference(k: int, n: int, alpha: float = 0.05) -> float:
    """Difference of average ranks that k methods on n independent data sets show by chance (Nemenyi).

    Args:
        k: Methods, at least 2.
        n: Data sets.
        alpha: Level, in (0, 1).

    Demšar, JMLR 2006, sec. 3.2.2, whose example (k = 4, n = 14, alpha = 0.10) has 1.12 (q 2.291, rounded down there).

    Example:
        >>> round(critical_difference(4, 14, 0.10), 2)
        1.12
    """
    q = studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(k * (k + 1) / (6 * n)))


def find_cliques(ranks: Sequence[float], width: float) -> list[tuple[int, int]]:
    """Longest runs of sorted ranks that span less than ``width``: first and last index of each, two ranks at least.

    Example:
        >>> find_cliques([1.0, 1.5, 2.4, 3.9], 1.0)
        [(0, 1), (1, 2)]
    """
    ends = [max(j for j, rank in enumerate(ranks) if rank - first < width) for first in ranks]
    return [(i, end) for i, end in enumerate(ends) if end > i and (i == 0 or end > ends[i - 1])]


def draw_ranks(scores: np.ndarray, names: Sequence[str], path: pathlib.Path, *, metric: str) -> Figure:
    """Draw the arms' average ranks on a line, 1 the best, with bars over those nearer than the critical difference.

    A description, and labelled as one: the critical difference holds for independent data sets, and the folds of a
    cross-validation share their training data.

    Args:
        scores: Shape (n, k): n folds or seeds of k arms, at least two arms.
        names: Of the k arms.
        path: PNG to write, or SVG if it ends in ``.svg``.
        metric: Its name says which way is better.

    Raises:
        ValueError: If the shape and the names do not agree, or there are fewer than two arms.
    """
    n, k = scores.shape
    if k != len(names) or k < 2:
        raise ValueError(f"scores: expected a column for each of two or more names, got {k} columns, {len(names)} names")
    unit = Metric(metric)
    ranks = rankdata(scores if unit.lower_is_better else -scores, axis=1).mean(0)
    order = np.argsort(ranks, kind="stable")
    cliques = find_cliques(ranks[order].tolist(), width := critical_difference(k, n))
    left, right = order[: (k + 1) // 2], order[(k + 1) // 2 :][::-1]  # nearest the middle of the line at the bottom
    labels = {int(i): wrap(names[i], 24) for i in order}
    step = 0.17 * max(text.count("\n") + 1 for text in labels.values()) + 0.14
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
        for row, i in enumerate(arms):
            y, (colour, marker) = first + step * (row + 0.4), mark_style(int(i))
            edge = (1, k)[side]
            axes.plot([ranks[i], ranks[i], edge], [0, y, y], color=colour, linewidth=1.1, clip_on=False)
            axes.plot([ranks[i]], [0], marker, color=colour, markersize=7, clip_on=False, gid="rank", zorder=4)
            at = {"xy": (edge, y), "xytext": (6 * (2 * side - 1), 0), "textcoords": "offset points"}
            axes.annotate(f"{labels[int(i)]}  {ranks[i]:.2f}" if side == 0 else f"{ranks[i]:.2f}  {labels[int(i)]}",
                          **at, ha=("right", "left")[side], va="center", fontsize=9, annotation_clip=False)
    for row, (a, b) in enumerate(cliques):
        ends = ranks[order[a]] - 0.03, ranks[order[b]] + 0.03
        axes.plot(ends, [0.16 + 0.14 * row] * 2, color=INK, linewidth=3.5, solid_capstyle="round", gid="clique")
    axes.set_title(f"average rank by {unit.label} over {n} (1 is best)", fontsize=10)
    figure.supxlabel(
        f"Bars join arms whose ranks differ by less than {width:.2f} (Nemenyi, 5%). Descriptive only: that number holds\n"
        "for independent data sets, and these are folds or seeds on one. The contrasts are the tests.",
        fontsize=8,
        color="#57606a",
    )
    return save(figure, path)
