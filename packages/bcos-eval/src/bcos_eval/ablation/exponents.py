"""Which exponents B the arms of a study have: those that were set, and what the others learnt."""

from collections.abc import Sequence
from dataclasses import dataclass

from bcos_core.run.config import from_dict
from bcos_core.run.tracking import read_run
from bcos_vision.config import TrainConfig

from ..queue import UnitState
from ..study import Study
from .arms import rule_text

LOGGED = ("b/mean", "b/min", "b/max")
"""What a training that learns B logs in each epoch, over the network's layers; the last epoch's are the run's."""


@dataclass(frozen=True)
class ArmExponent:
    """The exponents of one arm's networks."""

    mean: float
    """Over layers, and over units."""
    low: float
    """The smallest of any layer in any unit."""
    high: float
    """The largest."""
    form: str | None = None
    """Who shares a learnt one: "global", "layer" or "channel"; None if B was set."""
    rule: str = ""
    """What learning answered to besides the loss: "max 0.1"; empty for nothing."""


def read_exponents(study: Study, states: Sequence[UnitState]) -> dict[str, ArmExponent]:
    """The exponents of the arms that are B-cos networks; an arm whose units logged none is left out.

    Args:
        study: Of vision's configurations.
        states: Of its units; those that are done are read.

    Raises:
        InputError: If the store cannot be read.
    """
    found = {}
    for arm, values in study.arms.items():
        config = from_dict(TrainConfig, dict(values))
        if config.variant != "bcos":
            continue
        if config.exponent.learn is None:
            found[arm] = ArmExponent(config.b, config.b, config.b)
            continue
        metrics = [read_run(s.result["run_id"]).metrics for s in states if s.unit.arm == arm and s.state == "done"]
        logged = [[m[name] for name in LOGGED] for m in metrics if all(name in m for name in LOGGED)]
        if logged:
            means, lows, highs = zip(*logged, strict=True)
            mean = sum(means) / len(means)
            found[arm] = ArmExponent(mean, min(lows), max(highs), config.exponent.learn, rule_text(config.exponent))
    return found
