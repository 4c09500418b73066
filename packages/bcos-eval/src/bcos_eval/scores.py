"""Scores of a study's units: what statistics, figures and reports read. None of them sees a model."""

import itertools
import json
import pathlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
from bcos_core.run.error import InputError, unknown_name
from jaxtyping import Float

from .design import Design

UNIT_COLUMNS = ("arm", "repeat", "fold", "seed", "num_train", "num_test", "seconds", "run_id")
"""What a row says of its unit; every further column is a metric ("accuracy", "loss", "completeness_error")."""

_KEY = ["repeat", "fold", "seed"]
_COUNTS = (*_KEY, "num_train", "num_test")
_SCORES, _DESIGN = "scores.csv", "design.json"


@dataclass(frozen=True)
class ScoreTable:
    """One row for each finished unit.

    Attributes:
        frame: Columns :data:`UNIT_COLUMNS`, then a column for each metric.
        design: Which units there should be; repeats and folds count from 0. Arms have the same units; on one split,
            arms may instead have no seed in common, and are then independent.
        note: What :meth:`shared` left out; empty if the table is to be whole.

    Example:
        >>> unit = dict(repeat=0, seed=0, num_train=8, num_test=2, seconds=1.0, run_id="")
        >>> rows = [dict(arm=arm, fold=fold, accuracy=0.9, **unit) for arm in ("bcos", "plain") for fold in range(5)]
        >>> table = ScoreTable(pd.DataFrame(rows), Design())
        >>> table.check()
        >>> table.arms, table.metrics
        (('bcos', 'plain'), ('accuracy',))
    """

    frame: pd.DataFrame
    design: Design
    note: str = ""

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order in which they first appear."""
        return tuple(self.frame["arm"].unique())

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, in the frame's order."""
        return tuple(column for column in self.frame.columns if column not in UNIT_COLUMNS)

    def check(self, metric: str | None = None) -> None:
        """Refuse a table that no comparison should be made of.

        Args:
            metric: The metric that must be there, and finite in every row ("seconds" is one); None asks it of all.

        Raises:
            InputError: On missing columns, no rows, or an unknown metric; on units that came twice, that are not of the
                design, or that an arm lacks; on arms tested on different numbers of samples; on scores that are no
                finite number.
        """
        if absent := [column for column in UNIT_COLUMNS if column not in self.frame]:
            raise InputError(f"scores: no column {', '.join(absent)}; expected {', '.join(UNIT_COLUMNS)} and metrics")
        if self.frame.empty:
            raise InputError("scores: no rows; expected one for each finished unit")
        for name in self.metrics if metric is None else (metric,):
            self._check_metric(name)
            unfit = ~np.isfinite(self.frame[name].astype(float))
            if unfit.any():
                raise InputError(f"scores: {name} is no finite number in {_say(self._units(unfit))}")
        self._check_units()

    def values(self, metric: str, arm: str) -> pd.Series:
        """One arm's scores: of each fold, the mean over its seeds; on one split, of each seed.

        Args:
            metric: A metric, or "seconds".
            arm: An arm.

        Returns:
            Float64 scores, indexed and sorted by (repeat, fold), or by seed where the design has one fold.

        Raises:
            InputError: If there is no such metric or arm.
        """
        self._check_metric(metric)
        if arm not in self.arms:
            raise unknown_name("arm", arm, self.arms)
        rows = self.frame[self.frame["arm"] == arm].astype({metric: float})
        return pd.Series(rows.groupby(["repeat", "fold"] if self.design.is_crossval else "seed")[metric].mean())

    def pairs(self, metric: str, arm: str, control: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Scores of two arms, unit by unit.

        Returns:
            Scores of ``arm`` and of ``control``, float64, both sorted by (repeat, fold), or by seed on one split.

        Raises:
            InputError: If there is no such metric or arm, or the arms have different folds or seeds.
        """
        first, second = self.values(metric, arm), self.values(metric, control)
        if not first.index.equals(second.index):
            units = "folds" if self.design.is_crossval else "seeds"
            raise InputError(f'scores: expected pairs, but "{arm}" and "{control}" have different {units}')
        return first.to_numpy(), second.to_numpy()

    def test_train_ratio(self, *arms: str) -> float:
        """Samples tested for each one trained on, over these arms' units: 1 / (k - 1) if all but the fold are used."""
        rows = self.frame["arm"].isin(arms)
        return float(np.sum(self.frame["num_test"][rows]) / np.sum(self.frame["num_train"][rows]))

    def shared(self) -> Self:
        """The units that all arms have, of a study that is not finished; :attr:`note` says how many are left out.

        Raises:
            InputError: If no unit is in all arms.
        """
        if not (missing := self._missing()):
            return self
        finished = [set(self._units(self.frame["arm"] == arm)) for arm in self.arms]
        units = [{unit[1:] for unit in arm} for arm in finished]
        common = set.union(*units) if self._are_independent() else set.intersection(*units)
        kept = pd.Series([unit[1:] in common for unit in self._units()], index=self.frame.index)
        if not kept.any():
            raise InputError(f"scores: nothing to compare: no unit is finished in all of {', '.join(self.arms)}")
        note = f"The study is not finished: {len(missing)} of its units are missing"
        if dropped := len(self.frame) - int(kept.sum()):
            note += f", and {dropped} finished ones are left out, which other arms lack"
        return replace(self, frame=self.frame[kept].reset_index(drop=True), note=f"{note} (compared: {kept.sum()}).")

    def write(self, folder: pathlib.Path) -> None:
        """Write ``scores.csv`` and ``design.json``, which lose nothing: floats come back bit for bit."""
        folder.mkdir(parents=True, exist_ok=True)
        frame = self.frame.astype(dict.fromkeys(("seconds", *self.metrics), float))
        frame.to_csv(folder / _SCORES, index=False, na_rep="nan")
        (folder / _DESIGN).write_text(json.dumps({**asdict(self.design), "note": self.note}, indent=2) + "\n")

    @classmethod
    def read(cls, folder: pathlib.Path) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            InputError: If a file is missing, or is not what it should be.
        """
        for name in (_SCORES, _DESIGN):
            if not (folder / name).is_file():
                raise InputError(f"{folder}: no {name}; expected the folder of a study")
        try:
            design = json.loads((folder / _DESIGN).read_text())
            note = str(design.pop("note", ""))
            design = Design(**{**design, "seeds": tuple(design["seeds"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{folder / _DESIGN}: expected folds, repeats, seeds and note: {error}") from None
        try:
            # as text first: pandas would take an arm named "NA" for a missing value, and the run 007 for 7
            frame = pd.read_csv(folder / _SCORES, dtype=str, keep_default_na=False)
            for column in frame.columns.difference(["arm", "run_id"]):
                frame[column] = frame[column].map(int if column in _COUNTS else float)
        except ValueError as error:
            raise InputError(f"{folder / _SCORES}: {error}") from None
        return cls(frame, design, note)

    def _check_metric(self, metric: str) -> None:
        known = (*self.metrics, "seconds")
        if metric not in known:
            raise unknown_name("metric", metric, known)

    def _check_units(self) -> None:
        if twice := self._units(self.frame.duplicated(["arm", *_KEY])):
            raise InputError(f"scores: {len(twice)} units came more than once: {_say(twice)}")
        planned = set(self._planned())
        if strange := [unit for unit in self._units() if unit[1:] not in planned]:
            seeds = ", ".join(map(str, self.design.seeds))
            raise InputError(
                f"scores: not of the design ({self.design.name} counted from 0, seeds {seeds}): {_say(strange)}"
            )
        if missing := self._missing():
            total = len(missing) + len(self.frame)
            raise InputError(
                f"scores: {len(missing)} of {total} units are missing: {_say(missing)}; finish them, or compare what "
                "all arms have (ScoreTable.shared)"
            )
        if unfit := self._units((self.frame["num_train"] < 1) | (self.frame["num_test"] < 1)):
            raise InputError(f"scores: expected num_train and num_test of at least 1 in {_say(unfit)}")
        sizes: dict[tuple, list[int]] = {}
        for unit, size in zip(self._units(), self.frame["num_test"], strict=True):
            sizes.setdefault(unit[1:], []).append(size)
        for (repeat, fold, seed), counts in sizes.items():
            if len(set(counts)) > 1:
                where = f"{', '.join(map(str, counts))} in repeat {repeat} fold {fold} seed {seed}"
                raise InputError(f"scores: arms were tested on different images: num_test is {where}")

    def _units(self, rows: Iterable[bool] | None = None) -> list[tuple]:
        """(arm, repeat, fold, seed) of some rows, or of all."""
        units = zip(*(self.frame[name] for name in ("arm", *_KEY)), strict=True)
        return list(units if rows is None else itertools.compress(units, rows))

    def _planned(self) -> list[tuple[int, int, int]]:
        return list(itertools.product(range(self.design.repeats), range(self.design.folds), self.design.seeds))

    def _are_independent(self) -> bool:
        """Whether the arms are runs of different seeds on one split."""
        seeds = [set(rows) for _, rows in self.frame.groupby("arm")["seed"]]
        return not self.design.is_crossval and sum(map(len, seeds)) == len(set().union(*seeds)) and len(seeds) > 1

    def _missing(self) -> list[tuple]:
        """What the arms lack of the design, or of one another where a note says what all of them lack."""
        found = set(self._units())
        in_any = {unit[1:] for unit in found}
        wanted = [unit for unit in self._planned() if unit in in_any or not self.note]
        if self._are_independent():
            return [("every arm", *unit) for unit in wanted if unit not in in_any]
        return [(arm, *unit) for arm in self.arms for unit in wanted if (arm, *unit) not in found]


def _say(units: Iterable[tuple]) -> str:
    names = [f"{arm} repeat {repeat} fold {fold} seed {seed}" for arm, repeat, fold, seed in units]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
