"""What the exponent B buys and costs: scores against it, fixed and learnt."""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..ablation.exponents import ArmExponent
from ..stats.result import ArmSummary, Comparison
from .canvas import BAND, COLOURS, FAINT, INK, save
from .unit import Metric

FORM_COLOURS = {"global": COLOURS[1], "layer": COLOURS[2], "channel": COLOURS[4]}
RULE_MARKERS = "Dv^sP*X<>"


def draw_tradeoff(
    comparisons: Sequence[Comparison], exponents: Mapping[str, ArmExponent], path: pathlib.Path, *, title: str = ""
) -> Figure:
    """Draw each metric against B: fixed exponents as a line, learnt ones as marks, error bars of one sd over units.

    A learnt arm's mark stands at its mean B, its colour says who shares an exponent, its shape what learning answered
    to; a thin level bar spans the smallest and the largest B of its layers.

    Args:
        comparisons: One for each panel, from the left.
        exponents: By arm; arms without are not drawn.
        path: PNG to write, or SVG if it ends in ``.svg``.
        title: Above the panels.

    Raises:
        ValueError: If there is no comparison, or none of its arms has an exponent.
    """
    if not comparisons or not any(a.arm in exponents for c in comparisons for a in c.arms):
        raise ValueError("comparisons: expected at least one, of arms with exponents, got none")
    forms = [form for form in FORM_COLOURS if any(e.form == form for e in exponents.values())]
    rules = list(dict.fromkeys(e.rule for e in exponents.values() if e.form is not None))
    markers = {rule: RULE_MARKERS[i % len(RULE_MARKERS)] for i, rule in enumerate(rules)}
    width = 4.1 * len(comparisons) + 2.1
    figure = Figure(figsize=(width, 4.0), layout="constrained")
    panels = figure.subplots(1, len(comparisons), squeeze=False)[0]
    for axes, comparison in zip(panels, comparisons, strict=True):
        unit = Metric(comparison.metric)
        known = [(a, exponents[a.arm]) for a in comparison.arms if a.arm in exponents]
        _draw_fixed(axes, [(a, e) for a, e in known if e.form is None], unit.scale)
        for arm, exponent in known:
            if exponent.form is not None:
                _draw_learnt(axes, arm, exponent, markers[exponent.rule], unit.scale)
        axes.set_xlabel("B", fontsize=10)
        axes.set_ylabel(unit.axis, fontsize=10)
        axes.tick_params(labelsize=9)
        axes.grid(color=BAND, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], color=INK, marker="o", markersize=5, linewidth=1.6, label="fixed")]
    handles += [
        Line2D([], [], linestyle="", marker="o", markersize=8, color=FORM_COLOURS[f], label=_form_text(f))
        for f in forms
    ]
    handles += [
        Line2D([], [], linestyle="", marker=markers[r], markersize=7, color=FAINT, label=_rule_text(r)) for r in rules
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9, title="exponent B")
    if title:
        figure.suptitle(textwrap.fill(title, int(12 * width)), fontsize=11)
    of = "folds" if "fold" in comparisons[0].design else "seeds"
    note = f"Upright bars: one standard deviation over {of}."
    note += " Level bars: smallest to largest B of any layer." * bool(forms)
    figure.supxlabel(note, fontsize=8, color="#57606a")
    return save(figure, path)


def _form_text(form: str) -> str:
    return {"global": "learnt, one for all", "layer": "learnt by layer", "channel": "learnt by channel"}[form]


def _rule_text(rule: str) -> str:
    """What learning answered to, as the legend has it.

    Example:
        >>> [_rule_text(rule) for rule in ("", "smooth max 0.1", "at least 1.5")]
        ['loss alone', 'loss + 0.1 smooth max B', 'B at least 1.5']
    """
    if not rule:
        return "loss alone"
    if rule.startswith("at "):
        return f"B {rule}"
    kind, _, strength = rule.rpartition(" ")
    return f"loss + {strength} {kind} B"


def _draw_fixed(axes: Axes, arms: Sequence[tuple[ArmSummary, ArmExponent]], scale: float) -> None:
    arms = sorted(arms, key=lambda pair: pair[1].mean)
    b, mean, sd = ([e.mean for _, e in arms], [scale * a.mean for a, _ in arms], [scale * a.sd for a, _ in arms])
    look = {"marker": "o", "markersize": 5, "linewidth": 1.6, "elinewidth": 1.1, "capsize": 2.5}
    axes.errorbar(b, mean, yerr=sd, color=INK, zorder=3, gid="fixed", **look)


def _draw_learnt(axes: Axes, arm: ArmSummary, exponent: ArmExponent, marker: str, scale: float) -> None:
    assert exponent.form is not None
    colour, y = FORM_COLOURS[exponent.form], scale * arm.mean
    axes.plot([exponent.low, exponent.high], [y, y], color=colour, linewidth=1, alpha=0.65, zorder=3.5, gid="range")
    axes.errorbar(
        [exponent.mean], [y], yerr=[scale * arm.sd], color=colour, elinewidth=1, zorder=3.6, linestyle="", gid="sd"
    )
    look = {"markersize": 8, "markeredgecolor": "white", "markeredgewidth": 0.6}
    axes.plot([exponent.mean], [y], marker, color=colour, zorder=4, gid="learnt", **look)
