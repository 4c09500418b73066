"""Pictures of trajectories: what was predicted against what came."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from .names import find_largest, label_names

TRUE, FOUND = "#8a8f98", "#d9481c"
_SHOWN = 3
_MOST_VARIABLES = 30


def draw_solutions(
    times: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    variables: Sequence[str],
    path: pathlib.Path,
    *,
    title: str,
    within: int = 0,
    logarithmic: bool = False,
    before: tuple[np.ndarray, np.ndarray] | None = None,
    time_label: str = "time",
) -> None:
    """Draw solutions from test starts over the true trajectories, a row for each variable; of very many the worst ones.

    Args:
        times: Shape (T,).
        truth: States, shape (N, T, d).
        predicted: Shape (N, T, d); NaN from where a solution ended.
        variables: Names of the d variables.
        path: PNG to write.
        title: First line of the picture.
        within: Number of times within the span of the training data: what follows is shaded.
        logarithmic: Draw times on a logarithmic axis.
        before: Times (S,) and states (S, d) that trained, where a forecast follows them.
        time_label: Of the time axis.
    """
    shown = 1 if before is not None else min(_SHOWN, len(truth))
    rows, others = find_largest(_errors(predicted, truth), _MOST_VARIABLES)
    names = label_names(variables)
    figure = Figure(figsize=(4.2 * shown + (3 if before is not None else 0), 1.7 * len(rows) + 1), layout="constrained")
    axes = figure.subplots(len(rows), shown, squeeze=False, sharex=True, sharey="row")
    for row, k in enumerate(rows):
        for i in range(shown):
            ax = axes[row, i]
            if before is not None:
                ax.plot(before[0], before[1][:, k], "o-", color=TRUE, lw=1, ms=3, label="trained on")
            style = "o-" if before is not None else "-"
            ax.plot(times, truth[i, :, k], style, color=TRUE, lw=3, ms=4, alpha=0.8, label="true")
            ax.plot(times, predicted[i, :, k], color=FOUND, lw=1.2, label="solved")
            if 0 < within < len(times):
                ax.axvspan(times[within - 1], times[-1], color="#f3efe6", zorder=-1)
            if logarithmic:
                ax.set_xscale("log")
            low, high = _range(truth[:, :, k])
            ax.set_ylim(low, high)
            if i == 0:
                ax.set_ylabel(names[k])
            if row == len(rows) - 1:
                ax.set_xlabel(time_label)
            if row == 0:
                ax.set_title("forecast" if before is not None else f"test start {i + 1}", fontsize=9)
    axes[0, 0].legend(fontsize=8, loc="upper right")
    notes = [title.replace("$", r"\$")]
    if 0 < within < len(times):
        notes.append("shaded: beyond the length of the training trajectories")
    if len(others):
        notes.append(f"the {len(rows)} worst of {len(names)} variables")
    figure.suptitle("; ".join(notes), fontsize=10)
    figure.savefig(path, dpi=130)


def _errors(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Of each variable (d,), RMSE over standard deviation; infinite where a solution ended."""
    spread = truth.std((0, 1))
    with np.errstate(over="ignore"):
        error = np.sqrt(np.square(predicted - truth).mean((0, 1)))
    return np.nan_to_num(error / np.where(spread > 0, spread, 1), nan=np.inf)


def _range(values: np.ndarray) -> tuple[float, float]:
    """What the truth needs, and a margin: a solution that runs away may leave the picture."""
    low, high = float(values.min()), float(values.max())
    margin = 0.15 * (high - low or 1.0)
    return low - margin, high + margin
