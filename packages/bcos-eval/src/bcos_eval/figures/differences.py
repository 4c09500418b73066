"""How arms differ: pair by pair, many at a glance, and as shares of belief."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..stats.result import Comparison, Contrast
from .canvas import BAND, COLOURS, INK, draw_interval, make_rows, save, spread
from .unit import Metric, state_p


def draw_differences(comparison: Comparison, path: pathlib.Path) -> Figure:
    """Draw each contrast's paired differences as points, with their mean and its interval.

    A shaded band holds the differences that count as none (the ROPE); beside each row stand p (Holm) and the number of
    pairs. Contrasts of unpaired runs show mean and interval alone.

    Args:
        comparison: Of one metric.
        path: PNG to write, or SVG if it ends in ``.svg``.
    """
    unit = Metric(comparison.metric)
    figure, (axes,) = make_rows([title_of(c) for c in comparison.contrasts], 0.62)
    _draw_ground(axes, comparison)
    for i, c in enumerate(comparison.contrasts):
        d = unit.scale * np.asarray(c.differences)
        axes.scatter(d, i + 0.14 + spread(len(d), 0.26), s=15, color=COLOURS[0], alpha=0.7, linewidth=0, gid="pairs")
        draw_interval(axes, c, unit.scale, i - 0.2)
        count = f"n = {len(d)}" if len(d) else "not paired"
        _write_beside(axes, i, f"{state_p(c.p_holm, 'p (Holm)')}\n{count}")
    axes.set_xlabel(unit.difference_axis, fontsize=10)
    return save(figure, path)


def draw_intervals(comparisons: Sequence[Comparison], path: pathlib.Path) -> Figure:
    """Draw an overview of many contrasts: a row for each pair of arms, a panel for each metric.

    Filled marks are of contrasts whose p (Holm) is below the level; a shaded band holds the ROPE.

    Args:
        comparisons: One for each metric.
        path: PNG to write, or SVG if it ends in ``.svg``.

    Raises:
        ValueError: If there are none.
    """
    if not comparisons:
        raise ValueError("comparisons: expected at least one, got none")
    rows = list(dict.fromkeys(title_of(c) for comparison in comparisons for c in comparison.contrasts))
    figure, panels = make_rows(rows, 0.34, panels=len(comparisons))
    for axes, comparison in zip(panels, comparisons, strict=True):
        unit = Metric(comparison.metric)
        _draw_ground(axes, comparison)
        for c in comparison.contrasts:
            row = rows.index(title_of(c))
            draw_interval(axes, c, unit.scale, row, "o")
            if not c.p_holm < comparison.alpha:
                axes.lines[-1].set(markerfacecolor="white", markeredgecolor=INK)
            if len(panels) == 1:
                _write_beside(axes, row, f"{unit.difference(c.mean)}\n({unit.ends(c.low, c.high)})")
        axes.set_xlabel(unit.difference_axis.replace(" (", "\n(") if len(panels) > 1 else unit.difference_axis)
        axes.xaxis.label.set_fontsize(10 if len(panels) < 3 else 9)
    return save(figure, path)


def draw_posterior(comparison: Comparison, path: pathlib.Path) -> Figure:
    """Draw for each contrast the posterior shares of worse, no difference that counts, and better.

    Args:
        comparison: Of one metric; contrasts without shares are left out.
        path: PNG to write, or SVG if it ends in ``.svg``.

    Raises:
        ValueError: If no contrast has shares.
    """
    shown = [(title_of(c), c.bayes) for c in comparison.contrasts if c.bayes is not None]
    if not shown:
        raise ValueError("comparison: expected contrasts with posterior shares, got none")
    figure, (axes,) = make_rows([name for name, _ in shown], 0.42, foot=1.0)
    left = np.zeros(len(shown))
    for kind, colour, hatch, ink in (
        ("worse", COLOURS[1], "////", "black"),
        ("equivalent", "#f2f4f6", "", "black"),
        ("better", COLOURS[0], "", "white"),
    ):
        shares = 100 * np.array([getattr(bayes, kind) for _, bayes in shown])
        look = {"color": colour, "edgecolor": INK, "hatch": hatch, "linewidth": 0.6}
        bars = axes.barh(range(len(shown)), shares, 0.6, left, label=kind, gid=kind, **look)
        ground = {"facecolor": colour, "edgecolor": "none", "pad": 1.2} if hatch else None  # not upon the hatching
        for text in axes.bar_label(
            bars, [f"{s:.0f}%" if s >= 7 else "" for s in shares], label_type="center", fontsize=9
        ):
            text.set(color=ink, bbox=ground if text.get_text() else None)
        left += shares
    axes.set_xlim(0, 100)
    axes.grid(visible=False)
    axes.set_xlabel(f"posterior share of the mean difference in {Metric(comparison.metric).label} (%)", fontsize=10)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return save(figure, path)


def title_of(contrast: Contrast) -> str:
    """A contrast as it is named everywhere: "arm − control"."""
    return f"{contrast.arm} − {contrast.control}"


def _draw_ground(axes: Axes, comparison: Comparison) -> None:
    """The zero line, and the band of differences that count as none."""
    axes.axvline(0, color=INK, linewidth=0.9, zorder=1.5, gid="zero")
    if rope := Metric(comparison.metric).scale * comparison.rope:
        axes.axvspan(-rope, rope, color=BAND, linewidth=0, zorder=0.5, gid="rope")


def _write_beside(axes: Axes, row: int, text: str) -> None:
    axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5, color=INK)
