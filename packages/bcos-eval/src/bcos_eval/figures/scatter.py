"""One metric against another: does what explains well also predict well?"""

import pathlib
from collections.abc import Sequence

from matplotlib.figure import Figure

from ..stats.result import ArmSummary
from .canvas import BAND, mark_style, save, wrap
from .unit import Metric


def draw_scatter(
    across: Sequence[ArmSummary], up: Sequence[ArmSummary], path: pathlib.Path, *, metrics: tuple[str, str]
) -> Figure:
    """Draw arms by two metrics, accuracy against localisation say, with their intervals in both directions.

    Args:
        across: Arms' scores of the first metric.
        up: The same arms' of the second, in any order.
        path: PNG to write, or SVG if it ends in ``.svg``.
        metrics: Names of the two.

    Raises:
        ValueError: If the two are not of the same arms.
    """
    of_arm = {arm.arm: arm for arm in up}
    if not across or of_arm.keys() != {arm.arm for arm in across}:
        raise ValueError(f"up: expected the arms of across, {[a.arm for a in across]}, got {list(of_arm)}")
    first, second = map(Metric, metrics)
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for i, x in enumerate(across):
        y, (colour, marker) = of_arm[x.arm], mark_style(i)
        axes.errorbar(
            first.scale * x.mean,
            second.scale * y.mean,
            xerr=[[first.scale * (x.mean - x.low)], [first.scale * (x.high - x.mean)]],
            yerr=[[second.scale * (y.mean - y.low)], [second.scale * (y.high - y.mean)]],
            fmt=marker,
            color=colour,
            markersize=9,
            markeredgecolor="white",
            markeredgewidth=0.6,
            linewidth=1.4,
            label=wrap(x.arm),
        )
    axes.set_xlabel(first.axis, fontsize=10)
    axes.set_ylabel(second.axis, fontsize=10)
    axes.tick_params(labelsize=9)
    axes.grid(color=BAND, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return save(figure, path)
