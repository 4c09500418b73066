"""Derivatives by splines, against closed forms."""

import numpy as np
import pytest
from bcos_core.run.error import InputError
from bcos_ode.fit.derivatives import estimate_derivatives
from bcos_ode.systems import SYSTEMS, Trajectories, make_trajectories


def _waves(times, noise=0.0):
    """sin(ω t + φ) and t² for three phases, with their derivatives."""
    phase = np.array([0.0, 0.7, 2.0])[:, None]
    states = np.stack([np.sin(2 * times + phase), times**2 + phase], -1)
    slopes = np.stack([2 * np.cos(2 * times + phase), 2 * times + 0 * phase], -1)
    error = noise * np.random.default_rng(0).standard_normal(states.shape)
    return Trajectories("waves", ("a", "b"), times, states + error), states, slopes


def test_without_noise():
    data, states, slopes = _waves(np.linspace(0, 4, 81))
    samples = estimate_derivatives(data, "interpolate")
    np.testing.assert_allclose(samples.states, states.reshape(-1, 2), atol=1e-13)
    np.testing.assert_allclose(samples.smoothed, states, atol=1e-13)
    np.testing.assert_allclose(samples.derivatives, slopes.reshape(-1, 2), atol=2e-5)
    inner = samples.derivatives.reshape(slopes.shape)[:, 8:-8]
    np.testing.assert_allclose(inner, slopes[:, 8:-8], atol=2e-7)
    np.testing.assert_array_equal(samples.weights, np.ones((243, 1)))


def test_a_quintic_is_exact():
    """Uneven times, and in units of the time."""
    times = np.array([0.0, 0.1, 0.5, 0.6, 1.0, 1.5, 1.6, 2.0])
    states = (times**5 - times**2)[None, :, None]
    samples = estimate_derivatives(Trajectories("q", ("x",), times, states), "interpolate")
    np.testing.assert_allclose(samples.derivatives[:, 0], 5 * times**4 - 2 * times, atol=1e-10)


def test_noise():
    """Smoothing beats interpolation by far, and comes nearer to the truth than the observations are."""
    data, states, slopes = _waves(np.linspace(0, 4, 81), noise=0.02)
    smooth, rough = estimate_derivatives(data, "smooth"), estimate_derivatives(data, "interpolate")
    kept = slopes[:, 2:-2].reshape(-1, 2)
    assert smooth.derivatives.shape == kept.shape
    assert smooth.weights.shape == (len(kept), 1)
    error = np.sqrt(np.square(smooth.derivatives - kept).mean())
    assert error < 0.12
    assert error < 0.15 * np.sqrt(np.square(rough.derivatives - slopes.reshape(-1, 2)).mean())
    np.testing.assert_array_equal(smooth.states, smooth.smoothed[:, 2:-2].reshape(-1, 2))
    assert np.sqrt(np.square(smooth.smoothed - states).mean()) < 0.6 * 0.02


@pytest.mark.parametrize("unit", [1e-3, 0.1, 1e4])
def test_the_unit_of_time_does_not_matter(unit):
    """Noisy series observed in small steps were smoothed flat: Lorenz's derivatives were 71 % off."""
    data, *_ = _waves(np.linspace(0, 4, 81), noise=0.02)
    other = Trajectories("waves", ("a", "b"), data.times * unit, data.states)
    for smoothing in ("interpolate", "smooth"):
        plain, scaled = estimate_derivatives(data, smoothing), estimate_derivatives(other, smoothing)
        np.testing.assert_allclose(scaled.derivatives * unit, plain.derivatives, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(scaled.states, plain.states, rtol=1e-6, atol=1e-6)


def test_few_points_are_kept_whole():
    """With fewer than ten points, the outermost are too many to give away."""
    data, *_ = _waves(np.linspace(0, 1, 9), noise=0.01)
    assert estimate_derivatives(data, "smooth").states.shape == (27, 2)


def test_logarithmic_times():
    """x = t/(1+t) over ten decades: the clock is log t, and errors count per step of it."""
    times = np.concatenate([[0.0], np.geomspace(1e-5, 1e5, 101)])
    states = (times / (1 + times))[None, :, None]
    samples = estimate_derivatives(Trajectories("s", ("x",), times, states), "interpolate")
    t = times[1:]
    assert samples.states.shape == (101, 1)
    np.testing.assert_array_equal(samples.smoothed[0, 0], states[0, 0])  # what the clock cannot show stays
    np.testing.assert_allclose(samples.weights[:, 0], t)
    expected = 1 / (1 + t) ** 2
    np.testing.assert_allclose((samples.derivatives * samples.weights)[:, 0], expected * t, atol=2e-5)


def test_robertson():
    """Weighted by the clock, derivatives agree with the equations over all decades."""
    data = make_trajectories(SYSTEMS["robertson"], 1)
    samples = estimate_derivatives(data, "interpolate")
    error = (samples.derivatives - SYSTEMS["robertson"](samples.states)) * samples.weights
    size = (SYSTEMS["robertson"](samples.states) * samples.weights).std(0)
    assert (np.sqrt(np.square(error).mean(0)) < 0.05 * size)[[0, 2]].all()


def test_a_gap_is_no_logarithm():
    """One pair of near observations does not make times grow."""
    for first in (-2, 0, 1):
        times = np.sort(np.append(np.linspace(first, 4, 60), 3.00001 if first else 4.00001))
        times[np.abs(times - 3).argmin()] = 3.0
        states = np.sin(times)[None, :, None]
        samples = estimate_derivatives(Trajectories("g", ("x",), np.sort(times), states), "interpolate")
        np.testing.assert_array_equal(samples.weights, np.ones((len(times), 1)))


@pytest.mark.parametrize("smoothing", ["interpolate", "smooth"])
def test_too_few_points(smoothing):
    data, *_ = _waves(np.linspace(0, 1, 5))
    with pytest.raises(InputError, match="waves: 5 observations are too few for derivatives, 6 are needed"):
        estimate_derivatives(data, smoothing)
    logarithmic = Trajectories("l", ("x",), np.array([0, 1, 1e2, 1e4, 1e6, 1e8]), np.ones((1, 6, 1)))
    with pytest.raises(InputError, match="l: 5 observations are too few"):
        estimate_derivatives(logarithmic, smoothing)


def test_what_stays_as_it_is_has_no_derivative():
    """A parameter of each trajectory: a smoothing spline through it has a slope of rounding."""
    times = np.linspace(0, 1, 20)
    states = np.stack([np.stack([np.sin(9 * times), np.full(20, value)], 1) for value in (0.1, 2.3)])
    found = estimate_derivatives(Trajectories("p", ("x", "k"), times, states), "smooth").derivatives
    assert (found[:, 1] == 0).all()
    assert (found[:, 0] != 0).all()
