"""How far predictions are from what was observed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn.metrics import r2_score, root_mean_squared_error


def score(
    targets: Float[np.ndarray, "n k"],
    predictions: Float[np.ndarray, "n k"],
    *,
    spread: Float[np.ndarray, "k"],
    names: Sequence[str] = (),
) -> dict[str, float]:
    """Root mean squared error, the same over the spread, and R², each the mean of the outputs'.

    The spread is that of the training targets, not of the scored ones: it does not change with the few samples that
    are scored, and the mean of the training targets scores close to 1.

    Args:
        targets: Observed, shape (n, k).
        predictions: Shape (n, k).
        spread: Standard deviation of each output over the training samples, positive.
        names: Of the outputs; where there are several, their own scores come too, as "rmse NAME".

    Returns:
        "rmse", in the outputs' units (of use as a mean where they share one), "nrmse", over the spread (where that of
        :func:`bcos_ode.dynamics.metrics.trajectory_nrmse` is over the scored ones'), and "r2".

    Example:
        >>> score(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]]), spread=np.array([2.0]))["r2"]
        0.5
    """
    rmse = root_mean_squared_error(targets, predictions, multioutput="raw_values")
    each = {"rmse": rmse, "nrmse": rmse / spread, "r2": r2_score(targets, predictions, multioutput="raw_values")}
    found = {name: float(np.mean(values)) for name, values in each.items()}
    if len(names) > 1:
        for name, values in each.items():
            found |= {f"{name} {of}": float(value) for of, value in zip(names, values, strict=True)}
    return found
