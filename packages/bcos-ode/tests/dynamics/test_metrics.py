"""Scores against formulas written out, closed forms, and predictions that are not finite."""

import numpy as np
import pytest
from bcos_ode.dynamics.metrics import (
    field_error,
    field_error_by_variable,
    invariant_drift,
    oscillation_period,
    period_error,
    trajectory_nrmse,
    valid_times,
)
from bcos_ode.systems import SYSTEMS, simulate

RANDOM = np.random.default_rng(0)
TRUE = RANDOM.standard_normal((4, 30, 3)) * [1, 10, 0.1] + [0, 50, 0]
PREDICTED = TRUE + 0.1 * RANDOM.standard_normal(TRUE.shape)
TIMES = np.linspace(1, 4, 30)


def test_field_error():
    true, predicted = TRUE[0], PREDICTED[0]
    assert field_error(predicted, true) == pytest.approx(np.linalg.norm(predicted - true) / np.linalg.norm(true))
    expected = [np.linalg.norm((predicted - true)[:, k]) / np.linalg.norm(true[:, k]) for k in range(3)]
    np.testing.assert_allclose(field_error_by_variable(predicted, true), expected)
    assert field_error(true, true) == 0
    assert field_error(0 * true, true) == 1


def test_a_variable_that_stands_still():
    still = np.array([[1.0, 0.0], [2.0, 0.0]])
    np.testing.assert_array_equal(field_error_by_variable(still, still), [0, 0])
    np.testing.assert_array_equal(field_error_by_variable(still + np.array([0, 0.1]), still), [0, np.inf])


def test_nrmse():
    expected = [
        np.sqrt(np.mean([(PREDICTED[i, t, k] - TRUE[i, t, k]) ** 2 for i in range(4) for t in range(30)]))
        / np.std(TRUE[..., k])
        for k in range(3)
    ]
    assert trajectory_nrmse(PREDICTED, TRUE) == pytest.approx(np.mean(expected))
    means = np.broadcast_to(TRUE.mean((0, 1)), TRUE.shape)
    assert trajectory_nrmse(means, TRUE) == pytest.approx(1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_a_trajectory_that_blew_up(bad):
    blown = TRUE.copy()
    blown[2, 11:] = bad
    assert trajectory_nrmse(blown, TRUE) == np.inf
    assert field_error(blown[2], TRUE[2]) == np.inf
    valid = valid_times(blown, TRUE, TIMES, 0.9)
    np.testing.assert_allclose(valid.lyapunov_times, [2.7, 2.7, (TIMES[11] - TIMES[0]) * 0.9, 2.7])
    np.testing.assert_array_equal(valid.lower_bound, [True, True, False, True])


def test_valid_times():
    """An error that grows exponentially passes the threshold when the formula says."""
    times = np.linspace(0, 10, 10001)
    true = np.stack([3 * np.cos(times), 3 * np.sin(times), np.full_like(times, 4.0)], -1)[None]  # |z| = 5
    predicted = true + np.stack([np.exp(0.9 * times) * 1e-3, 0 * times, 0 * times], -1)
    valid = valid_times(predicted, true, times, 0.9)
    assert valid.lyapunov_times[0] == pytest.approx(np.log(0.4 * 5 / 1e-3), abs=1e-3)
    half = valid_times(predicted, true, times, 0.9, threshold=0.2)
    assert half.lyapunov_times[0] == pytest.approx(np.log(0.2 * 5 / 1e-3), abs=1e-3)
    # of each trajectory its own size, and the first leaving counts though it comes back
    both = valid_times(np.concatenate([2 * predicted, true + 9 * (times > 3)[:, None] * (times < 4)[:, None]]),
                       np.concatenate([2 * true, true]), times, 0.9)  # fmt: skip
    np.testing.assert_allclose(both.lyapunov_times, [valid.lyapunov_times[0], 2.7], atol=1e-3)
    assert not both.lower_bound.any()


def test_medians_know_when_they_are_bounds():
    true = np.ones((4, 11, 1))
    predicted = true.copy()
    predicted[0, 2:] = 5
    predicted[1, 6:] = 5
    times = np.arange(11.0)
    whole = valid_times(predicted, true, times, 1.0)
    np.testing.assert_array_equal(whole.lyapunov_times, [2, 6, 10, 10])
    assert (whole.median, whole.median_is_lower_bound) == (8, True)  # a mean of 6 and of 10 or more
    three = valid_times(predicted[:3], true[:3], times, 1.0)
    assert (three.median, three.median_is_lower_bound) == (6, False)
    predicted[3, 0] = 5
    assert valid_times(predicted, true, times, 1.0).lyapunov_times[3] == 0


def test_invariants():
    system = SYSTEMS["lotka-volterra"]
    (energy,) = system.invariants.values()
    starts = np.array([[1.0, 1.0], [3.0, 2.0], [2.0, 0.6]])
    states = simulate(system, starts, np.linspace(0, 8, 81))
    assert invariant_drift(energy, states) < 1e-8
    drifting = states * np.linspace(1, 1.1, 81)[:, None]
    values = energy(drifting)
    expected = np.sqrt(np.mean((values - values[:, :1]) ** 2)) / np.std(energy(starts))
    assert invariant_drift(energy, drifting) == pytest.approx(expected)
    drifting[1, 50, 0] = -0.1  # whose logarithm is none
    assert invariant_drift(energy, drifting) == np.inf
    assert np.isnan(invariant_drift(energy, states[:1]))
    assert np.isnan(invariant_drift(energy, states[[0, 0]]))


def test_period_of_small_oscillations():
    """Lotka-Volterra near its fixed point: 2π / √(α δ)."""
    system = SYSTEMS["lotka-volterra"]
    fixed = np.array([1.8 / 0.8, 1.3 / 0.9])
    times = np.arange(0, 30, 0.1)
    states = simulate(system, fixed[None] * 1.001, times)
    for series in states[0].T:
        assert oscillation_period(series, times) == pytest.approx(2 * np.pi / np.sqrt(1.3 * 1.8), rel=1e-5)


def test_periods():
    times = np.linspace(0, 20, 401)
    wave = np.sin(3 * times + 0.4) + 0.2 * np.cos(6 * times)
    assert oscillation_period(5 + wave, times) == pytest.approx(2 * np.pi / 3, rel=1e-5)
    transient = wave + 3 * np.exp(-2 * times)
    assert oscillation_period(transient, times) == pytest.approx(2 * np.pi / 3, rel=1e-3)
    uneven = np.sort(np.random.default_rng(0).uniform(0, 20, 600))
    assert oscillation_period(np.sin(3 * uneven), uneven) == pytest.approx(2 * np.pi / 3, rel=1e-4)
    exact = np.arange(0, 41) / 4  # zeros fall onto observations
    assert oscillation_period(np.round(np.sin(2 * np.pi * exact)), exact) == pytest.approx(1)


@pytest.mark.parametrize(
    "values",
    [
        np.full(50, 0.1),
        0.1 + 1e-17 * np.arange(50),
        np.linspace(0, 1, 50),
        np.sin(np.linspace(0, 6, 50)),
        np.full(50, np.nan),
    ],
)
def test_what_does_not_oscillate(values):
    assert np.isnan(oscillation_period(values, np.arange(50.0)))


def test_period_error():
    times = np.linspace(0, 20, 801)
    true = np.stack([np.sin(2 * times), np.ones_like(times)], -1)[None]
    predicted = np.stack([np.sin(2.2 * times), np.ones_like(times)], -1)[None]
    assert period_error(predicted, true, times) == pytest.approx(1 - 2 / 2.2, rel=1e-4)
    assert period_error(true, true, times) == 0
    assert period_error(0 * true, true, times) == np.inf
    assert np.isnan(period_error(true, 0 * true, times))
    # the second crossing lies at the end: a prediction that is a little late has one alone, and is no failure
    waves = [np.sin(2 * times - shift)[:, None][None] for shift in (0.1, 0.2)]
    end = times < np.pi + 0.1
    assert oscillation_period(waves[0][0, end, 0], times[end]) == pytest.approx(np.pi, rel=1e-2)
    assert np.isnan(oscillation_period(waves[1][0, end, 0], times[end]))
    assert np.isnan(period_error(waves[1][:, end], waves[0][:, end], times[end]))


def test_what_is_refused():
    for score in (field_error, field_error_by_variable, trajectory_nrmse):
        with pytest.raises(
            ValueError, match=r"predicted: expected the shape of the truth, \(4, 30, 3\), got \(4, 1, 3\)"
        ):
            score(PREDICTED[:, :1], TRUE)
    with pytest.raises(ValueError, match="predicted: expected the shape"):
        period_error(PREDICTED[:, :1], TRUE, TIMES)
    with pytest.raises(ValueError, match="exponent: expected a positive Lyapunov exponent, got -1"):
        valid_times(PREDICTED, TRUE, TIMES, -1)
    with pytest.raises(ValueError, match=r"times: expected one for each of the 30 states, got \(29,\)"):
        valid_times(PREDICTED, TRUE, TIMES[1:], 1.0)
