"""Derivatives of observed trajectories, by splines: what gradient matching fits."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from bcos_core.run.error import InputError

from bcos_ode.systems import Trajectories

Smoothing = Literal["interpolate", "smooth"]
_FEWEST = 6  # points that a quintic spline needs
_UNEVEN = 1e3  # ratio of the longest step to the shortest


@dataclass(frozen=True)
class MatchingSamples:
    """States and derivatives of all trajectories, one below the other."""

    states: np.ndarray
    """(n, d), on the splines."""
    derivatives: np.ndarray
    """(n, d), in units of the time."""
    weights: np.ndarray
    """(n, 1), dt per step of the clock: errors count per step. With logarithmic times every decade counts alike."""
    smoothed: np.ndarray
    """(N, T, d), the observed trajectories on the splines."""


def estimate_derivatives(data: Trajectories, smoothing: Smoothing) -> MatchingSamples:
    """Put a spline through, or near, each variable of each trajectory, and differentiate it.

    Args:
        data: Trajectories of at least six observations.
        smoothing: interpolate: a quintic spline through all points, for data without noise; smooth: a cubic spline
            whose smoothness generalised cross-validation chooses (Craven & Wahba 1979), without its two outermost
            points, where it is worst.

    Raises:
        InputError: If there are too few points.
    """
    from scipy.interpolate import make_interp_spline, make_smoothing_spline

    clock, first = _clock(data.times)
    if len(clock) < _FEWEST:
        raise InputError(
            f"{data.name}: {len(clock)} observations are too few for derivatives, {_FEWEST} are needed in each part"
        )
    unit = np.diff(clock).mean()
    clock = clock / unit  # SciPy looks for the smoothness between 0 and T: steps far from one have theirs elsewhere
    states = data.states[:, first:]
    values, slopes = np.empty_like(states), np.empty_like(states)
    for i in range(len(states)):
        if smoothing == "interpolate":
            spline = make_interp_spline(clock, states[i], k=5)
            values[i], slopes[i] = spline(clock), spline.derivative()(clock)
            continue
        for k in range(data.dim):
            spline = make_smoothing_spline(clock, states[i, :, k])
            values[i, :, k], slopes[i, :, k] = spline(clock), spline.derivative()(clock)
    slopes[np.broadcast_to((states == states[:, :1]).all(1, keepdims=True), slopes.shape)] = 0  # and not its rounding
    pace = data.times[first:, None] if first else np.ones((len(clock), 1))  # dt / d log t = t
    inner = slice(2, -2) if smoothing == "smooth" and len(clock) >= _FEWEST + 4 else slice(None)
    kept = values[:, inner]
    smoothed = data.states.copy()
    smoothed[:, first:] = values
    return MatchingSamples(
        kept.reshape(-1, data.dim),
        (slopes / (pace * unit))[:, inner].reshape(-1, data.dim),
        np.broadcast_to(pace, (*states.shape[:2], 1))[:, inner].reshape(-1, 1).copy(),
        smoothed,
    )


def _clock(times: np.ndarray) -> tuple[np.ndarray, int]:
    """Times as a spline should see them, and the first that counts: logarithms, where they even out what times do not.

    Steps may grow a thousandfold; one pair of near observations among even ones does not make a logarithm.
    """
    first = int(times[0] <= 0)
    if times[first] <= 0 or _unevenness(times) < _UNEVEN or _unevenness(np.log(times[first:])) >= _UNEVEN:
        return times, 0
    return np.log(times[first:]), first


def _unevenness(clock: np.ndarray) -> float:
    steps = np.diff(clock)
    return steps.max() / steps.min()
