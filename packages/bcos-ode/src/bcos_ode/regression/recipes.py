"""Presets: functions that return a configuration.

Constant channel, steps and weight decay were chosen by inner folds of training samples: of a table those of the first
of five folds, of the series those before the last fifth.
"""

import dataclasses

from bcos_ode.config import HARE_LYNX

from .config import RegressionConfig


def diabetes() -> RegressionConfig:
    """442 patients, ten variables in their own units, and how far the disease went in a year (Efron et al. 2004)."""
    return RegressionConfig(data="diabetes")


def linnerud() -> RegressionConfig:
    """Twenty men: weight, waist and pulse from three exercises (Tenenhaus 1998). Three outputs, hardly any signal."""
    usual = RegressionConfig(data="linnerud")
    return dataclasses.replace(usual, fit=dataclasses.replace(usual.fit, adam_steps=50))


def hare_lynx_series() -> RegressionConfig:
    """Pelts of hare and lynx, each year from the two before it."""
    usual = RegressionConfig(data=HARE_LYNX)
    return dataclasses.replace(
        usual,
        network=dataclasses.replace(usual.network, constant=3.0),
        fit=dataclasses.replace(usual.fit, weight_decay=0.0),
    )
