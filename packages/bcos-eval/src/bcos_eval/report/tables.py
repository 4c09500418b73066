"""The report's tables as rows of text, once for all formats, and as numbers for CSV."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ..figures.differences import title_of
from ..figures.unit import Metric, write_number
from ..stats.number import NONE, write_p, write_percent
from ..stats.result import Comparison
from .study import StudyReport


@dataclass(frozen=True)
class Table:
    """Text in rows and columns."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: frozenset[int] = frozenset({0})
    """Columns that hold words; the others hold numbers."""


def arms_table(comparison: Comparison) -> Table:
    """Every arm's mean, interval, standard deviation and number of values."""
    unit = Metric(comparison.metric)
    return Table(
        f"{unit.label} ({'higher' if comparison.higher_is_better else 'lower'} is better), {comparison.design}",
        ("arm", "mean", f"{write_percent(1 - comparison.alpha)} interval", "sd", "n"),
        tuple(
            (
                a.arm,
                unit.value(a.mean),
                unit.value_ends(a.low, a.high),
                unit.size(a.sd),
                str(len(a.values)),
            )
            for a in comparison.arms
        ),
    )


def contrasts_table(comparison: Comparison) -> Table:
    """Every contrast's difference, interval, p, effect sizes and posterior shares."""
    unit = Metric(comparison.metric)
    shares = f"worse / within {unit.size(comparison.rope)} / better"
    rows = []
    for c in comparison.contrasts:
        b = c.bayes
        rows.append(
            (
                title_of(c),
                unit.difference(c.mean),
                unit.ends(c.low, c.high),
                write_p(c.p),
                write_p(c.p_holm),
                write_number(c.hedges_g, "+.2f"),
                write_number(c.paired_d, "+.2f"),
                " / ".join(f"{100 * x:.0f}%" for x in (b.worse, b.equivalent, b.better)) if b else NONE,
            )
        )
    interval = f"{write_percent(1 - comparison.alpha)} interval"
    header = ("contrast", "difference", interval, "p", "p (Holm)", "Hedges g", "paired d", shares)
    return Table(f"Differences in {unit.label}", header, tuple(rows))


def tests_table(comparison: Comparison) -> Table:
    """Every test of every contrast, the default one first, and the overview over all arms."""
    rows = [(title_of(c), t) for c in comparison.contrasts for t in c.tests]
    if comparison.omnibus:
        rows.append(("all arms", comparison.omnibus.test))
    return Table(
        f"All tests of {Metric(comparison.metric).label}",
        ("contrast", "test", "statistic", "df", "p"),
        tuple(
            (name, t.name, write_number(t.statistic, ".3f"), write_number(t.df, ".4g"), write_p(t.p))
            for name, t in rows
        ),
        frozenset({0, 1}),
    )


def option_tables(study: StudyReport) -> tuple[Table, Table]:
    """The options that differ between arms, and those that all arms share."""
    names = list(dict.fromkeys(name for options in study.arms.values() for name in options))
    values = {name: [_say(options.get(name, NONE)) for options in study.arms.values()] for name in names}
    shared = {name: row for name, row in values.items() if len(set(row)) == 1}
    differing = Table(
        "Options that differ",
        ("arm", *(name for name in names if name not in shared)),
        tuple(
            (arm, *(row[i] for name, row in values.items() if name not in shared)) for i, arm in enumerate(study.arms)
        ),
        frozenset(range(len(names) + 1)),
    )
    same = tuple((name, row[0]) for name, row in shared.items())
    return differing, Table("Options that all arms share", ("option", "value"), same, frozenset({0, 1}))


def missing_table(study: StudyReport) -> Table:
    rows = tuple((u.arm, str(u.repeat), str(u.fold), str(u.seed), u.reason) for u in study.missing)
    return Table("Units without scores", ("arm", "repeat", "fold", "seed", "reason"), rows, frozenset({0, 4}))


def arms_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row for each metric and arm; values are in one cell, separated by spaces."""
    return pd.DataFrame(
        {"metric": c.metric, "arm": a.arm, "mean": a.mean, "low": a.low, "high": a.high, "sd": a.sd}
        | {"n": len(a.values), "values": " ".join(map(repr, a.values)), "confidence": 1 - c.alpha}
        for c in comparisons
        for a in c.arms
    )


def contrasts_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row for each metric, contrast and test; the default test is marked."""
    return pd.DataFrame(
        {"metric": c.metric, "arm": c.arm, "control": c.control, "mean": c.mean, "low": c.low, "high": c.high}
        | {"confidence": c.confidence, "n": len(c.differences), "p_holm": c.p_holm}
        | {"hedges_g": c.hedges_g, "paired_d": c.paired_d, "rope": comparison.rope}
        | {kind: getattr(c.bayes, kind, None) for kind in ("worse", "equivalent", "better")}
        | {kind: getattr(c.power, kind, None) for kind in ("detectable", "needed")}
        | {"power_level": getattr(c.power, "alpha", None)}
        | {"test": t.name, "is_default": t.name == c.default, "statistic": t.statistic, "df": t.df, "p": t.p}
        for comparison in comparisons
        for c in comparison.contrasts
        for t in c.tests
    )


def _say(x: object) -> str:
    if isinstance(x, float):
        return write_number(x, ".4g") if math.isfinite(x) else NONE
    return ", ".join(map(str, x)) if isinstance(x, (tuple, list)) else str(x)
