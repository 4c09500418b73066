"""What a run over dynamics is made of. Light to import: the command line answers ``--help`` from here."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from bcos_core.run.split import SplitConfig

from bcos_ode.config import FitConfig, NetworkConfig, short_name

FixedMethod = Literal["rk4", "rk4_classic", "heun", "midpoint", "euler"]
AdaptiveMethod = Literal["dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2"]
SeparateMethod = Literal["dop853", "rk45", "radau", "bdf", "lsoda"]


@dataclass(frozen=True)
class WindowsConfig:
    """Fitting through the solver, after the derivatives: short windows of the data, each from its own observed start
    (multiple shooting), first short ones and then longer ones.
    """

    lengths: list[int] = field(default_factory=lambda: [5, 20])
    """Observations that each window reaches ahead, in the order in which they are trained; [] leaves this out, as
    observations at uneven steps need."""
    max_windows: int = 256
    """Windows at a time, drawn from all."""
    steps: int = 100
    """Of L-BFGS, for each length."""
    method: Literal[FixedMethod, AdaptiveMethod] = "rk4"
    """Solver: of fixed steps (the first five), or torchdiffeq's with steps of its own choice."""
    substeps: int = 2
    """Steps of a fixed-step solver between two observations."""
    compile: bool = False
    """Compile the fixed step: ten seconds or more, then some two to four times faster."""
    adjoint: bool = False
    """Gradients by the adjoint equation, for an adaptive solver; by default through the solver."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            ValueError: Naming the option, what came and what is expected.
        """
        if any(length < 1 for length in self.lengths):
            raise ValueError(f"--windows.lengths: expected at least 1 each, got {self.lengths}")
        for name in ("max_windows", "steps", "substeps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--windows.{name}: expected at least 1, got {getattr(self, name)}")
        fixed = self.method in get_args(FixedMethod)
        _check_choice("windows.method", self.method, (*get_args(FixedMethod), *get_args(AdaptiveMethod)))
        if fixed and self.adjoint:
            raise ValueError(f'--windows.adjoint: belongs to an adaptive method (dopri5), not to "{self.method}"')
        for name in ("steps", "method", "substeps", "compile", "adjoint"):
            if not self.lengths and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"--windows.{name}: belongs to windows, and --windows.lengths is []: there are none")
        for name in ("compile", "substeps"):
            if not fixed and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f'--windows.{name}: belongs to a fixed-step method, not to "{self.method}"')


@dataclass(frozen=True)
class SolverConfig:
    """How fitted fields are solved where they are scored: each trajectory by itself."""

    method: SeparateMethod = "dop853"
    """SciPy's; radau, bdf and lsoda for stiff fields."""
    rtol: float = 1e-8
    atol: float = 1e-8
    """In the variables' own units."""

    def __post_init__(self) -> None:
        """Refuse what cannot be solved.

        Raises:
            ValueError: Naming the option, what came and what is expected.
        """
        _check_choice("solver.method", self.method, get_args(SeparateMethod))
        for name in ("rtol", "atol"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"--solver.{name}: expected a positive number, got {getattr(self, name)}")


@dataclass(frozen=True)
class DynamicsConfig:
    """One vector field, fitted to trajectories."""

    data: str = "lotka-volterra"
    """A name of `bcos-ode systems`, hare-lynx, or csv:PATH (columns t, the variables, and perhaps trajectory, which
    tells trajectories apart; all of them at the same times, and these at equal steps but for --windows.lengths [])."""
    num_trajectories: int = 25
    """Of a system."""
    span: float | None = None
    """Their length; the system's own where it is not given."""
    noise: float = 0.0
    """Standard deviation of the observations' noise, as a share of each variable's own."""
    data_seed: int = 0
    """Of starts and noise; apart from the run's seed, so that runs with other seeds see the same data."""
    smoothing: Literal["auto", "interpolate", "smooth"] = "auto"
    """Derivatives by a spline through the observations, or near them; auto: near them where noise was added, or data
    are a file's."""
    horizon: float | None = None
    """Time over which solutions are scored; where it is not given twice the span of the data, or the span itself of a
    stiff system."""
    seed: int = 0
    """Of weights, and of what is drawn to be fitted."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    windows: WindowsConfig = field(default_factory=WindowsConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    split: SplitConfig = field(default_factory=lambda: SplitConfig(val=0.0))
    """Trajectories held out. Of a single trajectory its last part, and folds are origins of forecasts that roll on."""

    def __post_init__(self) -> None:
        """Refuse values that no run can have.

        Raises:
            ValueError: Naming the option, what came and what is expected.
        """
        for name, least in (("num_trajectories", 1), ("seed", 0), ("data_seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name}: expected at least {least}, got {getattr(self, name)}")
        _check_choice("smoothing", self.smoothing, ("auto", "interpolate", "smooth"))
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"--noise: expected a finite number >= 0, got {self.noise}")
        for name in ("span", "horizon"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ValueError(f"--{name}: expected a positive number, got {value}")
        self.split.check()
        if self.split.val:
            raise ValueError(f"--split.val: nothing is selected here, expected 0, got {self.split.val}")

    @property
    def data_name(self) -> str:
        """The data as experiments call it: a file by its own name, not its path."""
        return short_name(self.data)

    @property
    def arm(self) -> str:
        """Readable name of what is compared, everything but seed and fold: what is not as usual stands in it."""
        network, given = self.network.resolve(), self.network.degree
        words = [
            self.data_name,
            network.model,
            f"B={network.b:g}" * (network.model == "bcos"),
            f"p={given}" * (given is not None),  # else the system's
            f"{network.depth}x{network.width}",
            network.encoding * (network.encoding != "constant"),
            f"noise {self.noise:g}" * (self.noise > 0),
            "no windows" * (not self.windows.lengths),
        ]
        return " ".join(filter(None, words))


def _check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f'--{option}: expected one of {", ".join(known)}, got "{value}"')
