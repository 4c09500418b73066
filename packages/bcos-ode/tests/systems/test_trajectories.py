"""What is observed: solutions against closed forms and published ones, noise, tables."""

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from bcos_core.run.error import InputError
from bcos_ode.systems import (
    SYSTEMS,
    check_times,
    draw_starts,
    even_step,
    make_system,
    make_trajectories,
    read_trajectories,
    simulate,
)

OSCILLATOR = make_system("o", "o", {"x": "v", "v": "-4 x, -0.2 v"}, {}, (-1, -1), (1, 1), 2.0, 0.1)


def test_linear_system():
    start = np.array([[1.0, 0.0], [0.3, -0.7]])
    times = np.array([0.0, 0.3, 0.35, 5.0])
    found = simulate(OSCILLATOR, start, times)
    matrix = np.array([[0.0, 1.0], [-4.0, -0.2]])
    expected = np.stack([start @ scipy.linalg.expm(matrix * t).T for t in times], 1)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_logistic_growth_and_a_later_first_time():
    system = make_system("g", "g", {"x": "x, -x^2"}, {}, (0.1,), (0.5,), 1.0, 0.1)
    times = np.array([2.0, 3.0, 7.0])
    expected = 1 / (1 + 9 * np.exp(-(times - 2)))
    np.testing.assert_allclose(simulate(system, np.array([[0.1]]), times)[0, :, 0], expected, rtol=1e-9)


def test_another_solver_agrees():
    system, start = SYSTEMS["brusselator"], np.array([1.0, 2.0])
    times = np.linspace(0, 5, 6)
    other = scipy.integrate.solve_ivp(
        lambda _t, z: (1 + z[0] ** 2 * z[1] - 4 * z[0], 3 * z[0] - z[0] ** 2 * z[1]),
        (0, 5),
        start,
        "LSODA",
        times,
        rtol=1e-11,
        atol=1e-12,
    )
    np.testing.assert_allclose(simulate(system, start[None], times)[0], other.y.T, rtol=1e-7)


def test_robertson_against_the_published_solution():
    """As printed with SUNDIALS's cvRoberts (Hindmarsh et al. 2005), which solves to 1e-4."""
    times = np.array([0.0, 0.4, 4, 40, 400, 4e3])
    found = simulate(SYSTEMS["robertson"], np.array([[1.0, 0.0, 0.0]]), times)[0]
    published = [
        [9.8517e-01, 3.3864e-05, 1.4794e-02],
        [9.0553e-01, 2.2406e-05, 9.4452e-02],
        [7.1582e-01, 9.1851e-06, 2.8416e-01],
        [4.5053e-01, 3.2230e-06, 5.4947e-01],
        [1.8321e-01, 8.9423e-07, 8.1679e-01],
    ]
    np.testing.assert_allclose(found[1:], published, rtol=2e-4)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-10)


def test_invariants_are_kept():
    data = make_trajectories(SYSTEMS["lotka-volterra"], 3, seed=5)
    (energy,) = SYSTEMS["lotka-volterra"].invariants.values()
    values = energy(data.states)
    np.testing.assert_allclose(values, values[:, :1] + np.zeros(101), rtol=1e-8)
    x, y = data.states[1, 40]
    assert values[1, 40] == pytest.approx(0.8 * x - 1.8 * np.log(x) + 0.9 * y - 1.3 * np.log(y), rel=1e-12)
    assert np.std(values[:, 0]) > 0.1  # of different orbits


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the overflow
@pytest.mark.parametrize("start", [2.0, 1e200])
def test_a_solution_that_ends_early(start):
    """x' = x² ends at t = 1/x(0); the second before the first observation."""
    system = make_system("e", "explosion", {"x": "x^2"}, {}, (1,), (2,), 1.0, 0.1)
    with pytest.raises(InputError, match=r"e from \[.*\]: .* \(after t = 0(\.4)?\)"):
        simulate(system, np.array([[start]]), np.array([0.0, 0.4, 1.0]))


def test_starts():
    system = SYSTEMS["lorenz"]
    starts = draw_starts(system, 500, 1)
    np.testing.assert_array_equal(starts, draw_starts(system, 500, 1))
    np.testing.assert_array_equal(starts[:9], draw_starts(system, 9, 1))
    assert (starts != draw_starts(system, 500, 2)).all()
    assert (starts >= system.low).all()
    assert (starts <= system.high).all()
    expected = (np.array(system.high) - system.low) / np.sqrt(12)
    np.testing.assert_allclose(starts.std(0), expected, rtol=0.1)
    wide = draw_starts(system, 500, 1, widen=2.0)
    assert wide[:, 0].min() < -18
    assert wide[:, 0].max() > 18
    assert (draw_starts(SYSTEMS["lotka-volterra"], 500, 1, widen=3.0) > 0).all()


def test_noise():
    data = make_trajectories(OSCILLATOR, 40, seed=3, noise=0.05)
    error = data.states - data.clean
    np.testing.assert_allclose(error.std((0, 1)) / data.clean.std((0, 1)), 0.05, rtol=0.07)
    assert np.corrcoef(error[..., 0].ravel(), error[..., 1].ravel())[0, 1] == pytest.approx(0, abs=0.1)
    some = make_trajectories(OSCILLATOR, 3, seed=3, noise=0.05)
    np.testing.assert_array_equal(some.clean, data.clean[:3])
    np.testing.assert_array_equal(some.states, make_trajectories(OSCILLATOR, 3, seed=3, noise=0.05).states)
    none = make_trajectories(OSCILLATOR, 3, seed=3)
    np.testing.assert_array_equal(none.states, some.clean)
    assert (some.states != make_trajectories(OSCILLATOR, 3, seed=4, noise=0.05).states).all()


def test_burn_in():
    """The first observation is where the starts have come to."""
    system = SYSTEMS["lorenz"]
    data = make_trajectories(system, 1, seed=2, span=0.1)
    np.testing.assert_allclose(data.times, [0, 0.02, 0.04, 0.06, 0.08, 0.1])
    before = simulate(system, draw_starts(system, 1, 2), np.array([0.0, 30.0]))
    np.testing.assert_array_equal(data.states[:, 0], before[:, -1])


@pytest.mark.parametrize("bad", [{"count": 0}, {"count": 1, "noise": -0.1}, {"count": 1, "span": 0.0}])
def test_what_cannot_be_made(bad):
    with pytest.raises(InputError, match="expected at least"):
        make_trajectories(SYSTEMS["brusselator"], **bad)


def test_parts():
    data = make_trajectories(OSCILLATOR, 4, noise=0.1)
    some, early = data.subset(np.array([2, 0])), data.between(3, 8)
    np.testing.assert_array_equal(some.states, data.states[[2, 0]])
    np.testing.assert_array_equal(some.clean, data.clean[[2, 0]])
    np.testing.assert_array_equal(early.times, data.times[3:8])
    np.testing.assert_array_equal(early.clean, data.clean[:, 3:8])
    assert (len(data), len(some), early.states.shape, data.dim) == (4, 2, (4, 5, 2), 2)


TABLE = "t,x,y,trajectory\n0,1,2,a\n0,5,6,b\n0.5,3,4,a\n0.5,7,8,b\n"


@pytest.mark.parametrize("text", [TABLE, "\ufeff" + TABLE, TABLE.replace(",", ", "), TABLE.replace("\n", "\n\n")])
def test_reading(tmp_path, text):
    """Also with a byte order mark, spaces, empty lines: what spreadsheets and people write."""
    (tmp_path / "fish.csv").write_text(text, encoding="utf-8")
    data = read_trajectories(tmp_path / "fish.csv")
    assert (data.name, data.variables, data.system) == ("fish", ("x", "y"), None)
    np.testing.assert_array_equal(data.times, [0, 0.5])
    np.testing.assert_array_equal(data.states, [[[1, 2], [3, 4]], [[5, 6], [7, 8]]])


def test_times_may_be_rounded(tmp_path):
    """Those of one trajectory as floats, those of another as a spreadsheet shows them."""
    (tmp_path / "a.csv").write_text("t,x,trajectory\n0,1,a\n0.30000000000000004,2,a\n0,1,b\n0.3,4,b\n")
    data = read_trajectories(tmp_path / "a.csv")
    np.testing.assert_array_equal(data.times, [0, 0.1 + 0.2])
    np.testing.assert_array_equal(data.states[..., 0], [[1, 2], [1, 4]])


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("start", [0.0, 1900.0, -7.0])
def test_even_times(unit, start):
    times = (start + np.arange(30) / 3) * unit
    assert even_step(times) == pytest.approx(unit / 3)
    assert even_step(np.round(times / unit, 3) * unit) == pytest.approx(unit / 3, rel=1e-3)
    late = times.copy()
    late[9] += 0.05 * unit / 3
    assert even_step(late) is None
    assert even_step(np.geomspace(1, 2, 30) * unit) is None


def test_reading_one_trajectory(tmp_path):
    (tmp_path / "a.csv").write_text("x ,t\n1,0\n2,1\n")
    assert read_trajectories(tmp_path / "a.csv").variables == ("x",)
    np.testing.assert_array_equal(read_trajectories(tmp_path / "a.csv").states, [[[1], [2]]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header"),
        ("t,x\n", "and rows"),
        ("x,y\n1,2\n", 'expected a header with "t"'),
        ("t,trajectory\n1,2\n", "the variables"),
        ("", "got nothing and 0 rows"),
        ("time; x\n1;2\n", "got the columns 'time; x' and 1 rows"),
        ("t,x\n0,1\n\n1,a\n", "line 4, column \"x\": expected numbers, got 'a'"),
        ("t,id,x\n0,m,1\n", "line 2, column \"id\": expected numbers, got 'm'"),
        ("t,k,x\n0,3,1\n1,3,2\n", 'column "k" is 3 in all 2 rows; leave it out'),
        ("t,x\n0,1\n1\n", r"line 3: expected numbers for 2 columns, got \['1'\]"),
        ("t,x\n0,1,5\n1,2\n", r"line 2: expected numbers for 2 columns, got \['0', '1', '5'\]"),
        ("t,x\n0,1\n1,nan\n", 'line 3, column "x": expected finite numbers'),
        ("t,x\n0,1\n", "at least two times"),
        ("t,x\n0,1\n0,2\n", r"times have to increase, but 0 follows 0 \(at 1\)"),
        (
            "t,x,trajectory\n0,1,a\n1,1,a\n0,1,b\n2,1,b\n",
            r'trajectory "b" has other times than "a", 2 and not 1; expected .* interpolate .* \(numpy.interp\)',
        ),
        ("t,x,trajectory\n0,1,a\n1,1,a\n0,1,b\n", 'trajectory "b" has other times than "a", 1 and not 2; expected'),
        ("t,x,trajectory\n0,1,a\n1,1,a\n0.02,1,b\n1.02,1,b\n", 'other times than "a", 0.02 and not 0;'),
        ("t,x\n0,1\n1,2\n0,1\n", r'0 follows 1 \(at 2\); of several trajectories a column "trajectory" says which'),
        ("t,x,trajectory\n0,1,a\n0,2,a\n", r"0 follows 0 \(at 1\)$"),
        ("t,x,1\n0,1,2\n1,2,3\n", 'column "1": that is what the constant channel is called; rename it'),
        ("t,x,x\n0,1,2\n1,2,3\n", "every column needs a name of its own, got 't', 'x', 'x'"),
        (",t,x\n0,0,1\n1,1,2\n", "every column needs a name of its own, got '', 't', 'x'"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_trajectories(tmp_path / "a.csv")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no readable table"):
        read_trajectories(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_bytes(b"t,x\n\xff\xfe,1\n")
    with pytest.raises(InputError, match="no readable table"):
        read_trajectories(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.zeros((2, 2)), r"here: expected at least two times, got shape \(2, 2\)"),
        (np.array([1.0]), "at least two"),
        (np.array([0, np.nan, 2]), "time 1 is nan"),
        (np.array([0, 1, np.inf]), "time 2 is inf"),
        (np.array([0.0, 2.0, 1.5]), r"1.5 follows 2 \(at 2\)"),
    ],
)
def test_times_that_cannot_be(times, message):
    with pytest.raises(InputError, match=message):
        check_times(times, "here")
