"""An ablation in one table: what each arm scores, and whether it differs from the control."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ..report.markdown import escape_markdown
from ..stats.metric import write_value
from ..stats.number import NONE, write_p
from ..stats.result import Comparison
from ..stats.text import align, write_sizes
from .exponents import ArmExponent

METRICS = ("accuracy", "localisation", "completeness_error", "seconds")
"""The table's, in its order."""

Row = tuple[str, ...]


def pick(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """A study's comparisons of the table's metrics, in the table's order; those that were not made are absent."""
    by_metric = {comparison.metric: comparison for comparison in comparisons}
    return [by_metric[name] for name in METRICS if name in by_metric]


def ablation_frame(
    arms: Sequence[str], exponents: Mapping[str, ArmExponent], comparisons: Sequence[Comparison]
) -> pd.DataFrame:
    """The table as numbers, a row for each arm.

    Args:
        arms: In the order of the rows; what an arm lacks is not a number.
        exponents: Of the arms that have any.
        comparisons: One for each metric, against one control.

    Returns:
        Columns ``arm``, ``b_mean``, ``b_min``, ``b_max``, and for each metric M: ``M`` (the mean), ``M_sd``, ``M_n``;
        of the difference to the control ``M_difference``, ``M_low``, ``M_high``, ``M_p``, ``M_p_holm``.
    """
    frame = pd.DataFrame({"arm": list(arms)}).set_index("arm")
    for name, field in (("b_mean", "mean"), ("b_min", "low"), ("b_max", "high")):
        frame[name] = pd.Series({arm: getattr(exponents[arm], field) for arm in exponents}, dtype=float)
    for comparison in comparisons:
        name = comparison.metric
        of_arms = pd.DataFrame(
            {"arm": a.arm, name: a.mean, f"{name}_sd": a.sd, f"{name}_n": len(a.values)} for a in comparison.arms
        )
        differences = pd.DataFrame(
            {
                "arm": c.arm,
                f"{name}_difference": c.mean,
                f"{name}_low": c.low,
                f"{name}_high": c.high,
                f"{name}_p": c.p,
                f"{name}_p_holm": c.p_holm,
            }
            for c in comparison.contrasts
        )
        frame = frame.join(of_arms.set_index("arm")).join(differences.set_index("arm"))
    return frame.reset_index()


def table_rows(
    arms: Sequence[str], exponents: Mapping[str, ArmExponent], comparisons: Sequence[Comparison]
) -> list[Row]:
    """The table as text, its header first: B, and for each metric mean ± sd and p (Holm) of the difference."""
    header = ["arm", "B"]
    for comparison in comparisons:
        header += [comparison.metric.replace("_", " "), "p"]
    rows: list[Row] = [tuple(header)]
    for arm in arms:
        row = [arm, write_exponent(exponents.get(arm))]
        for comparison in comparisons:
            scores = next((a for a in comparison.arms if a.arm == arm), None)
            contrast = next((c for c in comparison.contrasts if c.arm == arm), None)
            metric = comparison.metric
            row.append(
                NONE if scores is None else f"{write_value(metric, scores.mean)} ± {write_sizes(metric, [scores.sd])}"
            )
            row.append(NONE if contrast is None else write_p(contrast.p_holm))
        rows.append(tuple(row))
    return rows


def write_exponent(exponent: ArmExponent | None) -> str:
    """B as the table has it.

    Example:
        >>> write_exponent(ArmExponent(1.5, 1.5, 1.5)), write_exponent(ArmExponent(1.234, 1.0, 1.789, "layer"))
        ('1.5', '1.23 [1.00, 1.79]')
    """
    if exponent is None:
        return NONE
    if exponent.form is None:
        return f"{exponent.mean:.12g}"
    return f"{exponent.mean:.2f} [{exponent.low:.2f}, {exponent.high:.2f}]"


def to_text(rows: Sequence[Row]) -> str:
    """For the terminal."""
    return "\n".join(align(rows))


def to_markdown(rows: Sequence[Row], notes: Sequence[str], *, title: str) -> str:
    """A Markdown page of the table, and what a reader must know of it."""
    cells = [[escape_markdown(cell) for cell in row] for row in rows]
    lines = [cells[0], ["---", *["---:"] * (len(cells[0]) - 1)], *cells[1:]]
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([f"# {escape_markdown(title)}", "", *table, "", *(f"- {escape_markdown(n)}" for n in notes), ""])
