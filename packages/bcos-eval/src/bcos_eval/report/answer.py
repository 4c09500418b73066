"""The answer in sentences: what was found, what was not shown, and what could have been seen."""

import math
from collections.abc import Sequence

from ..figures.differences import title_of
from ..figures.unit import Metric, state_p, write_number
from ..stats.number import write_percent
from ..stats.result import Comparison, Contrast
from ..stats.text import write_detectable

_STILL = "since the differences do not vary"


def answer(comparison: Comparison) -> list[str]:
    """Sentences on a comparison's contrasts: one for each that shows a difference, one for all others together.

    Contrasts that cannot be tested are no others, they get a sentence of their own. A single contrast gets a second
    sentence on what its interval says of the ROPE.

    Args:
        comparison: Of the metric that answers the study's question.
    """
    shown = [c for c in comparison.contrasts if c.p_holm < comparison.alpha]
    rest = [c for c in comparison.contrasts if c.p_holm >= comparison.alpha]
    untested = [c for c in comparison.contrasts if math.isnan(c.p)]
    if len(comparison.contrasts) == 1:
        (contrast,) = comparison.contrasts
        return [_state(contrast, comparison) + ".", *_weigh(contrast, comparison)]
    of = f"of the {len(comparison.contrasts)} contrasts in {Metric(comparison.metric).label}"
    if not shown and not rest:
        return [f"None {of} could be tested.", _not_tested(untested, comparison)]
    head = f"{len(shown) or 'None'} {of} {'show' if len(shown) > 1 else 'shows'} a difference"
    head += f", {len(untested)} could not be tested" * bool(untested)
    lines = [f"{head} (p adjusted by Holm over all of them)."]
    lines += [
        f"{_state(c, comparison)}." for c in sorted(shown, key=lambda c: c.mean * _sign(comparison), reverse=True)
    ]
    if rest:
        lines.append(
            _not_shown(rest, comparison, f"For the other{f' {len(rest)}' * (len(rest) > 1)} no" if shown else "No")
        )
    if untested:
        lines.append(_not_tested(untested, comparison))
    return lines


def estimand_sentences(comparisons: Sequence[Comparison]) -> list[str]:
    """What the differences are of, each wording once; several metrics share theirs."""
    contrasts = [c for comparison in comparisons for c in comparison.contrasts]
    each = "in each metric," if len(comparisons) > 1 else None
    said = (c.estimand.replace(f"in {c.metric},", each) if each else c.estimand for c in contrasts)
    return list(dict.fromkeys(said))


def _state(c: Contrast, comparison: Comparison) -> str:
    unit, level = Metric(c.metric), f"{write_percent(c.confidence)} interval {Metric(c.metric).ends(c.low, c.high)}"
    adjusted = state_p(c.p_holm, "p (Holm)" if len(comparison.contrasts) > 1 else "p")
    if c.p_holm < comparison.alpha:
        better = c.mean * _sign(comparison) > 0
        return (
            f"“{c.arm}” is {'better' if better else 'worse'} than “{c.control}” in {unit.label}: "
            f"{unit.difference(c.mean)} ({level}; {adjusted}, {c.default})"
        )
    if math.isnan(c.p):
        return (
            f"Whether “{c.arm}” and “{c.control}” differ in {unit.label} could not be tested, {_STILL}: the difference "
            f"is {unit.difference(c.mean)} throughout (no interval, {adjusted}, {c.default})"
        )
    return (
        f"No difference in {unit.label} between “{c.arm}” and “{c.control}” was shown{_seen([c], c.metric)}. Found: "
        f"{unit.difference(c.mean)} ({level}; {adjusted}, {c.default})"
    )


def _weigh(c: Contrast, comparison: Comparison) -> list[str]:
    """The interval against the ROPE."""
    if not (rope := comparison.rope):
        return []
    unit = Metric(c.metric)
    size = f"{unit.size(rope)}, up to which a difference counts as none"
    if c.bayes is None:  # without variance there is neither interval nor share
        return []
    share = write_number(100 * c.bayes.equivalent, ".0f") + "%"
    if -rope <= c.low and c.high <= rope:
        return [f"The whole interval lies within {size}: equivalent for practice (posterior share {share})."]
    if c.low > rope or c.high < -rope:
        return [f"The whole interval lies beyond {size}."]
    return [f"The interval reaches across the bound of {size}; the posterior share of no difference is {share}."]


def _not_shown(rest: Sequence[Contrast], comparison: Comparison, no: str) -> str:
    unit, rope = Metric(comparison.metric), comparison.rope
    names = ", ".join(f"{title_of(c)} {unit.difference(c.mean)}" for c in rest)
    line = f"{no} difference was shown ({names}){_seen(rest, comparison.metric)}"
    within = [title_of(c) for c in rest if rope and c.bayes and -rope <= c.low and c.high <= rope]
    if within:
        line += f". Equivalent for practice, with the whole interval within {unit.size(rope)}: {', '.join(within)}"
    return f"{line}."


def _not_tested(untested: Sequence[Contrast], comparison: Comparison) -> str:
    unit = Metric(comparison.metric)
    names = ", ".join(f"{title_of(c)} {unit.difference(c.mean)} throughout" for c in untested)
    return f"Not tested, {_STILL}: {names}."


def _seen(contrasts: Sequence[Contrast], metric: str) -> str:
    """What the study could have seen, and at which level; empty if unknown."""
    if not (powers := [c.power for c in contrasts if c.power]):
        return ""
    sizes = write_detectable(metric, powers)
    return f"; the study could have seen {sizes} (power {write_percent(powers[0].power)}, level {powers[0].alpha:.3g})"


def _sign(comparison: Comparison) -> int:
    return 1 if comparison.higher_is_better else -1
