"""Pictures of trajectories: what was predicted against what came."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

TRUE, FOUND = "#8a8f98", "#d9481c"
_SHOWN = 3


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
    """Draw solutions from test starts over the true trajectories, a row for each variable.

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
    figure = Figure(
        figsize=(4.2 * shown + (3 if before is not None else 0), 1.7 * len(variables) + 1), layout="constrained"
    )
    axes = figure.subplots(len(variables), shown, squeeze=False, sharex=True, sharey="row")
    for k, variable in enumerate(variables):
        for i in range(shown):
            ax = axes[k, i]
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
                ax.set_ylabel(variable)
            if k == len(variables) - 1:
                ax.set_xlabel(time_label)
            if k == 0:
                ax.set_title("forecast" if before is not None else f"test start {i + 1}", fontsize=9)
    axes[0, 0].legend(fontsize=8, loc="upper right")
    shaded = "; shaded: beyond the length of the training trajectories" if 0 < within < len(times) else ""
    figure.suptitle(title + shaded, fontsize=10)
    figure.savefig(path, dpi=130)


def _range(values: np.ndarray) -> tuple[float, float]:
    """What the truth needs, and a margin: a solution that runs away may leave the picture."""
    low, high = float(values.min()), float(values.max())
    margin = 0.15 * (high - low or 1.0)
    return low - margin, high + margin
