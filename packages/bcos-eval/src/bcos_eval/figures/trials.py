"""A search's trials: values in the order they came, and against each option."""

import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .canvas import save
from .unit import Metric


def draw_trials(table: pd.DataFrame, metric: str, options: Sequence[str], path: pathlib.Path, *, title: str) -> Figure:
    """Draw every trial's value against its number and against each option; the best is a star, pruned ones are hollow.

    Args:
        table: A row for each trial: "trial", the metric, "pruned", and a column for each option; the best first.
        metric: The metric's column.
        options: Columns to draw against.
        path: PNG or SVG to write.
        title: First line.
    """
    unit = Metric(metric)
    columns = ["trial", *options]
    rows = -(-len(columns) // 4)
    width = min(4, len(columns))
    figure = Figure(figsize=(3 * width + 0.6, 2.8 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, width, sharey=True, squeeze=False)
    for cell, name in zip(axes.flat, columns, strict=False):
        _draw_against(cell, table, name, unit.scale * table[metric].to_numpy(float))
    for cell in axes.flat[len(columns) :]:
        cell.set_axis_off()
    for row in axes:
        row[0].set_ylabel(unit.axis)
    figure.suptitle(f"{title}: mean over inner folds", fontsize=11)
    return save(figure, path)


def _draw_against(axes: Axes, table: pd.DataFrame, name: str, values: np.ndarray) -> None:
    x, pruned = table[name], table["pruned"].to_numpy(bool)
    if not pd.api.types.is_numeric_dtype(x):
        names = sorted(x.astype(str).unique())
        long = max(map(len, names)) > 6
        axes.set_xticks(range(len(names)), names, rotation=30 if long else 0, ha="right" if long else "center")
        axes.set_xlim(-0.5, len(names) - 0.5)
        x = x.astype(str).map(names.index)
    x = x.to_numpy(float)
    axes.scatter(x[~pruned], values[~pruned], s=26, color="#0b5394", zorder=3)
    axes.scatter(x[pruned], values[pruned], s=26, facecolor="none", edgecolor="#7a7a7a", zorder=2)
    axes.scatter(x[:1], values[:1], s=120, marker="*", color="#d9481c", edgecolor="black", linewidth=0.6, zorder=4)
    if x.min() > 0 and x.max() / x.min() > 30:
        axes.set_xscale("log")
    axes.set_xlabel(name)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
