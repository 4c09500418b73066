"""Ledgers as heat maps: what was found beside what the equations say, with the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from bcos_core.run.error import InputError
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from bcos_ode.explanation import Coefficients, Ledger, ledger_error

from .names import find_largest, label_names

# orange is up, blue down; the blue is the darker one, so that grey print tells strong ones apart
SIGNED = LinearSegmentedColormap.from_list("signed", ["#0b2f6b", "#5b9bd5", "#ffffff", "#f2a07b", "#d9481c"])
_FAINT = "#57606a"
_MOST_PANELS = 3  # beside each other; more equations are rows of one table for each ledger
_MOST_EQUATIONS, _MOST_CHANNELS = 40, 30


def draw_ledger(ledgers: Mapping[str, Ledger], *, title: str) -> Figure:
    """Draw how much each channel contributes to each derivative over the states.

    A number is the root mean square of a contribution, in units of the derivative's, with the sign that contributions
    mostly have where the channel is positive. Of up to three equations each has a panel, a row for each ledger; of more
    each ledger has a panel, a row for each equation. Of very many channels the largest are shown, and the others as
    their sum, with the sign that it mostly has.

    Args:
        ledgers: By name. One named "equations" is the truth: the others are given their error.
        title: First line of the picture.

    Raises:
        InputError: If there is no ledger.
    """
    if not ledgers:
        raise InputError("draw_ledger: expected at least one ledger, got none")
    first, truth = next(iter(ledgers.values())), ledgers.get("equations")
    sizes = {name: _sizes(found) for name, found in ledgers.items()}
    every = np.abs(np.stack(list(sizes.values())))
    chosen, others = find_largest(every.max((0, 1)), _MOST_CHANNELS)
    shown, _ = find_largest(every.max((0, 2)), _MOST_EQUATIONS)
    names = label_names(first.channels)
    channels = [names[k] for k in chosen]
    values = {name: size[:, chosen] for name, size in sizes.items()}
    if len(others):
        channels.append(f"{len(others)} others")
        values = {name: np.c_[value, _size_together(ledgers[name], others)] for name, value in values.items()}
    errors: dict[str, list[str]] = {name: [""] * len(first.equations) for name in ledgers}
    if truth is not None:
        for name, found in ledgers.items():
            if name != "equations":
                errors[name] = [f"{error:.1%} off" for error in ledger_error(found, truth).equations.values()]
    equations = [f"d{name}/dt" for name in label_names(first.equations)]
    if len(equations) <= _MOST_PANELS:
        tables = [
            _Table(
                equations[i], list(ledgers), np.stack([v[i] for v in values.values()]), [e[i] for e in errors.values()]
            )
            for i in shown
        ]
    else:
        rows = [equations[i] for i in shown]
        tables = [_Table(n, rows, v[shown], [errors[n][i] for i in shown]) for n, v in values.items()]
    figure = _draw_tables(tables, channels, beside=len(equations) <= _MOST_PANELS)
    figure.suptitle(title.replace("$", r"\$"), fontsize=12, fontweight="bold")
    notes = [
        "root mean square contribution of each channel, in units of the derivative's; its sign where the channel is "
        "positive"
    ]
    if len(others):
        notes.append(f"the {chosen.size} largest channels, and the sum of the others with the sign that it mostly has")
    if len(shown) < len(equations):
        notes.append(f"the {len(shown)} of {len(equations)} equations with the largest contributions")
    figure.supxlabel("\n".join(notes), fontsize=8)
    return figure


@dataclass(frozen=True)
class _Table:
    title: str
    rows: list[str]
    values: Float[np.ndarray, "rows m"]
    errors: list[str]
    """Of each row, beside it."""


def _draw_tables(tables: Sequence[_Table], channels: Sequence[str], *, beside: bool) -> Figure:
    """A panel for each table, beside each other or one below the other, as large as their cells need."""
    m, rows = len(channels), len(tables[0].rows)
    label = 0.085 * max(map(len, channels)) if _is_long(channels, beside) else 0.15  # inches above the cells
    if beside:
        size = max(7.0, 1.6 + len(tables) * (0.85 * m + 0.9)), 0.5 * rows + 1.45 + label
    else:
        size = max(7.0, 2.6 + 0.52 * m), len(tables) * (0.32 * rows + 0.5 + label) + 0.9
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(1, len(tables)) if beside else figure.subplots(len(tables), 1)
    for n, (axes, table) in enumerate(zip(np.atleast_1d(grid), tables, strict=True)):
        names = table.rows if n == 0 or not beside else [""] * rows
        _draw_table(axes, table.values, names, channels, "+.2f", upright=_is_long(channels, beside))
        axes.set_title(table.title, fontsize=11)
        for row, text in enumerate(table.errors):
            if text:
                axes.annotate(text, (m - 0.42, row), fontsize=8, va="center", color=_FAINT, annotation_clip=False)
    return figure


def _is_long(channels: Sequence[str], beside: bool) -> bool:
    """Whether names do not fit above their cells."""
    return max(map(len, channels)) > (10 if beside else 6)


def draw_coefficients(coefficients: Coefficients, *, title: str) -> Figure:
    """Draw the coefficients that were read off a field, and the equations' own below where they are known.

    Args:
        coefficients: Of a field of degree two.
        title: First line of the picture.
    """
    rows = {"found": coefficients.found}
    if coefficients.true is not None:
        rows["equations"] = coefficients.true
    d, q = coefficients.found.shape
    figure = Figure(figsize=(max(7.0, 1.6 + 0.8 * q), d * (0.42 * len(rows) + 0.55) + 0.9), layout="constrained")
    for i, axes in enumerate(figure.subplots(d, 1, squeeze=False)[:, 0]):
        values = np.stack([row[i].numpy() for row in rows.values()])
        _draw_table(axes, values, list(rows), coefficients.monomials if i == 0 else [""] * q, "+.3f")
        axes.set_ylabel(f"d{coefficients.equations[i]}/dt", fontsize=11, rotation=0, ha="right", va="center")
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure


def draw_products(found: Ledger, truth: Ledger, *, title: str) -> Figure:
    """Draw how much each pair of channels contributes to each derivative: found above, the equations' own below.

    Args:
        found: A product ledger.
        truth: The equations', at the same states.
        title: First line of the picture.

    Raises:
        InputError: If these are no product ledgers of the same channels.
    """
    if found.contributions.dim() != 4 or found.channels != truth.channels:
        raise InputError("draw_products: expected two product ledgers of the same channels")
    d, m = len(found.equations), len(found.channels)
    error = ledger_error(found, truth)
    figure = Figure(figsize=(max(7.0, 1.2 + d * (0.62 * m + 0.6)), 2 * (0.5 * m + 0.6) + 0.9), layout="constrained")
    grid = figure.subplots(2, d, squeeze=False)
    for row, (books, name) in enumerate(((found, "found"), (truth, "equations"))):
        for i, axes in enumerate(grid[row]):
            equation = found.equations[i]
            _draw_table(axes, _sizes(books)[i], found.channels, found.channels, "+.2f")
            axes.set_title(
                f"d{equation}/dt, {name}" + (f" ({error.equations[equation]:.1%} off)" if row == 0 else ""), fontsize=10
            )
    figure.suptitle(title, fontsize=12, fontweight="bold")
    figure.supxlabel(
        "root mean square contribution of each product, in units of the derivative's; its sign where the product is "
        "positive",
        fontsize=8,
    )
    return figure


def _sizes(found: Ledger) -> Float[np.ndarray, "d *channels"]:
    """Root mean squares in units of the derivative's, with the sign that contributions mostly have where channels are
    positive: ρ x counts as positive, whatever the sign of x.
    """
    parts, factors = found.contributions, found.inputs
    if parts.dim() == 4:
        factors = factors[:, :, None] * factors[:, None, :]
    shape = (-1, len(found.equations), *[1] * (parts.dim() - 2))
    unit = found.derivatives.square().mean(0).sqrt().reshape(shape)[0]
    sign = (parts * factors[:, None]).sum(0).sign()
    return (sign * parts.square().mean(0).sqrt() / unit).numpy()


def _size_together(found: Ledger, channels: Int[np.ndarray, "rest"]) -> Float[np.ndarray, "d"]:
    """Root mean square of the sum of some channels, in units of the derivative's, with the sign that it mostly has."""
    together = found.contributions[..., channels].sum(-1)
    unit = found.derivatives.square().mean(0).sqrt()
    return (together.sum(0).sign() * together.square().mean(0).sqrt() / unit).numpy()


def _draw_table(
    axes: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    form: str,
    *,
    upright: bool = False,
) -> None:
    limit = float(np.abs(values).max()) or 1.0
    axes.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, fontsize=10, rotation=90 if upright else 0)
    axes.set_yticks(range(len(rows)), rows, fontsize=10)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.set_xticks(np.arange(0.5, len(columns) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(rows) - 1), minor=True)
    axes.grid(which="minor", color="#d0d7de", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_color("#d0d7de")
    for (row, column), value in np.ndenumerate(values):
        strong = abs(value) > 0.6 * limit
        text = format(value, form) if abs(value) >= 0.5 * 10 ** -int(form[-2]) else "0"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if strong else "black")
