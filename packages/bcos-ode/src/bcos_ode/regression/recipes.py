"""Presets: functions that return a configuration."""

from collections.abc import Callable

from bcos_core.run.registry import Registry

from .config import HARE_LYNX, RegressionConfig

RECIPES: Registry[Callable[[], RegressionConfig]] = Registry("preset")


@RECIPES.register("diabetes")
def diabetes() -> RegressionConfig:
    """442 patients, ten variables in their own units, and how far the disease went in a year (Efron et al. 2004)."""
    return RegressionConfig()


@RECIPES.register("linnerud")
def linnerud() -> RegressionConfig:
    """Twenty men: weight, waist and pulse from three exercises (Tenenhaus 1998). Three outputs, hardly any signal."""
    return RegressionConfig(data="linnerud")


@RECIPES.register("hare-lynx")
def hare_lynx_series() -> RegressionConfig:
    """Pelts of hare and lynx, each year from the two before it."""
    return RegressionConfig(data=HARE_LYNX)
