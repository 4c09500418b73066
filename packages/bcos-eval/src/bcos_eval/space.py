"""What a search may choose: options of a training, from what, and how."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bcos_core.run.error import InputError, unknown_name

from .study import Search

if TYPE_CHECKING:
    import optuna

PRUNE_P = 0.13
"""A trial is given up when it is worse than the best with this p: at the earliest when it was worse on all of the first
three folds (p = 1/8), so with at least four folds."""


def read_space(words: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Read a search space from the command line.

    Args:
        words: "optim.lr=1e-4..1e-1:log", "epochs=5..20" (whole numbers), "b=1..2.5", "norm=batch|layer".
        defaults: Every option that there is, dotted, with some value of its type.

    Raises:
        InputError: If an option is unknown, or a range or choice cannot be read.

    Example:
        >>> read_space(["lr=1e-4..1e-1:log", "norm=batch|layer"], {"lr": 0.1, "norm": None})
        {'lr': {'low': 0.0001, 'high': 0.1, 'log': True}, 'norm': {'choices': ['batch', 'layer']}}
    """
    space: dict[str, dict[str, Any]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not text:
            raise InputError(f'--space "{word}": expected OPTION=LOW..HIGH[:log] or OPTION=A|B|C')
        if name not in defaults:
            raise InputError(f"--space: {unknown_name('option', name, defaults)}")
        if name in space:
            raise InputError(f"--space: {name} is given twice")
        space[name] = _range(word, text) if ".." in text else {"choices": [_value(t) for t in text.split("|")]}
        if "choices" in space[name] and len(space[name]["choices"]) < 2:
            raise InputError(f'--space "{word}": one value is no choice')
    if not space:
        raise InputError("--space: nothing to choose (--space optim.lr=1e-4..1e-1:log)")
    return space


def read_search(
    words: Sequence[str], trials: int, folds: int, defaults: Mapping[str, Any], varied: Collection[str]
) -> Search:
    """A search, from the command line.

    Raises:
        InputError: As :func:`read_space`; if an option is not for the search to choose; on too few trials or folds.
    """
    space = read_space(words, defaults)
    for name in space:
        if name in varied or name == "data":
            raise InputError(f"--space: {name} is not for a search to choose")
    for option, value, least in (("trials", trials, 1), ("inner_folds", folds, 2)):
        if value < least:
            raise InputError(f"--{option}: expected at least {least}, got {value}")
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


def _range(word: str, text: str) -> dict[str, Any]:
    ends, _, kind = text.partition(":")
    low, high = (_value(end) for end in ends.split("..", 1))
    if kind not in ("", "log") or isinstance(low, str) or isinstance(high, str):
        raise InputError(f'--space "{word}": expected LOW..HIGH or LOW..HIGH:log, two numbers')
    if not (isinstance(low, int) and isinstance(high, int)):
        low, high = float(low), float(high)
    if not low < high or (kind and low <= 0):
        raise InputError(f'--space "{word}": expected LOW < HIGH, and LOW > 0 with :log')
    return {"low": low, "high": high, "log": bool(kind)}


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
