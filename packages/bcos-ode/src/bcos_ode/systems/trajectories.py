"""Trajectories: what is observed, of a system that is simulated or of a table."""

from __future__ import annotations

import csv
import dataclasses
import math
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from bcos_core.run.error import InputError
from bcos_core.run.seed import derive_seed

from bcos_ode.encoding import CONSTANT

from .system import System

_RTOL, _ATOL = 1e-10, 1e-12
_ROUNDED = 1e-2  # of a step: what times are off that were written with few digits


@dataclass(frozen=True)
class Trajectories:
    """N observed trajectories at the same T times."""

    name: str
    variables: tuple[str, ...]
    times: np.ndarray
    """(T,), increasing."""
    states: np.ndarray
    """(N, T, d), as observed: with noise."""
    clean: np.ndarray | None = None
    """(N, T, d), without noise, where it is known."""
    system: System | None = None
    """What made them, where it is known."""

    def __len__(self) -> int:
        return len(self.states)

    @property
    def dim(self) -> int:
        """Number of variables."""
        return len(self.variables)

    def subset(self, index: np.ndarray) -> Trajectories:
        """Some of the trajectories."""
        clean = None if self.clean is None else self.clean[index]
        return dataclasses.replace(self, states=self.states[index], clean=clean)

    def between(self, first: int, last: int) -> Trajectories:
        """The part of every trajectory from observation ``first`` up to, and without, ``last``."""
        clean = None if self.clean is None else self.clean[:, first:last]
        return dataclasses.replace(self, times=self.times[first:last], states=self.states[:, first:last], clean=clean)


def draw_starts(system: System, count: int, seed: int, *, widen: float = 1.0) -> np.ndarray:
    """Starting states, uniform in the system's box, shape (count, d).

    Args:
        system: Whose box.
        count: How many.
        seed: Seed of the draw.
        widen: Factor on the box's half widths, about its centre; starts that are positive by nature stay so.
    """
    random = np.random.default_rng(derive_seed(seed, "starts", system.name))
    low, high = np.array(system.low), np.array(system.high)
    centre, half = (low + high) / 2, (high - low) / 2 * widen
    lowest = np.where(low >= 0, np.minimum(low, 0.1 * high), -np.inf)
    return np.maximum(random.uniform(centre - half, centre + half, (count, system.dim)), lowest)


def simulate(system: System, starts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Solve the true equations to ten digits: DOP853, or Radau where the system is stiff.

    Args:
        system: The equations.
        starts: Shape (N, d).
        times: Shape (T,), increasing, the first one that of the starts.

    Returns:
        States, shape (N, T, d).

    Raises:
        InputError: If a solution ends before the last time, says where and when.
    """
    from scipy.integrate import solve_ivp

    found = np.empty((len(starts), len(times), system.dim))
    options: dict[str, Any] = {"method": "DOP853"}
    if system.stiff:
        options = {"method": "Radau", "jac": lambda _t, z: system.jacobian(z)}
    for i, start in enumerate(starts):
        solution = solve_ivp(
            lambda _t, z: system(z),
            (times[0], times[-1]),
            start,
            t_eval=times,
            rtol=_RTOL,
            atol=_ATOL,
            **options,
        )
        if not solution.success:
            reached = solution.t[-1] if len(solution.t) else times[0]
            raise InputError(f"{system.name} from {start.tolist()}: {solution.message} (after t = {reached:g})")
        found[i] = solution.y.T
    return found


def make_trajectories(
    system: System, count: int, *, seed: int = 0, noise: float = 0.0, span: float | None = None
) -> Trajectories:
    """Simulate and observe a system.

    Args:
        system: The equations.
        count: Trajectories.
        seed: Seed of starts and noise.
        noise: Standard deviation of the observations' Gaussian noise, as a share of each variable's own.
        span: Length; by default the system's.

    Raises:
        InputError: If a number is out of range, or the system cannot be solved.

    Example:
        >>> from bcos_ode.systems import SYSTEMS
        >>> make_trajectories(SYSTEMS["lotka-volterra"], 3).states.shape
        (3, 101, 2)
    """
    if count < 1 or noise < 0:
        raise InputError(f"trajectories: expected at least 1 and noise >= 0, got {count} and {noise}")
    starts = draw_starts(system, count, seed)
    if system.burn_in:
        starts = simulate(system, starts, np.array([0.0, system.burn_in]))[:, -1]
    times = system.times(span)
    clean = simulate(system, starts, times)
    random = np.random.default_rng(derive_seed(seed, "noise", system.name))
    states = clean + noise * clean.std((0, 1)) * random.standard_normal(clean.shape)
    return Trajectories(system.name, system.variables, times, states, clean, system)


def read_trajectories(path: pathlib.Path) -> Trajectories:
    """Read trajectories from a table with a header.

    A column ``t`` has the times; a column ``trajectory``, if there is one, tells trajectories apart; the others are the
    variables. All trajectories are observed at the same times, to a hundredth of a step; those of the first are
    taken. Those that are not have to be interpolated at common times first.

    Raises:
        InputError: If the table is missing, has gaps, its times are not finite, increasing, and the same for all, or a
            variable never changes.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin with a byte order mark
            table = csv.DictReader(file, skipinitialspace=True)
            header = tuple(map(str.strip, table.fieldnames or ()))
            table.fieldnames = header
            rows = [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no readable table ({error})") from None
    names = [name for name in header if name not in ("t", "trajectory")]
    if not rows or "t" not in header or not names:
        found = f"the columns {', '.join(map(repr, header))}" if header else "nothing"
        raise InputError(
            f'{path}: expected a header with "t", the variables and perhaps "trajectory", separated by commas, and '
            f"rows; got {found} and {len(rows)} rows"
        )
    if CONSTANT in names:
        raise InputError(f'{path}: column "{CONSTANT}": that is what the constant channel is called; rename it')
    if not all(header) or len(set(header)) < len(header):
        raise InputError(f"{path}: every column needs a name of its own, got {', '.join(map(repr, header))}")
    series: dict[str, list[list[float]]] = {}
    for number, row in rows:
        if None in row or None in row.values():
            raise InputError(f"{path}, line {number}: expected numbers for {len(header)} columns, got {_cells(row)}")
        values = [_number(row[name], f'{path}, line {number}, column "{name}"') for name in ("t", *names)]
        series.setdefault(row.get("trajectory") or "", []).append(values)
    first_name, first = next(iter(series.items()))
    times = np.array(first)[:, 0]
    try:
        check_times(times, str(path))
    except InputError as error:
        hint = "" if "trajectory" in header else '; of several trajectories a column "trajectory" says which is which'
        raise InputError(f"{error}{hint}") from None
    for name, values in series.items():
        other = f'{path}: trajectory "{name}" has other times than "{first_name}"'
        advice = "expected the same times for all: interpolate the trajectories at common ones (numpy.interp)"
        if len(values) != len(first):
            raise InputError(f"{other}, {len(values)} and not {len(first)}; {advice}")
        off = np.abs(np.array(values)[:, 0] - times) > _ROUNDED * np.diff(times).min()
        if off.any():
            i = int(off.argmax())
            raise InputError(f"{other}, {values[i][0]:g} and not {times[i]:g}; {advice}")
    states = np.array(list(series.values()))[:, :, 1:]
    for name, column in zip(names, states.T, strict=True):
        if (column == column.flat[0]).all():
            raise InputError(f'{path}: column "{name}" is {column.flat[0]:g} in all {column.size} rows; leave it out')
    return Trajectories(path.stem, tuple(names), times, states)


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise InputError(f"{where}: expected numbers, got {cell!r}") from None
    if not math.isfinite(value):
        raise InputError(f"{where}: expected finite numbers, got {cell!r}")
    return value


def _cells(row: dict[Any, Any]) -> list[str]:
    """What a line has, beyond the header's columns too."""
    return [cell for cell in (*row.values(), *row.get(None, ())) if isinstance(cell, str)]


def even_step(times: np.ndarray) -> float | None:
    """The step of times that are even, to a hundredth of it, for they may be written with few digits; else None.

    Args:
        times: Shape (T,), increasing, at least two.

    Example:
        >>> even_step(np.array([0, 0.333, 0.667, 1.0])), even_step(np.array([0.0, 1.0, 3.0]))
        (0.3333333333333333, None)
    """
    step = float(times[-1] - times[0]) / (len(times) - 1)
    grid = times[0] + step * np.arange(len(times))
    return step if (np.abs(times - grid) <= _ROUNDED * step).all() else None


def check_times(times: np.ndarray, source: str) -> None:
    """Refuse times that are not finite and increasing, or fewer than two.

    Raises:
        InputError: Naming the first one that is wrong.
    """
    if times.ndim != 1 or len(times) < 2:
        raise InputError(f"{source}: expected at least two times, got shape {times.shape}")
    if not np.isfinite(times).all():
        i = int(np.flatnonzero(~np.isfinite(times))[0])
        raise InputError(f"{source}: time {i} is {times[i]}; expected finite times")
    if (np.diff(times) <= 0).any():
        i = int(np.flatnonzero(np.diff(times) <= 0)[0])
        raise InputError(f"{source}: times have to increase, but {times[i + 1]:g} follows {times[i]:g} (at {i + 1})")
