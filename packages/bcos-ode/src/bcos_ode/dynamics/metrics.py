"""What fields and predicted trajectories are scored by.

NumPy arrays in, numbers out. A prediction that is not finite is infinitely wrong from there on; it is never left out.
Ratios to something that is zero in the truth are 0 where the prediction is zero, too, and else infinite.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

VALID_ERROR = 0.4
"""Relative error up to which a chaotic prediction counts as valid (Pathak et al., PRL 120, 024102, 2018)."""


def field_error(predicted: np.ndarray, true: np.ndarray) -> float:
    """Size of a field's error, relative to the field: |f - f^| / |f|, Frobenius norms over states and variables.

    Args:
        predicted: Derivatives, shape (n, d).
        true: Shape (n, d).

    Raises:
        ValueError: If shapes differ.

    Example:
        >>> field_error(np.array([[3.0, 5.0]]), np.array([[3.0, 4.0]]))
        0.2
    """
    return float(_ratio(np.sqrt(_square_error(predicted, true).sum()), np.sqrt(np.square(true).sum())))


def field_error_by_variable(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The same for each variable alone: |f_k - f^_k| / |f_k| over the states, shape (d,).

    Args:
        predicted: Derivatives, shape (n, d).
        true: Shape (n, d).

    Raises:
        ValueError: If shapes differ.
    """
    return _ratio(np.sqrt(_square_error(predicted, true).sum(0)), np.sqrt(np.square(true).sum(0)))


def trajectory_nrmse(predicted: np.ndarray, true: np.ndarray) -> float:
    """Root mean square error of trajectories over each variable's standard deviation in the true ones.

    The root mean square is over times and trajectories, the standard deviation over those of the true ones, and what
    results is averaged over variables: 1 is what predicting their means would give. One trajectory that blew up makes
    it infinite.

    Args:
        predicted: States, shape (N, T, d).
        true: Shape (N, T, d).

    Raises:
        ValueError: If shapes differ.

    Example:
        >>> true = np.array([[[0.0], [2.0]]])
        >>> trajectory_nrmse(np.array([[[1.0], [1.0]]]), true)
        1.0
    """
    error = np.sqrt(_square_error(predicted, true).mean((0, 1)))
    return float(_ratio(error, true.std((0, 1))).mean())


@dataclass(frozen=True)
class ValidTimes:
    """How long N predictions of a chaotic system were valid."""

    lyapunov_times: np.ndarray
    """(N,), times of validity times the largest Lyapunov exponent."""
    lower_bound: np.ndarray
    """(N,), whether a prediction was valid to the end: it would have counted more, had it been watched longer."""

    @property
    def median(self) -> float:
        """Of the predictions."""
        return float(np.median(self.lyapunov_times))

    @property
    def median_is_lower_bound(self) -> bool:
        """Whether the median hangs on predictions that were valid to the end."""
        return not np.isfinite(np.median(np.where(self.lower_bound, np.inf, self.lyapunov_times)))


def valid_times(
    predicted: np.ndarray, true: np.ndarray, times: np.ndarray, exponent: float, *, threshold: float = VALID_ERROR
) -> ValidTimes:
    """When a prediction first leaves the truth: the first time at which |z - z^| / sqrt(mean |z|²) exceeds a threshold.

    The mean is over the true trajectory. Where states are far from the origin against their spread, as Lorenz's z is,
    this is a lenient measure; it is the usual one.

    Args:
        predicted: States, shape (N, T, d), the same at the first time.
        true: Shape (N, T, d).
        times: Shape (T,), increasing.
        exponent: Largest Lyapunov exponent, positive, per unit of the times.
        threshold: Error that is too much.

    Raises:
        ValueError: If shapes differ, or the exponent is not positive.

    Example:
        >>> true, times = np.ones((1, 4, 1)), np.arange(4.0)
        >>> valid_times(np.array([[[1.0], [1.1], [1.5], [1.0]]]), true, times, exponent=0.5).lyapunov_times
        array([1.])
    """
    if not exponent > 0:
        raise ValueError(f"exponent: expected a positive Lyapunov exponent, got {exponent}")
    if np.shape(times) != np.shape(true)[1:2]:
        raise ValueError(f"times: expected one for each of the {np.shape(true)[1]} states, got {np.shape(times)}")
    size = np.sqrt(np.square(true).sum(-1).mean(1, keepdims=True))
    exceeds = _ratio(np.sqrt(_square_error(predicted, true).sum(-1)), size) > threshold
    leaves = np.asarray(exceeds.any(1))
    last = np.where(leaves, exceeds.argmax(1), len(times) - 1)
    return ValidTimes((times[last] - times[0]) * exponent, ~leaves)


def invariant_drift(invariant: Callable[[np.ndarray], np.ndarray], states: np.ndarray) -> float:
    """How far what should not change does, in units of how much it differs between starts.

    The root mean square, over times and trajectories, of I(z(t)) - I(z(0)), divided by the standard deviation of
    I(z(0)). Infinite where the invariant cannot be computed (a population below zero); NaN of a single start, or of
    starts that all have the same invariant.

    Args:
        invariant: Function of states (..., d); one of ``system.invariants``.
        states: Predicted trajectories, shape (N, T, d).
    """
    with np.errstate(all="ignore"):
        values = invariant(states)
    spread = values[:, 0].std()
    if not spread > 1e-12 * np.abs(values[:, 0]).max():
        return float("nan")
    return float(_ratio(np.sqrt(_square_error(values, np.broadcast_to(values[:, :1], values.shape)).mean()), spread))


def oscillation_period(values: np.ndarray, times: np.ndarray) -> float:
    """Period of one variable: the median time between upward crossings of its mean, on a cubic spline.

    The median forgets a transient, if it is short against the series. NaN where there are fewer than two crossings.
    For series without noise: noise crosses the mean many times.

    Args:
        values: Shape (T,).
        times: Shape (T,), increasing.

    Example:
        >>> t = np.linspace(0, 9, 90)
        >>> round(oscillation_period(np.sin(np.pi * t), t), 4)
        2.0
    """
    if not np.isfinite(values).all() or np.ptp(values) <= 1e-9 * np.abs(values).max():  # rounding does not oscillate
        return float("nan")
    above = values - values.mean()
    spline = CubicSpline(times, above)
    upward = np.flatnonzero((above[:-1] < 0) & (above[1:] >= 0))
    crossings = np.array([brentq(spline, times[i], times[i + 1]) for i in upward])
    return float(np.median(np.diff(crossings))) if len(crossings) > 1 else float("nan")


def period_error(predicted: np.ndarray, true: np.ndarray, times: np.ndarray) -> float:
    """Mean of |P^ - P| / P over all variables of all trajectories that oscillate in truth.

    To oscillate in truth takes two crossings that are not in the first or the last twentieth of the times, where a
    prediction a little early or late would lose one. Infinite if one of these does not oscillate in the prediction; NaN
    if none oscillates in truth.

    Args:
        predicted: States, shape (N, T, d).
        true: Shape (N, T, d).
        times: Shape (T,), increasing.

    Raises:
        ValueError: If shapes differ.
    """
    _check_shapes(predicted, true)
    margin = len(times) // 20
    inner = slice(margin, len(times) - margin)
    found, expected = _periods(predicted, times), _periods(true, times)
    within = _periods(true[:, inner], times[inner])
    oscillates = np.isfinite(expected) & np.isfinite(within)
    if not oscillates.any():
        return float("nan")
    errors = np.abs(found - expected)[oscillates] / expected[oscillates]
    return float(np.nan_to_num(errors, nan=np.inf).mean())


def _periods(states: np.ndarray, times: np.ndarray) -> np.ndarray:
    series = np.moveaxis(states, 1, 2).reshape(-1, len(times))
    return np.array([oscillation_period(values, times) for values in series])


def _square_error(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    _check_shapes(predicted, true)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.nan_to_num(np.square(predicted - true), nan=np.inf, posinf=np.inf)


def _check_shapes(predicted: np.ndarray, true: np.ndarray) -> None:
    if predicted.shape != true.shape:
        raise ValueError(f"predicted: expected the shape of the truth, {true.shape}, got {predicted.shape}")


def _ratio(error: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Error / size, with 0/0 = 0 and error/0 = inf."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(error == 0, 0.0, np.divide(error, size))
