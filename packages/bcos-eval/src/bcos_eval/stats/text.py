"""A comparison for the terminal."""

import math
from collections.abc import Sequence

from .metric import write_difference, write_value
from .number import NONE, write_p
from .result import Comparison, Contrast


def to_lines(comparison: Comparison) -> str:
    """A comparison as two short tables and the sentences that say what they mean.

    Differences come first, with their interval; then p of the default test, p adjusted over the contrasts, Hedges g,
    and the posterior shares of a difference that is worse, within the ROPE, and better.

    Args:
        comparison: What :func:`~bcos_eval.stats.comparison.compare_arms` found.
    """
    metric, level = comparison.metric, f"{100 * (1 - comparison.alpha):g}% interval"
    way = "higher" if comparison.higher_is_better else "lower"
    rope = write_difference(metric, comparison.rope).lstrip("+")
    arms = [("arm", "mean", level, "sd", "n")]
    for arm in comparison.arms:
        ends = f"[{write_value(metric, arm.low)}, {write_value(metric, arm.high)}]"
        sd = write_difference(metric, arm.sd).lstrip("+")
        arms.append((arm.arm, write_value(metric, arm.mean), ends, sd, str(len(arm.values))))
    rows = [("contrast", "difference", level, "p", "p Holm", "g", f"worse / within {rope} / better")]
    rows += [_row(contrast) for contrast in comparison.contrasts]
    lines = [
        f"{metric} ({way} is better), {comparison.design}; intervals of arms: {comparison.interval}; p: "
        + ", ".join(dict.fromkeys(contrast.default for contrast in comparison.contrasts)),
        *_align(arms),
        "",
        *_align(rows),
        "",
        *dict.fromkeys(contrast.estimand for contrast in comparison.contrasts),
        *_power(comparison),
    ]
    if comparison.omnibus:
        ranks = ", ".join(f"{arm} {rank:.2f}" for arm, rank in comparison.omnibus.ranks)
        width = comparison.omnibus.critical_difference
        lines.append(f"mean ranks (descriptive; critical difference {width:.2f}): {ranks}")
    notes = [f"{c.arm} - {c.control}: {note}" for c in comparison.contrasts for note in c.notes]
    return "\n".join([*lines, *(f"note: {note}" for note in (*comparison.notes, *notes))])


def _row(c: Contrast) -> tuple[str, ...]:
    interval = f"[{', '.join(write_difference(c.metric, x).removesuffix(' pp') for x in (c.low, c.high))}]"
    shares = " / ".join(f"{x:.2f}" for x in (c.bayes.worse, c.bayes.equivalent, c.bayes.better)) if c.bayes else NONE
    difference = write_difference(c.metric, c.mean)
    g = f"{c.hedges_g:+.2f}" if math.isfinite(c.hedges_g) else NONE
    return f"{c.arm} - {c.control}", difference, interval, write_p(c.p), write_p(c.p_holm), g, shares


def _power(comparison: Comparison) -> list[str]:
    powers = [(f"{c.arm} - {c.control}", c.power) for c in comparison.contrasts if c.power]
    if not powers:
        return []
    sizes = (f"{write_difference(comparison.metric, power.detectable).lstrip('+')} ({name})" for name, power in powers)
    line = f"true differences that {powers[0][1].power:.0%} of such studies find: {', '.join(sizes)}"
    if not comparison.rope:
        return [line]
    unit = "folds" if "fold" in comparison.design else "seeds of each arm"
    needed = (f"{power.needed or 'more than 10 000'} {unit} ({name})" for name, power in powers)
    rope = write_difference(comparison.metric, comparison.rope).lstrip("+")
    return [f"{line}; one of {rope} takes {', '.join(needed)}"]


def _align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
