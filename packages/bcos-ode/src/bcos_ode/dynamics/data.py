"""The trajectories of a run: simulated, or a file's; which of them train and which are the test."""

import dataclasses
import pathlib
from dataclasses import dataclass

import numpy as np
from bcos_core.run.config import fingerprint
from bcos_core.run.error import InputError, unknown_name
from bcos_core.run.seed import derive_seed
from bcos_core.run.split import divide

from bcos_ode.fit.derivatives import Smoothing
from bcos_ode.systems import SYSTEMS, System, Trajectories, hare_lynx, make_trajectories, read_trajectories, simulate

from .config import DynamicsConfig

_FEWEST = 6  # observations before a forecast


@dataclass(frozen=True)
class DynamicsData:
    """What trains and what is scored."""

    train: Trajectories
    starts: np.ndarray
    """(M, d), where scored solutions begin."""
    times: np.ndarray
    """(S,), when they are compared, from 0."""
    truth: np.ndarray
    """(M, S, d): without noise where that is known."""
    num_within: int
    """How many of these times lie within the span of the training data."""
    is_forecast: bool
    """The test is what follows the training data, and not other trajectories."""
    smoothing: Smoothing
    fingerprint: str

    @property
    def system(self) -> System | None:
        """What made the data, where it is known."""
        return self.train.system

    @property
    def times_within(self) -> np.ndarray:
        """Times within the span of the training data; of a forecast, which is all beyond, all of them."""
        return self.times if self.is_forecast else self.times[: self.num_within]

    @property
    def pace(self) -> np.ndarray:
        """(S,), what errors of derivatives at these times are multiplied by: with logarithmic times every decade
        counts alike, else every time.
        """
        logarithmic = self.system is not None and self.system.spacing == "logarithmic"
        return self.times if logarithmic else np.ones_like(self.times)


def load_dynamics(config: DynamicsConfig) -> DynamicsData:
    """Simulate or read the trajectories of a run, and divide them.

    Raises:
        InputError: If the name is unknown, the file unreadable, or too little is left in a part.
    """
    kind, _, path = config.data.partition(":")
    if config.data in SYSTEMS:
        whole = make_trajectories(
            SYSTEMS[config.data],
            config.num_trajectories,
            seed=config.data_seed,
            noise=config.noise,
            span=config.span,
        )
    elif config.data == "hare-lynx":
        whole = hare_lynx()
    elif kind == "csv" and path:
        whole = read_trajectories(pathlib.Path(path))
    else:
        raise unknown_name("data", config.data, (*SYSTEMS, "hare-lynx", "csv:PATH"))
    if whole.system is None:
        own = {name: getattr(config, name) for name in ("num_trajectories", "span", "noise", "data_seed", "horizon")}
        for name, value in own.items():
            if value != getattr(DynamicsConfig, name):
                raise InputError(f"--{name}: belongs to simulated systems; {config.data} is observed as it is")
    mark = fingerprint(whole.states.tobytes(), whole.times.tobytes())
    smoothing = config.smoothing
    if smoothing == "auto":
        smoothing = "interpolate" if whole.system is not None and not config.noise else "smooth"
    if len(whole) == 1:
        return _forecast(config, whole, smoothing, mark)
    parts = divide([0] * len(whole), config.split)
    if not len(parts.test):
        raise InputError("--split.test is 0: no trajectory is left to score")
    train, test = whole.subset(parts.train), whole.subset(parts.test)
    if whole.system is not None:
        assert test.clean is not None
        if config.horizon and config.horizon < whole.system.step:
            least = f"one step of {whole.system.name}, {whole.system.step:g}"
            raise InputError(f"--horizon: expected at least {least}, got {config.horizon:g}")
        times = whole.system.times(config.horizon or (1 if whole.system.stiff else 2) * whole.times[-1])
        truth = simulate(whole.system, test.clean[:, 0], times)
        starts = test.clean[:, 0]
    else:
        times, truth, starts = whole.times, test.states, test.states[:, 0]
    times = times - times[0]
    within = int((times <= (whole.times[-1] - whole.times[0]) * (1 + 1e-9)).sum())
    return DynamicsData(train, starts, times, truth, within, False, smoothing, mark)


def _forecast(config: DynamicsConfig, whole: Trajectories, smoothing: Smoothing, mark: str) -> DynamicsData:
    """One trajectory: its beginning trains, and what follows is the test."""
    from sklearn.model_selection import TimeSeriesSplit

    if config.horizon:
        raise InputError("--horizon: of one trajectory the last part is the test (--split.test); it takes no other")
    if config.split.inner_folds:
        raise InputError(f"--split.inner_folds: {config.data} is one trajectory, too little for folds within folds")
    count = len(whole.times)
    if config.split.folds:
        sizes = f"--split.folds {config.split.folds}: {count} observations of {config.data} are too few for it"
        try:
            parts = list(TimeSeriesSplit(config.split.folds).split(whole.times))
        except ValueError:
            raise InputError(sizes) from None
        train, test = parts[config.split.fold]
        first, last = len(train), int(test[-1]) + 1
        if first < _FEWEST:
            raise InputError(f"{sizes}; the first would train on {len(parts[0][0])}, {_FEWEST} are needed")
    else:
        first, last = count - max(1, round(config.split.test * count)), count
        if first < _FEWEST or not config.split.test:
            raise InputError(
                f"--split.test {config.split.test:g}: leaves {first} of {count} observations of {config.data} to train "
                f"on and {last - first} to score; {_FEWEST} and 1 are needed"
            )
    known = whole.clean if whole.clean is not None else whole.states
    times = whole.times[first - 1 : last]
    return DynamicsData(
        whole.between(0, first),
        known[:, first - 1],
        times - times[0],
        known[:, first - 1 : last],
        1,
        True,
        smoothing,
        mark,
    )


def fresh_starts(data: DynamicsData, count: int, seed: int) -> DynamicsData:
    """The same scored from other starts, of the same box, over the same times.

    Raises:
        InputError: If no system is known that says what is true from there, or there is none to draw.
    """
    system = data.system
    if system is None:
        raise InputError("--starts: only a simulated system says what is true from other starts")
    # apart from the draw of the run's own data, whatever its seed
    fresh = make_trajectories(system, count, seed=derive_seed(seed, "fresh"), span=float(data.times[-1]))
    assert fresh.clean is not None
    truth = simulate(system, fresh.clean[:, 0], data.times)
    return dataclasses.replace(data, starts=fresh.clean[:, 0], truth=truth)
