"""Presets: functions that return a configuration. `bcos-ode train NAME` takes one, options change it."""

from collections.abc import Callable

from bcos_core.run.error import unknown_name
from bcos_core.run.registry import Registry

from .classification import recipes as classification
from .classification.config import ClassificationConfig
from .config import FitConfig, NetworkConfig
from .dynamics.config import DynamicsConfig, SolverConfig, WindowsConfig
from .regression import recipes as regression
from .regression.config import RegressionConfig

RunConfig = DynamicsConfig | RegressionConfig | ClassificationConfig

RECIPES: Registry[Callable[[], RunConfig]] = Registry("preset")


@RECIPES.register("lotka-volterra")
def lotka_volterra() -> DynamicsConfig:
    """Prey and predators, from 25 trajectories without noise; windows of more than a period keep solutions in step."""
    return DynamicsConfig(data="lotka-volterra", windows=WindowsConfig(lengths=[5, 20, 50], max_windows=128))


@RECIPES.register("lorenz")
def lorenz() -> DynamicsConfig:
    """Chaos: windows stay short, the horizon is some fourteen Lyapunov times."""
    return DynamicsConfig(
        data="lorenz",
        fit=FitConfig(lbfgs_steps=1200, max_samples=3000),
        windows=WindowsConfig(lengths=[5, 10]),
        horizon=15.0,
    )


@RECIPES.register("brusselator")
def brusselator() -> DynamicsConfig:
    """An autocatalytic reaction: of order three, and with inflow."""
    return DynamicsConfig(data="brusselator", fit=FitConfig(lbfgs_steps=1200))


@RECIPES.register("van-de-vusse")
def van_de_vusse() -> DynamicsConfig:
    """Competing reactions in a stirred tank."""
    return DynamicsConfig(data="van-de-vusse")


@RECIPES.register("pendulum")
def pendulum() -> DynamicsConfig:
    """A damped pendulum: a sine, of no polynomial degree."""
    return DynamicsConfig(data="pendulum")


@RECIPES.register("oregonator")
def oregonator() -> DynamicsConfig:
    """Stiff: derivatives only, solved implicitly."""
    return DynamicsConfig(
        data="oregonator", windows=WindowsConfig(lengths=[]), solver=SolverConfig(method="radau", rtol=1e-6)
    )


@RECIPES.register("robertson")
def robertson() -> DynamicsConfig:
    """Stiff over nine decades, in logarithmic time: derivatives only, by the mass-action network."""
    return DynamicsConfig(
        data="robertson",
        network=NetworkConfig(model="degree"),
        windows=WindowsConfig(lengths=[]),
        solver=SolverConfig(method="radau", rtol=1e-6, atol=1e-10),
    )


@RECIPES.register("hare-lynx")
def hare_lynx() -> DynamicsConfig:
    """Twenty-one years of pelts: a small network, few steps, and a forecast of the last fifth."""
    return DynamicsConfig(
        data="hare-lynx",
        network=NetworkConfig(depth=1, width=8),
        fit=FitConfig(adam_steps=500, lr=1e-2, lbfgs_steps=0, weight_decay=1e-2),
        windows=WindowsConfig(lengths=[]),
    )


@RECIPES.register("trajectories")
def trajectories() -> DynamicsConfig:
    """Trajectories of one's own, of whatever length: short windows."""
    return DynamicsConfig(data="csv:", windows=WindowsConfig(lengths=[5]))


RECIPES.register("diabetes")(regression.diabetes)
RECIPES.register("linnerud")(regression.linnerud)
RECIPES.register("hare-lynx-series")(regression.hare_lynx_series)
RECIPES.register("digits")(classification.digits)
RECIPES.register("cifar10")(classification.cifar10)

_BY_KIND = {"csv": "trajectories", "table": "diabetes", "series": "hare-lynx-series", "folder": "cifar10"}


def recipe_for(data: str) -> str:
    """Name of the preset that suits a data name.

    Raises:
        InputError: If there is no such data.

    Example:
        >>> recipe_for("lorenz"), recipe_for("csv:mine.csv"), recipe_for("folder:photos")
        ('lorenz', 'trajectories', 'cifar10')
    """
    if data in RECIPES:
        return data
    kind = data.partition(":")[0]
    if kind not in _BY_KIND or ":" not in data:
        raise unknown_name("data", data, (*RECIPES, *(f"{name}:PATH" for name in _BY_KIND)))
    return _BY_KIND[kind]
