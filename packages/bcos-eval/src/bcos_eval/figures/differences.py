"""How arms differ: pair by pair, many at a glance, and as shares of belief."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..stats.result import Contrast
from .canvas import BAND, COLOURS, INK, draw_interval, make_rows, save, spread
from .unit import Metric, write_p


def draw_differences(contrasts: Sequence[Contrast], path: pathlib.Path) -> Figure:
    """Draw each contrast's paired differences as points, with their mean and its interval.

    A shaded band holds the differences that count as none (the ROPE); beside each row stand p (Holm) and the number of
    pairs. Contrasts of unpaired runs show mean and interval alone.

    Args:
        contrasts: Of one metric, from top to bottom.
        path: PNG to write, or SVG if it ends in ``.svg``.

    Raises:
        ValueError: If there are no contrasts, or they are of several metrics.
    """
    metrics = _by_metric(contrasts)
    if len(metrics) > 1:
        raise ValueError(f"contrasts: expected one metric, got {', '.join(metrics)}")
    figure, (axes,) = make_rows([title_of(c) for c in contrasts], 0.62)
    unit = Metric(contrasts[0].metric)
    _draw_ground(axes, contrasts, unit)
    for i, c in enumerate(contrasts):
        d = unit.scale * np.asarray(c.differences)
        axes.scatter(d, i + 0.14 + spread(len(d), 0.26), s=15, color=COLOURS[0], alpha=0.7, linewidth=0, gid="pairs")
        draw_interval(axes, *(unit.scale * x for x in (c.mean, c.low, c.high)), i - 0.2, INK, "D")
        count = f"n = {len(d)}" if len(d) else "not paired"
        _write_beside(axes, i, f"p (Holm) {write_p(c.p_holm)}\n{count}")
    axes.set_xlabel(unit.difference_axis, fontsize=10)
    return save(figure, path)


def draw_intervals(contrasts: Sequence[Contrast], path: pathlib.Path) -> Figure:
    """Draw an overview of many contrasts: a row for each pair of arms, a panel for each metric.

    Filled marks are of contrasts whose p (Holm) is below 1 - confidence.

    Args:
        contrasts: Of any metrics.
        path: PNG to write, or SVG if it ends in ``.svg``.

    Raises:
        ValueError: If there are no contrasts.
    """
    metrics = _by_metric(contrasts)
    rows = list(dict.fromkeys(map(title_of, contrasts)))
    figure, panels = make_rows(rows, 0.34, panels=len(metrics))
    for axes, (metric, group) in zip(panels, metrics.items(), strict=True):
        unit = Metric(metric)
        _draw_ground(axes, group, unit)
        for c in group:
            row = rows.index(title_of(c))
            draw_interval(axes, *(unit.scale * x for x in (c.mean, c.low, c.high)), row, INK, "o")
            if c.p_holm >= 1 - c.confidence:
                axes.lines[-1].set(markerfacecolor="white", markeredgecolor=INK)
            if len(metrics) == 1:
                ends = f"{unit.difference(c.low, unit=False)} to {unit.difference(c.high, unit=False)}"
                _write_beside(axes, row, f"{unit.difference(c.mean)} ({ends})")
        axes.set_xlabel(unit.difference_axis.replace(" (", "\n(") if len(metrics) > 1 else unit.difference_axis)
        axes.xaxis.label.set_fontsize(10 if len(metrics) < 3 else 9)
    return save(figure, path)


def draw_posterior(contrasts: Sequence[Contrast], path: pathlib.Path) -> Figure:
    """Draw for each contrast the posterior shares of worse, no difference that counts, and better.

    Args:
        contrasts: From top to bottom; those without shares are left out.
        path: PNG to write, or SVG if it ends in ``.svg``.

    Raises:
        ValueError: If no contrast has shares.
    """
    with_shares = [(c, c.bayes) for c in contrasts if c.bayes is not None]
    if not with_shares:
        raise ValueError("contrasts: expected some with posterior shares, got none")
    several = len({c.metric for c, _ in with_shares}) > 1
    names = [title_of(c) + f", {Metric(c.metric).label}" * several for c, _ in with_shares]
    figure, (axes,) = make_rows(names, 0.42, foot=1.0)
    kinds = (("worse", COLOURS[1], "////", "black"), ("equivalent", "#f2f4f6", "", "black"))
    kinds += (("better", COLOURS[0], "", "white"),)
    left = np.zeros(len(names))
    for kind, colour, hatch, ink in kinds:
        shares = 100 * np.array([getattr(bayes, kind) for _, bayes in with_shares])
        look = {"color": colour, "edgecolor": INK, "hatch": hatch, "linewidth": 0.6}
        bars = axes.barh(range(len(names)), shares, 0.6, left, label=kind, gid=kind, **look)
        ground = {"facecolor": colour, "edgecolor": "none", "pad": 1.2} if hatch else None  # not upon the hatching
        for text in axes.bar_label(bars, [f"{s:.0f}%" if s >= 7 else "" for s in shares], label_type="center", fontsize=9):
            text.set(color=ink, bbox=ground if text.get_text() else None)
        left += shares
    axes.set_xlim(0, 100)
    axes.grid(visible=False)
    axes.set_xlabel("posterior share of the mean difference (%)", fontsize=10)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return save(figure, path)


def title_of(contrast: Contrast) -> str:
    """A contrast as it is named everywhere: "arm − control"."""
    return f"{contrast.arm} − {contrast.control}"


def _by_metric(contrasts: Sequence[Contrast]) -> dict[str, list[Contrast]]:
    if not contrasts:
        raise ValueError("contrasts: expected at least one, got none")
    groups: dict[str, list[Contrast]] = {}
    for c in contrasts:
        groups.setdefault(c.metric, []).append(c)
    return groups


def _draw_ground(axes: Axes, contrasts: Sequence[Contrast], unit: Metric) -> None:
    """The zero line and, where the contrasts agree on it, the band of differences that count as none."""
    axes.axvline(0, color=INK, linewidth=0.9, zorder=1.5, gid="zero")
    ropes = {c.bayes.rope for c in contrasts if c.bayes is not None}
    if len(ropes) == 1 and (rope := unit.scale * ropes.pop()) > 0:
        axes.axvspan(-rope, rope, color=BAND, linewidth=0, zorder=0.5, gid="rope")


def _write_beside(axes: Axes, row: int, text: str) -> None:
    axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5, color=INK)
