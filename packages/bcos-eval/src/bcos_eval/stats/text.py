"""A comparison for the terminal."""

import math
from collections.abc import Callable, Sequence

from .metric import difference_range, write_difference, write_value
from .number import NONE, write_p, write_percent
from .result import Comparison, Contrast, Power


def to_lines(comparison: Comparison, *, says: str = "") -> str:
    """A comparison as two short tables and the sentences that say what they mean.

    Differences come first, with their interval; then p of the default test, p adjusted over the contrasts, Hedges g,
    and the posterior shares of a difference that is worse, within the ROPE, and better.

    Args:
        comparison: What :func:`~bcos_eval.stats.comparison.compare_arms` found.
        says: What the metric is, where its name leaves that open.
    """
    metric, level = comparison.metric, f"{write_percent(1 - comparison.alpha)} interval"
    way = "higher" if comparison.higher_is_better else "lower"
    rope = write_sizes(metric, [comparison.rope])
    arms = [("arm", "mean", level, "sd", "n")]
    for arm in comparison.arms:
        ends = _write_ends([write_value(metric, x) for x in (arm.low, arm.high)])
        sd = write_sizes(metric, [arm.sd])
        arms.append((arm.arm, write_value(metric, arm.mean), ends, sd, str(len(arm.values))))
    rows = [("contrast", "difference", level, "p", "p Holm", "g", f"worse / within {rope} / better")]
    rows += [_row(contrast) for contrast in comparison.contrasts]
    lines = [
        f"{metric} ({way} is better), {comparison.design}; intervals of arms: {comparison.interval}; p: "
        + ", ".join(dict.fromkeys(contrast.default for contrast in comparison.contrasts)),
        *([f"{metric}: {says}"] if says else []),
        *align(arms),
        "",
        *align(rows),
        "",
        *dict.fromkeys(contrast.estimand for contrast in comparison.contrasts),
        f"power: {power_sentence(comparison)}",
    ]
    if comparison.omnibus:
        ranks = ", ".join(f"{arm} {rank:.2f}" for arm, rank in comparison.omnibus.ranks)
        width = comparison.omnibus.critical_difference
        lines.append(f"mean ranks (descriptive; critical difference {width:.2f}): {ranks}")
    notes = [f"{c.arm} - {c.control}: {note}" for c in comparison.contrasts for note in c.notes]
    return "\n".join([*lines, *(f"note: {note}" for note in (*comparison.notes, *notes))])


def _row(c: Contrast) -> tuple[str, ...]:
    interval = _write_ends([write_difference(c.metric, x).removesuffix(" pp") for x in (c.low, c.high)])
    shares = " / ".join(f"{x:.2f}" for x in (c.bayes.worse, c.bayes.equivalent, c.bayes.better)) if c.bayes else NONE
    difference = write_difference(c.metric, c.mean)
    g = f"{c.hedges_g:+.2f}" if math.isfinite(c.hedges_g) else NONE
    return f"{c.arm} - {c.control}", difference, interval, write_p(c.p), write_p(c.p_holm), g, shares


def _write_ends(ends: Sequence[str]) -> str:
    return NONE if NONE in ends else f"[{', '.join(ends)}]"


def power_sentence(comparison: Comparison) -> str:
    """What the study could see, at which level, and what a difference of the size of the ROPE would take.

    Args:
        comparison: Its contrasts share the level: the power of each is that of Holm's first step.
    """
    if not (powers := [c.power for c in comparison.contrasts if c.power]):
        return "unknown, for want of variance."
    first, planned = powers[0], len(comparison.contrasts)
    level = f"level {first.alpha:.3g}"
    if planned > 1:
        level += f": {comparison.alpha:g} over {planned} contrasts, Holm's first step"
    line = (
        f"{write_percent(first.power)} of such studies find a true difference of "
        f"{write_detectable(comparison.metric, powers)} ({level})"
    )
    if not comparison.rope:
        return f"{line}."
    runs = "folds" if "fold" in comparison.design else "seeds of each arm"
    needed = _span([p.needed or math.inf for p in powers], lambda n: "more than 10 000" if n == math.inf else str(n))
    return f"{line}; to find one of {write_sizes(comparison.metric, [comparison.rope])} takes {needed} {runs}."


def write_sizes(metric: str, sizes: Sequence[float]) -> str:
    """Sizes of differences, from the smallest to the largest, with their unit once.

    Example:
        >>> write_sizes("accuracy", [0.0091, 0.007, 0.008]), write_sizes("accuracy", [0.007])
        ('0.70 to 0.91 pp', '0.70 pp')
    """
    return _span(sizes, lambda size: write_difference(metric, size).lstrip("+"))


def write_detectable(metric: str, powers: Sequence[Power]) -> str:
    """Sizes of differences that are found; none is larger than the metric's differences can be.

    Example:
        >>> write_detectable("accuracy", [Power(1.605, None)]), write_detectable("accuracy", [Power(0.007, 40)])
        ('more than the possible 100.00 pp', '0.70 pp')
    """
    most = difference_range(metric)[1]
    return _span(
        [p.detectable for p in powers],
        lambda x: write_sizes(metric, [x]) if x <= most else f"more than the possible {write_sizes(metric, [most])}",
    )


def _span(values: Sequence[float], write: Callable[[float], str]) -> str:
    low, high = write(min(values)), write(max(values))
    return high if low == high else f"{low.removesuffix(' pp')} to {high}"


def align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of text as lines with level columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
