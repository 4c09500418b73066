"""Which trajectories, and which parts of one, train and test."""

import dataclasses

import numpy as np
import pytest
from bcos_core.run.error import InputError
from bcos_core.run.split import SplitConfig
from bcos_ode.dynamics import DynamicsConfig, fresh_starts, load_dynamics
from bcos_ode.systems import SYSTEMS, hare_lynx, make_trajectories, simulate

SMALL = DynamicsConfig(num_trajectories=6, span=1.0, horizon=2.5)
LV = SYSTEMS["lotka-volterra"]


def folds(number, fold, **options):
    return SplitConfig(val=0, folds=number, fold=fold, **options)


def test_a_system():
    data = load_dynamics(SMALL)
    whole = make_trajectories(LV, 6, span=1.0)
    assert data.train.states.shape == (4, 11, 2)
    assert data.starts.shape == (2, 2)
    np.testing.assert_allclose(data.times, np.arange(26) * 0.1)
    assert (data.num_within, data.is_forecast, data.smoothing) == (11, False, "interpolate")
    np.testing.assert_array_equal(data.times_within, whole.times)
    np.testing.assert_allclose(data.truth, simulate(LV, data.starts, data.times), rtol=1e-12)
    both = np.concatenate([data.train.states[:, 0], data.starts])
    assert sorted(both.tolist()) == sorted(whole.states[:, 0].tolist())
    assert (data.pace == 1).all()


def test_noise_is_of_what_trains_alone():
    clean, noisy = load_dynamics(SMALL), load_dynamics(dataclasses.replace(SMALL, noise=0.1))
    np.testing.assert_array_equal(noisy.truth, clean.truth)
    assert noisy.smoothing == "smooth"
    assert load_dynamics(dataclasses.replace(SMALL, noise=0.1, smoothing="interpolate")).smoothing == "interpolate"
    error = (noisy.train.states - clean.train.states).std((0, 1)) / make_trajectories(LV, 6, span=1.0).clean.std((0, 1))
    np.testing.assert_allclose(error, 0.1, rtol=0.3)
    assert noisy.fingerprint != clean.fingerprint == load_dynamics(SMALL).fingerprint


def test_folds_are_of_trajectories():
    """Each is the test of exactly one fold; inner folds never see it."""
    parts = [load_dynamics(dataclasses.replace(SMALL, split=folds(3, k))) for k in range(3)]
    every = np.concatenate([part.starts for part in parts]).tolist()
    assert sorted(every) == sorted(make_trajectories(LV, 6).states[:, 0].tolist())
    for part in parts:
        assert not set(map(tuple, part.starts)) & set(map(tuple, part.train.states[:, 0]))
    inner = [
        load_dynamics(dataclasses.replace(SMALL, split=folds(3, 1, inner_folds=2, inner_fold=k))) for k in range(2)
    ]
    seen = sorted(np.concatenate([part.starts for part in inner]).tolist())
    assert seen == sorted(parts[1].train.states[:, 0].tolist())


def test_by_default_solutions_go_on_for_as_long_again_unless_stiff():
    assert load_dynamics(dataclasses.replace(SMALL, horizon=None)).times[-1] == pytest.approx(2.0)
    stiff = load_dynamics(DynamicsConfig(data="robertson", num_trajectories=2, span=1e-2))
    assert stiff.times[-1] == pytest.approx(1e-2)
    assert stiff.num_within == len(stiff.times)
    np.testing.assert_array_equal(stiff.pace, stiff.times)  # with logarithmic times every decade counts alike


def test_one_trajectory_is_forecast():
    series = hare_lynx()
    data = load_dynamics(DynamicsConfig(data="hare-lynx"))
    assert data.is_forecast
    np.testing.assert_array_equal(data.train.states, series.states[:, :17])
    np.testing.assert_array_equal(data.starts, series.states[:, 16])
    np.testing.assert_array_equal(data.truth, series.states[:, 16:])
    np.testing.assert_array_equal(data.times, np.arange(5.0))
    np.testing.assert_array_equal(data.times_within, data.times)
    # of a simulated one the truth is without noise
    one = load_dynamics(DynamicsConfig(num_trajectories=1, noise=0.1, span=3.0))
    np.testing.assert_allclose(one.truth, simulate(LV, one.starts, one.times), rtol=1e-8)


def test_folds_of_one_trajectory_are_origins_that_roll_on():
    ends = []
    for k in range(5):
        data = load_dynamics(DynamicsConfig(data="hare-lynx", split=folds(5, k)))
        first = data.train.states.shape[1]
        np.testing.assert_array_equal(data.truth[0], hare_lynx().states[0, first - 1 : first + 3])
        ends.append(first)
    assert ends == [6, 9, 12, 15, 18]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "lotka-voltera"}, 'unknown data "lotka-voltera"; did you mean "lotka-volterra"'),
        ({"data": "csv:"}, 'unknown data "csv:"'),
        ({"data": "csv:none.csv"}, "none.csv: no readable table"),
        ({"horizon": 0.05}, "--horizon: expected at least one step of lotka-volterra, 0.1, got 0.05"),
        ({"span": 0.05}, "span: expected at least one step of lotka-volterra"),
        ({"split": SplitConfig(val=0, test=0)}, "--split.test is 0: no trajectory is left to score"),
        ({"split": folds(7, 0)}, "7 folds: .* has only 6 samples"),
        ({"num_trajectories": 1}, "--horizon: of one trajectory the last part is the test"),
    ],
)
def test_what_cannot_be_loaded(options, message):
    with pytest.raises(InputError, match=message):
        load_dynamics(dataclasses.replace(SMALL, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": folds(6, 0)}, "--split.folds 6: 21 observations of hare-lynx are too few for it; the first would"),
        ({"split": folds(40, 0)}, "--split.folds 40: 21 observations of hare-lynx are too few for it$"),
        ({"split": folds(0, 0, inner_folds=3)}, "--split.inner_folds: hare-lynx is one trajectory"),
        ({"split": SplitConfig(val=0, test=0.8)}, "--split.test 0.8: leaves 4 of 21 observations .* and 17 to score"),
        ({"split": SplitConfig(val=0, test=0)}, "--split.test 0: leaves 20 of 21"),
        ({"noise": 0.1}, "--noise: belongs to simulated systems; hare-lynx is observed as it is"),
        ({"span": 3.0}, "--span: belongs to simulated systems"),
        ({"horizon": 3.0}, "--horizon: belongs to simulated systems"),
        ({"num_trajectories": 3}, "--num_trajectories: belongs to simulated systems"),
        ({"data_seed": 1}, "--data_seed: belongs to simulated systems"),
    ],
)
def test_what_the_pelts_cannot_give(options, message):
    with pytest.raises(InputError, match=message):
        load_dynamics(DynamicsConfig(data="hare-lynx", **options))


def table(path, first):
    lines = ["t,x,trajectory"]
    for name in range(5):
        lines += [f"{first + k},{name + k**2},{name}" for k in range(8)]
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("first", [0, -20])
def test_a_file_of_trajectories(tmp_path, first):
    """All times are within the training data's span, also before zero."""
    table(tmp_path / "a.csv", first)
    data = load_dynamics(DynamicsConfig(data=f"csv:{tmp_path / 'a.csv'}"))
    assert data.train.states.shape == (4, 8, 1)
    np.testing.assert_array_equal(data.times, np.arange(8))
    np.testing.assert_allclose(data.truth[0, :, 0] - data.starts[0, 0], np.arange(8) ** 2)
    assert (data.num_within, data.is_forecast, data.smoothing, data.system) == (8, False, "smooth", None)
    with pytest.raises(InputError, match="--starts: only a simulated system"):
        fresh_starts(data, 3, 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_fresh_starts_are_none_that_trained(seed):
    config = dataclasses.replace(SMALL, data_seed=seed)
    data = load_dynamics(config)
    fresh = fresh_starts(data, 6, seed)
    assert fresh.starts.shape == (6, 2)
    assert (fresh.starts >= LV.low).all()
    assert (fresh.starts <= LV.high).all()
    own = make_trajectories(LV, 6, seed=seed).states[:, 0]
    assert not set(map(tuple, fresh.starts)) & set(map(tuple, own))
    np.testing.assert_allclose(fresh.truth, simulate(LV, fresh.starts, data.times), rtol=1e-12)
    assert (fresh.starts != fresh_starts(data, 6, seed + 1).starts).all()
    assert fresh.train is data.train
