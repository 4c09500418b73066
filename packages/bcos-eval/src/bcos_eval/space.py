"""What a search may choose: options of a training, from what, and how."""

import typing
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bcos_core.run.config import field_types, flatten, from_dict, to_dict
from bcos_core.run.error import InputError, unknown_name

from .study import Search, overlay

if TYPE_CHECKING:
    import optuna

PRUNE_P = 0.13
"""A trial is given up when it is worse than the best with this p: at the earliest when it was worse on all of the first
three folds (p = 1/8), so with at least four folds."""


def read_space(words: Sequence[str], types: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Read a search space from the command line.

    Args:
        words: "optim.lr=1e-4..1e-1:log", "epochs=5..20", "b=1..2.5", "norm=batch|layer", "augment.flip=true|false".
        types: Type of every option that there is, by dotted name (:func:`bcos_core.run.config.field_types`).

    Raises:
        InputError: If an option is unknown, or a range or choice cannot be read.

    Example:
        >>> read_space(["lr=1e-4..1:log", "norm=batch|layer"], {"lr": float, "norm": str})
        {'lr': {'low': 0.0001, 'high': 1.0, 'log': True}, 'norm': {'choices': ['batch', 'layer']}}
    """
    space: dict[str, dict[str, Any]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not text:
            raise InputError(f'--space "{word}": expected OPTION=LOW..HIGH[:log] or OPTION=A|B|C')
        if name not in types:
            raise InputError(f"--space: {unknown_name('option', name, types)}")
        if name in space:
            raise InputError(f"--space: {name} is given twice")
        if ".." in text:
            space[name] = _range(word, text, types[name])
        else:
            space[name] = {"choices": [_value(word, part, types[name]) for part in text.split("|")]}
            if len(set(space[name]["choices"])) < 2:
                raise InputError(f'--space "{word}": one value is no choice')
    if not space:
        raise InputError("--space: nothing to choose (--space optim.lr=1e-4..1e-1:log)")
    return space


def read_search(
    words: Sequence[str],
    trials: int,
    folds: int,
    configs: Mapping[str, Any],
    varied: Collection[str],
) -> Search:
    """A search, from the command line.

    Args:
        words: As of :func:`read_space`.
        trials: How many.
        folds: Inner folds.
        configs: The configuration of every arm: what is chosen has to be alike in all, and possible for each.
        varied: Options that the study sets itself.

    Raises:
        InputError: As :func:`read_space`; if an option is not for the search to choose, an arm sets it or cannot take
            one of its values; on too few trials or folds.
    """
    first = next(iter(configs.values()))
    space = read_space(words, field_types(type(first)))
    for option, value, least in (("trials", trials, 1), ("inner_folds", folds, 2)):
        if value < least:
            raise InputError(f"--{option}: expected at least {least}, got {value}")
    for name, of in space.items():
        if name in varied or name == "data":
            raise InputError(f"--space: {name} is not for a search to choose")
        if len({flatten(config)[name] for config in configs.values()}) > 1:
            raise InputError(f"--space: the arms differ in {name}; a search would make them alike")
        for arm, config in configs.items():
            for value in of.get("choices", (of.get("low"), of.get("high"))):
                try:
                    from_dict(type(config), overlay(to_dict(config), {name: value}))
                except InputError as error:
                    raise InputError(f"--space {name}={value}, arm {arm}: {error}") from None
    return Search(space, trials, folds)


def suggest(trial: "optuna.trial.BaseTrial", space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Let a trial choose a value of every option."""
    chosen: dict[str, Any] = {}
    for name, of in space.items():
        if "choices" in of:
            chosen[name] = trial.suggest_categorical(name, of["choices"])
        elif isinstance(of["low"], int):
            chosen[name] = trial.suggest_int(name, of["low"], of["high"], log=of["log"])
        else:
            chosen[name] = trial.suggest_float(name, of["low"], of["high"], log=of["log"])
    return chosen


def make_sampler(seed: int) -> "optuna.samplers.BaseSampler":
    """What proposes options: tree-structured Parzen estimators, which count trials at work as bad ones."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def make_pruner() -> "optuna.pruners.BasePruner":
    """What gives a trial up: Wilcoxon's signed-rank test against the best trial, fold by fold."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.pruners.WilcoxonPruner(p_threshold=PRUNE_P)


def _range(word: str, text: str, of: Any) -> dict[str, Any]:
    ends, _, kind = text.partition(":")
    number = {int, float} & {of, *typing.get_args(of)}
    if kind not in ("", "log") or not number:
        raise InputError(f'--space "{word}": expected LOW..HIGH or LOW..HIGH:log, of an option that is a number')
    whole = number == {int}
    low, high = (_value(word, end, int if whole else float) for end in _two(word, ends))
    if not low < high or (kind and low <= 0):
        raise InputError(f'--space "{word}": expected LOW < HIGH, and LOW > 0 with :log')
    return {"low": low, "high": high, "log": bool(kind)}


def _two(word: str, ends: str) -> list[str]:
    parts = ends.split("..")
    if len(parts) != 2:
        raise InputError(f'--space "{word}": expected LOW..HIGH, two numbers')
    return parts


def _value(word: str, text: str, of: Any) -> Any:
    """A value of the option's type."""
    kinds = (of, *typing.get_args(of))
    if typing.get_origin(of) is typing.Literal:
        if text not in kinds[1:]:
            raise InputError(f'--space "{word}": expected some of {", ".join(map(str, kinds[1:]))}, got "{text}"')
        return text
    if type(None) in kinds and text in ("none", "null"):
        return None
    if bool in kinds:
        if text not in ("true", "false"):
            raise InputError(f'--space "{word}": expected true or false, got "{text}"')
        return text == "true"
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                what = "whole numbers" if kind is int else "numbers"
                raise InputError(f'--space "{word}": expected {what}, got "{text}"') from None
    return text
