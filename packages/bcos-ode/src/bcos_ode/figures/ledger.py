"""Ledgers as heat maps: what was found beside what the equations say, with the numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
from bcos_core.run.error import InputError
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from bcos_ode.explanation import Coefficients, Ledger, ledger_error

# orange is up, blue down; the blue is the darker one, so that grey print tells strong ones apart
SIGNED = LinearSegmentedColormap.from_list("signed", ["#0b2f6b", "#5b9bd5", "#ffffff", "#f2a07b", "#d9481c"])
_FAINT = "#57606a"


def draw_ledger(ledgers: Mapping[str, Ledger], *, title: str) -> Figure:
    """Draw how much each channel contributes to each derivative over the states, a panel for each equation.

    A number is the root mean square of a contribution, in units of the derivative's, with the sign that contributions
    mostly have where the channel is positive.

    Args:
        ledgers: By name, a row for each. One named "equations" is the truth: the others are given their error.
        title: First line of the picture.

    Raises:
        InputError: If there is no ledger.
    """
    if not ledgers:
        raise InputError("draw_ledger: expected at least one ledger, got none")
    first, truth = next(iter(ledgers.values())), ledgers.get("equations")
    d, m = len(first.equations), len(first.channels)
    figure = Figure(figsize=(max(7.0, 1.6 + d * (0.85 * m + 0.9)), 0.5 * len(ledgers) + 1.6), layout="constrained")
    for i, axes in enumerate(figure.subplots(1, d, squeeze=False)[0]):
        values = np.stack([_sizes(found)[i] for found in ledgers.values()])
        names = list(ledgers) if i == 0 else [""] * len(ledgers)
        _draw_table(axes, values, names, first.channels, "+.2f")
        axes.set_title(f"d{first.equations[i]}/dt", fontsize=11)
        if truth is not None:
            for row, (name, found) in enumerate(ledgers.items()):
                if name != "equations":
                    error = ledger_error(found, truth).equations[first.equations[i]]
                    axes.annotate(
                        f"{error:.1%} off",
                        (m - 0.42, row),
                        fontsize=8,
                        va="center",
                        color=_FAINT,
                        annotation_clip=False,
                    )
    figure.suptitle(title, fontsize=12, fontweight="bold")
    figure.supxlabel(
        "root mean square contribution of each channel, in units of the derivative's; its sign where the channel is "
        "positive",
        fontsize=8,
    )
    return figure


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


def _draw_table(axes: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], form: str) -> None:
    limit = float(np.abs(values).max()) or 1.0
    axes.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, fontsize=10)
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
