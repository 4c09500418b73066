"""Tables of samples: what predicts, what is predicted, which rows train and which test."""

import csv
import math
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from bcos_core.run.config import fingerprint
from bcos_core.run.error import InputError, unknown_name
from bcos_core.run.split import Split, SplitConfig, divide

from bcos_ode.config import HARE_LYNX
from bcos_ode.encoding import CONSTANT
from bcos_ode.systems import Trajectories, even_step, hare_lynx, read_trajectories

from .config import RegressionConfig


@dataclass(frozen=True)
class Table:
    """Samples with named inputs and outputs."""

    name: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    inputs: np.ndarray
    """(n, d)"""
    outputs: np.ndarray
    """(n, k)"""
    times: np.ndarray | None = None
    """(n,), when the outputs of a series were observed."""
    horizon: int = 1
    """Samples of a series from the last input to the output. The first k inputs are the outputs, that long before."""

    def __post_init__(self) -> None:
        """Refuse columns that say nothing.

        Raises:
            InputError: Naming a column that is the same in all rows.
        """
        self.check_variation(np.arange(len(self)), "rows")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def fingerprint(self) -> str:
        """Stands for names and values."""
        values = (np.ascontiguousarray(part, dtype="<f8").tobytes() for part in (self.inputs, self.outputs))
        return fingerprint(*self.input_names, "->", *self.output_names, *values)

    def check_variation(self, rows: np.ndarray, what: str) -> None:
        """Refuse a column that is the same in all of these rows.

        Args:
            rows: Indices.
            what: What the rows are, for the message.

        Raises:
            InputError: Naming the column.
        """
        for names, values in ((self.input_names, self.inputs), (self.output_names, self.outputs)):
            for name, column in zip(names, values[rows].T, strict=True):
                if len(rows) and (column == column[0]).all():
                    raise InputError(
                        f'{self.name}: column "{name}" is {column[0]:g} in all {len(rows)} {what}; leave it out'
                    )


def load_table(config: RegressionConfig) -> Table:
    """Load the data that a configuration names.

    Raises:
        InputError: If there is no such data, or it cannot be used; see the message.

    Example:
        >>> table = load_table(RegressionConfig(data="linnerud"))
        >>> table.inputs.shape, table.output_names
        ((20, 3), ('Weight', 'Waist', 'Pulse'))
    """
    kind, _, path = config.data.partition(":")
    if kind == "table":
        return read_table(pathlib.Path(path), config.targets.split(","))
    if kind == "series":
        series = hare_lynx() if config.data == HARE_LYNX else read_trajectories(pathlib.Path(path))
        return lag_series(series, config.lags, config.horizon)
    if kind == "diabetes":
        from sklearn.datasets import load_diabetes

        # in their own units: what comes by default is centred
        found: Any = load_diabetes(scaled=False)
        return Table(kind, tuple(found.feature_names), ("progression",), found.data, found.target[:, None])
    if kind == "linnerud":
        from sklearn.datasets import load_linnerud

        found: Any = load_linnerud()
        return Table(kind, tuple(found.feature_names), tuple(found.target_names), found.data, found.target)
    raise unknown_name("data", config.data, ["diabetes", "linnerud", "table:PATH.csv", "series:PATH.csv", HARE_LYNX])


def read_table(path: pathlib.Path, targets: list[str]) -> Table:
    """Read a table with a header, all of numbers.

    Args:
        path: Comma separated, UTF-8.
        targets: Columns that are predicted; the others predict.

    Raises:
        InputError: If the table is missing or empty, a target is none of its columns, or a cell is no finite number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            names = [name.strip() for name in next(reader, [])]
            rows = [_numbers(path, reader.line_num, names, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no readable table ({error})") from None
    if not rows:
        raise InputError(f"{path}: expected a header and rows of numbers, found no rows")
    targets = [name.strip() for name in targets]
    for listed, what in ((names, "header"), (targets, "targets")):
        if twice := next((name for name in listed if listed.count(name) > 1), None):
            raise InputError(f'{path}: column "{twice}" stands twice in the {what}')
    for name in targets:
        if name not in names:
            raise unknown_name(f"target in {path}", name, names)
    inputs = [name for name in names if name not in targets]
    if CONSTANT in inputs:
        raise InputError(f'{path}: column "{CONSTANT}": that is what the constant channel is called; rename it')
    if not inputs:
        raise InputError(f"{path}: all columns are targets; nothing is left to predict them from")
    column = dict(zip(names, np.array(rows).T, strict=True))
    return Table(
        path.name,
        tuple(inputs),
        tuple(targets),
        np.stack([column[name] for name in inputs], 1),
        np.stack([column[name] for name in targets], 1),
    )


def _numbers(path: pathlib.Path, line: int, names: list[str], cells: list[str]) -> list[float]:
    if len(cells) != len(names):
        raise InputError(f"{path}, line {line}: expected {len(names)} cells as in the header, got {len(cells)}")
    values = []
    for name, cell in zip(names, cells, strict=True):
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f'{path}, line {line}, column "{name}": expected a finite number, got "{cell}"')
        values.append(value)
    return values


def lag_series(series: Trajectories, lags: int, horizon: int) -> Table:
    """Samples of a series: all variables at t, from all variables at t - horizon and before.

    Args:
        series: One trajectory, at even times.
        lags: Observations that predict.
        horizon: Steps from the last of them to t.

    Raises:
        InputError: If there are more trajectories, times are not even, or observations too few.

    Example:
        >>> table = lag_series(hare_lynx(), lags=2, horizon=1)
        >>> table.input_names, table.inputs[0], table.outputs[0]
        (('hare t-1', 'lynx t-1', 'hare t-2', 'lynx t-2'), array([47.2,  6.1, 30. ,  4. ]), array([70.2,  9.8]))
    """
    if len(series) != 1:
        raise InputError(f"{series.name}: a series is one trajectory, but there are {len(series)}")
    if even_step(series.times) is None:
        steps = np.diff(series.times)
        raise InputError(
            f"{series.name}: lags need even times, but steps are {steps.min():.6g} to {steps.max():.6g}; interpolate "
            "the series at even times"
        )
    states = series.states[0]
    first = lags + horizon - 1
    if len(states) < first + 4:  # two samples to train on, two to test on
        raise InputError(
            f"{series.name}: {len(states)} observations are too few for {lags} lags and horizon {horizon}; "
            f"expected at least {first + 4}"
        )
    past = range(horizon, horizon + lags)
    return Table(
        series.name,
        tuple(f"{name} t-{lag}" for lag in past for name in series.variables),
        series.variables,
        np.concatenate([states[first - lag : len(states) - lag] for lag in past], 1),
        states[first:],
        series.times[first:],
        horizon,
    )


def divide_table(table: Table, split: SplitConfig) -> Split:
    """Which samples train and which test; those of a series by time, each test after what trains for it.

    The folds of a series have a rolling origin (scikit-learn's ``TimeSeriesSplit``): each trains on all that was known
    when the first of its test was predicted.

    Args:
        table: Samples.
        split: Shares or folds; inner ones cut the training samples again.

    Raises:
        InputError: If there are too few, or a column is the same in all that train.
    """
    if table.times is None:
        outer = SplitConfig(test=split.test, val=0, seed=split.seed, folds=split.folds, fold=split.fold)
        _check_enough(table, len(table), split.folds)
        if split.inner_folds:
            _check_enough(table, len(divide([0] * len(table), outer).train), split.inner_folds)
        found = divide([0] * len(table), split)
    else:
        found = _divide_by_time(table, np.arange(len(table)), split.folds, split.fold, split.test)
        if split.inner_folds:
            found = _divide_by_time(table, found.train, split.inner_folds, split.inner_fold, 0)
    if min(len(found.train), len(found.test)) < 2:
        raise InputError(
            f"{table.name}: {len(table)} samples are too few for --split.test {split.test:g}: "
            f"{len(found.train)} would train and {len(found.test)} test, expected at least 2 of each"
        )
    table.check_variation(found.train, "training samples")
    return found


def _divide_by_time(table: Table, pool: np.ndarray, folds: int, fold: int, share: float) -> Split:
    # at the first test's last input, outputs of less than a horizon before the test were not yet known
    unknown = table.horizon - 1
    if not folds:
        num_test = round(share * len(pool))
        first = len(pool) - num_test
        return Split(pool[: max(0, first - unknown)], pool[:0], pool[first:])
    from sklearn.model_selection import TimeSeriesSplit

    _check_enough(table, len(pool) - unknown, folds + 1)
    train, test = list(TimeSeriesSplit(folds, gap=unknown).split(pool))[fold]
    return Split(pool[train], pool[:0], pool[test])


def _check_enough(table: Table, count: int, parts: int) -> None:
    if count < 2 * parts:
        raise InputError(
            f"{table.name}: {count} samples are too few for {parts} parts; expected at least 2 in each, {2 * parts}"
        )
