"""The arms of an ablation: one configuration, and what changes in it."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bcos_core.run.config import from_dict, to_dict
from bcos_core.run.error import InputError, unknown_name
from bcos_vision.config import ExponentConfig, TrainConfig

from ..study import overlay

Arms = dict[str, TrainConfig]
_Change = tuple[str, Mapping[str, Any]]
"""An arm's name, and options by dotted name."""

FIXED = (1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5)
"""Fixed exponents against which learnt ones are drawn."""
FORMS = ("global", "layer", "channel")
"""Who shares a learnt exponent."""
OBJECTIVES = ("none", "max", "smooth_max", "at_most", "at_least")
USUAL_OBJECTIVES = ("none", "max", "at_least")
STRENGTHS = (0.01, 0.1)
BOUNDS = (1.5,)

DESIGN_FIXED = (1.0, 1.5, 2.0, 2.5, 3.0)
"""Fixed exponents where B is one factor among others."""
CONTROL = "bcos"
"""The arm that the others change one thing of."""
_NORMS = (
    *("batch_uncentered", "batch", "layer_uncentered", "group_uncentered", "instance_uncentered"),
    *("position_uncentered", "layer", "group", "instance", "position", "none"),
)
_LOSSES = {"bce": "BCE", "cross_entropy": "cross-entropy"}


def exponent_arms(
    base: TrainConfig,
    *,
    fixed: Sequence[float] = FIXED,
    forms: Sequence[str] = FORMS,
    objectives: Sequence[str] = USUAL_OBJECTIVES,
    strengths: Sequence[float] = STRENGTHS,
    bounds: Sequence[float] = BOUNDS,
    lr: float = ExponentConfig.lr,
) -> Arms:
    """Arms that differ in B alone: fixed ones, and learnt ones of every form under every objective.

    Args:
        base: Of variant "bcos"; learnt exponents start at its ``b``.
        fixed: Fixed exponents, at least 1.
        forms: Of :data:`FORMS`.
        objectives: Of :data:`OBJECTIVES`.
        strengths: An arm each for "max" and "smooth_max".
        bounds: An arm each for "at_most" and "at_least".
        lr: Learning rate of learnt exponents; ``base``, whose B is fixed, has none of its own.

    Raises:
        InputError: On an unknown name, or a number that no run can have.

    Example:
        >>> list(exponent_arms(TrainConfig(), fixed=[1.5, 2], forms=["global", "layer"], objectives=["max"]))[2:]
        ['B global max 0.01', 'B global max 0.1', 'B by layer max 0.01', 'B by layer max 0.1']
    """
    for kind, given, known in (("form", forms, FORMS), ("objective", objectives, OBJECTIVES)):
        for name in given:
            if name not in known:
                raise unknown_name(kind, name, known)
    rules: list[Mapping[str, Any]] = []
    for objective in objectives:
        numbers = {"max": strengths, "smooth_max": strengths, "at_most": bounds, "at_least": bounds}.get(objective)
        option = "strength" if "max" in objective else "bound"
        rules += [{"objective": objective, option: x} for x in numbers] if numbers else [{"objective": objective}]
    return _make(base, [*_fixed(fixed), *(_learnt(base, form, rule, lr) for form in forms for rule in rules)])


def design_arms(
    base: TrainConfig,
    *,
    factors: Sequence[str] | None = None,
    fixed: Sequence[float] = DESIGN_FIXED,
    own_norm: str | None = "batch_uncentered",
    lr: float = ExponentConfig.lr,
) -> Arms:
    """The control "bcos" and arms that change one thing of it, or are the baseline.

    What the control has already is no arm of its own: of MaxOut 1 and 2 the other one is.

    Args:
        base: The control, of variant "bcos".
        factors: Of :data:`FACTORS`, what is changed; None for all.
        fixed: Fixed exponents, at least 1.
        own_norm: The norm that the network has where ``base`` names none; None if it is not among those tried.
        lr: Learning rate of learnt exponents.

    Raises:
        InputError: On an unknown factor, or a number that no run can have.

    Example:
        >>> list(design_arms(TrainConfig(), factors=["max_out", "loss", "baseline"]))
        ['bcos', 'MaxOut 2', 'cross-entropy', 'baseline', 'baseline cross-entropy']
    """
    makers: dict[str, Callable[[], list[_Change]]] = {
        "exponent": lambda: [*_fixed(fixed), *(_learnt(base, form, {}, lr) for form in FORMS)],
        "max_out": lambda: [(f"MaxOut {n}", {"max_out": n}) for n in (1, 2)],
        "norm": lambda: [(f"norm {n}", {"norm": n}) for n in _NORMS if n != (base.norm or own_norm)],
        "encoding": lambda: [
            (f"encoding {n}", {"encoding": n}) for n in ("inverse", "standardised") if n != (base.encoding or "inverse")
        ],
        "bias": lambda: [("no biases" if base.bias else "biases", {"bias": not base.bias})],
        "loss": lambda: [(_LOSSES[_other_loss(base)], {"loss": _other_loss(base)})],
        "detach": lambda: [("not detached" if base.detach else "detached", {"detach": not base.detach})],
        "baseline": lambda: list(_baselines(base)),
    }
    assert tuple(makers) == FACTORS
    for name in factors or ():
        if name not in makers:
            raise unknown_name("factor", name, makers)
    changes = [change for name, make in makers.items() if factors is None or name in factors for change in make()]
    return _make(base, [(CONTROL, {}), *changes])


FACTORS = ("exponent", "max_out", "norm", "encoding", "bias", "loss", "detach", "baseline")
"""What a design ablation changes."""


def rule_text(exponent: ExponentConfig) -> str:
    """What a learnt exponent answers to besides the loss, in words; empty for nothing.

    Example:
        >>> rule_text(ExponentConfig(learn="layer", objective="at_least", bound=1.5))
        'at least 1.5'
    """
    if exponent.objective == "none":
        return ""
    number = exponent.strength if "max" in exponent.objective else exponent.bound
    return f"{exponent.objective.replace('_', ' ')} {number:.12g}"


def _fixed(values: Sequence[float]) -> list[_Change]:
    return [(f"B {b:.12g}", {"b": b}) for b in values]


def _learnt(base: TrainConfig, form: str, rule: Mapping[str, Any], lr: float) -> _Change:
    exponent = dataclasses.replace(base.exponent, learn=form, lr=lr, **rule)
    shared = "global" if form == "global" else f"by {form}"
    return f"B {shared} {rule_text(exponent)}".rstrip(), {"exponent": to_dict(exponent)}


def _other_loss(base: TrainConfig) -> str:
    return "bce" if base.loss == "cross_entropy" else "cross_entropy"


def _baselines(base: TrainConfig) -> Iterator[_Change]:
    """The baseline with the control's loss and the other one, without what belongs to B-cos networks alone."""
    usual = TrainConfig()
    plain = {name: getattr(usual, name) for name in ("b", "max_out", "bias", "detach", "encoding")}
    plain |= {"variant": "baseline", "exponent": to_dict(usual.exponent)}
    yield "baseline", plain
    yield f"baseline {_LOSSES[_other_loss(base)]}", {**plain, "loss": _other_loss(base)}


def _change(base: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    return from_dict(TrainConfig, overlay(to_dict(base), changes))


def _make(base: TrainConfig, changes: Sequence[_Change]) -> Arms:
    """The arms, each configuration once."""
    arms: Arms = {}
    for name, change in changes:
        try:
            config = _change(base, change)
        except InputError as error:
            raise InputError(f"arm {name}: {error}") from None
        if config not in arms.values():
            arms[name] = config
    return arms
