"""Pictures of a regression: predictions, and the terms that they are sums of."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import r2_score, root_mean_squared_error

from bcos_ode.encoding import CONSTANT

from .names import label_names

if TYPE_CHECKING:
    from bcos_ode.regression import Contributions

_UP, _DOWN, _REST = "#d9481c", "#2f6db5", "#8c959f"
_QUIET, _OTHERS = "#57606a", "#d8dee4"
_GREYS = (14, 15)  # of tab20: what no variable is drawn in
_SHOWN_OUTPUTS, _SHOWN_TERMS = 4, 12
_ROUNDING = 1e-6  # relative: terms below it are none


def draw_predictions(
    observed: Float[np.ndarray, "n k"],
    predictions: Float[np.ndarray, "n k"],
    outputs: Sequence[str],
    path: pathlib.Path,
    *,
    title: str,
) -> None:
    """Draw predicted against observed values, a panel for each output.

    Args:
        observed: Shape (n, k).
        predictions: Shape (n, k).
        outputs: Names of the outputs; the first few are drawn.
        path: PNG to write.
        title: First line of the picture.
    """
    shown = label_names(outputs)[:_SHOWN_OUTPUTS]
    figure = Figure(figsize=(max(5.2, 3.4 * len(shown)), 4.2), layout="constrained")
    for j, (axes, name) in enumerate(zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True)):
        both = np.concatenate([observed[:, j], predictions[:, j]])
        margin = 0.05 * (both.max() - both.min())
        ends = [both.min() - margin, both.max() + margin]
        axes.plot(ends, ends, color=_REST, linewidth=1)
        axes.scatter(observed[:, j], predictions[:, j], s=18, alpha=0.7, color=_DOWN, edgecolor="none")
        axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel=f"observed {name}", ylabel=f"predicted {name}")
        error = root_mean_squared_error(observed[:, j], predictions[:, j])
        axes.set_title(f"RMSE {error:.3g}, R² {r2_score(observed[:, j], predictions[:, j]):.2f}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(_first_line(title, outputs), fontsize=11, fontweight="bold")
    figure.supxlabel("Test samples. On the grey line a prediction is exact.", fontsize=8, color=_QUIET)
    figure.savefig(path, dpi=130)


def draw_contributions(
    found: "Contributions",
    inputs: Float[np.ndarray, "n d"],
    observed: Float[np.ndarray, "n k"],
    input_names: Sequence[str],
    outputs: Sequence[str],
    path: pathlib.Path,
    *,
    title: str,
) -> None:
    """Draw, for each output, how large each term is, and three predictions as sums of theirs.

    Args:
        found: Terms of the test samples.
        inputs: Their variables, shape (n, d).
        observed: Their targets, shape (n, k).
        input_names: Names of the variables.
        outputs: Names of the outputs; the first few are drawn.
        path: PNG to write.
        title: First line of the picture.
    """
    shown, texts = label_names(outputs)[:_SHOWN_OUTPUTS], _labels(found)
    num_terms = min(len(found.channels), _SHOWN_TERMS) + 1
    figure = Figure(figsize=(14, len(shown) * (0.26 * num_terms + 1.35) + 0.8), layout="constrained")
    for j, (row, output) in enumerate(zip(figure.subplots(len(shown), 4, squeeze=False), shown, strict=True)):
        names, terms = _terms(found, j)
        _draw_sizes(row[0], [texts.get(name, name) for name in names], terms, output)
        order = np.argsort(found.predictions[:, j])
        for axes, i in zip(row[1:], order[[0, len(order) // 2, -1]], strict=True):
            values = dict(zip(input_names, inputs[i], strict=True))
            labels = [f"{texts[name]} = {values[name]:.4g}" if name in values else name for name in names]
            _draw_waterfall(axes, labels, terms[i], float(found.predictions[i, j]), float(observed[i, j]), output)
    figure.suptitle(_first_line(title, outputs), fontsize=11, fontweight="bold")
    figure.supxlabel(
        "Terms are in the output's units and count from 0, not from a mean: a large one need not change much from "
        f'sample to sample (black: ± one standard deviation). "{CONSTANT}" is the constant channel.\n'
        "To the right the smallest, the median and the largest prediction of the test: from the top down, terms add up "
        "from 0 to the prediction.",
        fontsize=8,
        color=_QUIET,
    )
    figure.savefig(path, dpi=130)


def draw_series(
    found: "Contributions",
    times: Float[np.ndarray, "t"],
    values: Float[np.ndarray, "t k"],
    rows: Int[np.ndarray, "n"],
    outputs: Sequence[str],
    path: pathlib.Path,
    *,
    title: str,
) -> None:
    """Draw a series over time and, where it is tested, each prediction as a stack of its terms.

    Args:
        found: Terms of the test samples.
        times: Of all samples.
        values: Observed at all times, shape (t, k).
        rows: Which of the samples the test is.
        outputs: Names of the outputs; the first few are drawn.
        path: PNG to write.
        title: First line of the picture.
    """
    shown, texts = label_names(outputs)[:_SHOWN_OUTPUTS], _labels(found)
    figure = Figure(figsize=(11, 2.8 * len(shown) + 1), layout="constrained")
    width = 0.7 * (times[1] - times[0])
    palette = [colormaps["tab20"](k) for k in range(20) if k not in _GREYS]
    channels = [name for name in found.channels if name != CONSTANT]
    for j, (axes, output) in enumerate(zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True)):
        names, terms = _terms(found, j)
        # by channel where there are colours for all, so that panels can be compared
        coloured = channels if len(channels) <= len(palette) else [name for name in names if name in channels]
        colours = {CONSTANT: _REST, **dict(zip(coloured, palette, strict=False))}
        for sign in (1, -1):
            base = np.zeros(len(rows))
            for name, term in zip(names, terms.T, strict=True):
                part = np.where(sign * term > 0, term, 0)
                colour = colours.get(name, _OTHERS)
                axes.bar(
                    times[rows], part, width, base, color=colour, label=texts.get(name, name) if sign > 0 else None
                )
                base += part
        axes.axhline(0, color=_QUIET, linewidth=0.8)
        axes.plot(times, values[:, j], color="black", linewidth=1, marker=".", label="observed")
        axes.plot(times[rows], found.predictions[:, j], "D", color="white", markeredgecolor="black", label="predicted")
        axes.set(xlabel="time", ylabel=output)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    figure.suptitle(_first_line(title, outputs), fontsize=11, fontweight="bold")
    figure.supxlabel(
        "What each past observation contributed: bars above zero less bars below are the prediction. "
        f'"{CONSTANT}" is the constant channel.',
        fontsize=8,
        color=_QUIET,
    )
    figure.savefig(path, dpi=130)


def _labels(found: "Contributions") -> dict[str, str]:
    """What pictures call each channel."""
    return dict(zip(found.channels, label_names(found.channels), strict=True))


def _first_line(title: str, outputs: Sequence[str]) -> str:
    count = len(outputs)
    more = f"; the first {_SHOWN_OUTPUTS} of {count} outputs" if count > _SHOWN_OUTPUTS else ""
    return title.replace("$", r"\$") + more


def _terms(found: "Contributions", output: int) -> tuple[list[str], Float[np.ndarray, "n m"]]:
    """Names and values of what one output is the sum of: channels, largest first, then what no channel is."""
    values = found.values[:, output]
    order = np.argsort(-np.abs(values).mean(0))
    shown, others = order[:_SHOWN_TERMS], order[_SHOWN_TERMS:]
    names, terms = [found.channels[k] for k in shown], list(values[:, shown].T)
    size = _ROUNDING * np.abs(found.predictions[:, output]).max()
    rest = {
        f"{len(others)} others": values[:, others].sum(1),
        "biases": found.remainder[:, output],
        "unaccounted": found.unaccounted[:, output],
    }
    for name, term in rest.items():
        if np.abs(term).max() > size:
            names.append(name)
            terms.append(term)
    return names, np.stack(terms, 1)


def _draw_sizes(axes: Axes, names: Sequence[str], terms: Float[np.ndarray, "n m"], output: str) -> None:
    mean, size = terms.mean(0), np.abs(terms).mean(0)
    colours = [_UP if value > 0 else _DOWN for value in mean]
    axes.barh(names, size, color=colours, xerr=terms.std(0), error_kw={"linewidth": 1})
    axes.invert_yaxis()
    axes.set_title(f"{output}: mean |contribution|\n(red: positive, blue: negative on average)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_waterfall(
    axes: Axes, labels: Sequence[str], terms: Float[np.ndarray, "m"], prediction: float, observed: float, output: str
) -> None:
    ends = np.cumsum(terms)
    places = np.arange(len(terms))
    axes.barh(places, terms, left=ends - terms, height=0.7, color=[_UP if term > 0 else _DOWN for term in terms])
    axes.vlines(ends[:-1], places[:-1], places[1:], color=_QUIET, linewidth=0.6)
    axes.axvline(0, color=_QUIET, linewidth=0.8)
    axes.axvline(prediction, color="black", linewidth=1.2)
    axes.axvline(observed, color="black", linewidth=1.2, linestyle=":")
    reach = [0.0, prediction, observed, *ends]
    margin = 0.05 * (max(reach) - min(reach))
    axes.set_xlim(min(reach) - margin * (min(reach) < 0), max(reach) + margin)
    axes.set_yticks(places, [f"{label}:  {term:+.3g}" for label, term in zip(labels, terms, strict=True)])
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.set_title(f"{output}\npredicted {prediction:.4g} (line)\nobserved {observed:.4g} (dotted)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
