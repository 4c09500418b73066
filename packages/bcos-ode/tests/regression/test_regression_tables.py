"""Tables: read, lagged, divided; and what is refused."""

import numpy as np
import pytest
from bcos_core.run.error import InputError
from bcos_core.run.split import SplitConfig
from bcos_ode.regression import RegressionConfig, Table, divide_table, lag_series, load_table, read_table
from bcos_ode.systems import Trajectories
from sklearn.datasets import load_diabetes
from sklearn.model_selection import TimeSeriesSplit
from sklearn.preprocessing import scale


def make_series(length=30, *, count=1, times=None):
    times = np.arange(length) * 0.1 if times is None else times
    states = np.random.default_rng(0).normal(size=(count, length, 2))
    return Trajectories("made", ("u", "v"), times, states)


def make_table(rows=20):
    values = np.random.default_rng(1).normal(size=(rows, 3))
    return Table("made", ("a", "b"), ("c",), values[:, :2], values[:, 2:])


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_diabetes_is_in_its_own_units():
    table = load_table(RegressionConfig())
    assert table.inputs[:, 0].min() == 19  # years
    # what scikit-learn gives by default: centred, columns of length one
    np.testing.assert_allclose(scale(table.inputs) / np.sqrt(len(table)), load_diabetes().data, atol=1e-6)
    assert table.outputs.shape == (442, 1)


def test_a_table_is_read_as_numpy_reads_it(tmp_path):
    path = write(tmp_path / "t.csv", "\ufeffa, y,b", "1,2,3", "", "4,5,6.5", "-1,1e3,0")
    table = read_table(path, ["y"])
    expected = np.genfromtxt(path, delimiter=",", skip_header=1)
    assert (table.input_names, table.output_names) == (("a", "b"), ("y",))
    np.testing.assert_array_equal(table.inputs, expected[:, [0, 2]])
    np.testing.assert_array_equal(table.outputs, expected[:, [1]])


@pytest.mark.parametrize(
    ("lines", "targets", "message"),
    [
        (["a,weight", "1,2", "2,3"], "wieght", 'unknown target in .*"wieght"; did you mean "weight"'),
        (["a,y", "1,2", "x,3"], "y", 't.csv, line 3, column "a": expected a finite number, got "x"'),
        (["a,y", "1,2", "2,", "3,4"], "y", 'line 3, column "y": expected a finite number, got ""'),
        (["a,y", "1,inf", "2,3"], "y", 'line 2, column "y": expected a finite number, got "inf"'),
        (["a,y", "1,2", "2"], "y", "line 3: expected 2 cells as in the header, got 1"),
        (["a,b,y", "1,7,2", "2,7,3"], "y", 'column "b" is 7 in all 2 rows; leave it out'),
        (["a,a,y", "1,7,2"], "y", 'column "a" stands twice in the header'),
        (["a,y", "1,2"], "y,y", 'column "y" stands twice in the targets'),
        (["x,y", "1,2", "2,1"], "x,y", "all columns are targets"),
        (["a,y"], "y", "found no rows"),
        (("1,b,y", "1,2,3", "2,3,5"), "y", 'column "1": that is what the constant channel is called; rename it'),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path, lines, targets, message):
    write(tmp_path / "t.csv", *lines)
    with pytest.raises(InputError, match=message):
        load_table(RegressionConfig(data=f"table:{tmp_path / 't.csv'}", targets=targets))


def test_data_that_is_not_there_says_so(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: no readable table"):
        read_table(tmp_path / "none.csv", ["y"])
    with pytest.raises(InputError, match='unknown data "diabets"; did you mean "diabetes"'):
        load_table(RegressionConfig(data="diabets"))


@pytest.mark.parametrize(("lags", "horizon"), [(1, 1), (3, 1), (2, 4)])
def test_lags_are_what_their_names_say(lags, horizon):
    series = make_series()
    table = lag_series(series, lags, horizon)
    position = {float(time): i for i, time in enumerate(series.times)}
    for row, outputs, time in zip(table.inputs, table.outputs, table.times, strict=True):
        t = position[float(time)]
        np.testing.assert_array_equal(outputs, series.states[0, t])
        for name, value in zip(table.input_names, row, strict=True):
            variable, lag = name.split(" t-")
            assert int(lag) >= horizon
            assert value == series.states[0, t - int(lag), series.variables.index(variable)]
    assert len(table.input_names) == 2 * lags
    assert len(table) == 30 - lags - horizon + 1


def test_series_that_have_no_lags_are_refused():
    with pytest.raises(InputError, match="one trajectory, but there are 2"):
        lag_series(make_series(count=2), 1, 1)
    with pytest.raises(InputError, match=r"steps are 0.1 to 0.4; interpolate the series at even times"):
        lag_series(make_series(6, times=np.array([0, 0.1, 0.2, 0.3, 0.4, 0.8])), 1, 1)
    with pytest.raises(InputError, match="6 observations are too few for 2 lags and horizon 2; expected at least 7"):
        lag_series(make_series(6), 2, 2)


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("split", [{"test": 0.3}, *({"folds": 4, "fold": k} for k in range(4))])
def test_a_series_trains_on_what_was_known_when_it_is_tested(horizon, split):
    table = lag_series(make_series(40), 2, horizon)
    found = divide_table(table, SplitConfig(val=0, **split))
    origin = table.times[found.test[0]] - horizon * 0.1  # of the first prediction
    assert table.times[found.train[-1]] == pytest.approx(origin)
    assert not len(found.val)
    if "folds" in split:
        expected = list(TimeSeriesSplit(4, gap=horizon - 1).split(table.inputs))[split["fold"]]
        np.testing.assert_array_equal(found.train, expected[0])
        np.testing.assert_array_equal(found.test, expected[1])


@pytest.mark.parametrize("table", [make_table(60), lag_series(make_series(60), 2, 1)], ids=["table", "series"])
def test_inner_folds_lie_in_the_training_samples_of_the_outer_ones(table):
    outer = divide_table(table, SplitConfig(val=0, folds=4, fold=1))
    inner = [divide_table(table, SplitConfig(val=0, folds=4, fold=1, inner_folds=3, inner_fold=k)) for k in range(3)]
    for found in inner:
        assert set(found.train) | set(found.test) <= set(outer.train)
        assert not set(found.train) & set(found.test)
    assert len(np.unique(np.concatenate([found.test for found in inner]))) == sum(len(found.test) for found in inner)


def test_folds_of_a_table_test_each_row_once():
    table = make_table(23)
    tests = [divide_table(table, SplitConfig(val=0, folds=5, fold=k)).test for k in range(5)]
    assert sorted(np.concatenate(tests)) == list(range(23))


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="made: 9 samples are too few for 5 parts; expected at least 2 in each, 10"):
        divide_table(make_table(9), SplitConfig(val=0, folds=5))
    with pytest.raises(InputError, match=r"8 samples are too few for --split.test 0.1: 7 would train and 1 test"):
        divide_table(make_table(8), SplitConfig(val=0, test=0.1))
    with pytest.raises(InputError, match="made: 9 samples are too few for 6 parts"):
        divide_table(lag_series(make_series(10), 1, 1), SplitConfig(val=0, folds=5))


def test_a_column_that_varies_in_the_test_alone_is_refused():
    table = make_table(20)
    rows = divide_table(table, SplitConfig(val=0)).train
    inputs = table.inputs.copy()
    inputs[rows, 1] = 2.5
    with pytest.raises(InputError, match=r'column "b" is 2\.5 in all 16 training samples'):
        divide_table(Table("made", ("a", "b"), ("c",), inputs, table.outputs), SplitConfig(val=0))


def test_the_fingerprint_stands_for_values_and_names():
    table = make_table()
    same = Table("other", ("a", "b"), ("c",), table.inputs.copy(), table.outputs.copy())
    renamed = Table("made", ("a", "x"), ("c",), table.inputs, table.outputs)
    moved = Table("made", ("a", "b"), ("c",), table.inputs, table.outputs + 1e-9)
    assert table.fingerprint == same.fingerprint
    assert len({table.fingerprint, renamed.fingerprint, moved.fingerprint}) == 3
