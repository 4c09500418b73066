"""What a search found: trials in order, a picture, and the command that trains with the best."""

import json
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

import pandas as pd
from bcos_core.run.config import flatten, flatten_values
from bcos_core.run.error import InputError
from bcos_core.run.tracking import log_summary

from .figures.trials import draw_trials
from .queue import UnitQueue
from .stats import higher_is_better
from .studies.adapter import load_adapter
from .study import Tuning, study_folder

_SHOWN = 5


def conclude(queue: UnitQueue) -> pathlib.Path:
    """Write a search's table and picture, keep them in MLflow, and print the best trials; returns the table's path.

    Raises:
        InputError: If no trial is done, or the queue is a study's.
    """
    plan = queue.plan
    if not isinstance(plan, Tuning):
        raise InputError(f"{plan.name} is a study, not a search: bcos-eval crossval --resume {plan.name}")
    states = queue.states()
    rows = [
        {"trial": s.unit.repeat, plan.metric: s.result["value"], "pruned": s.result["pruned"], **s.result["options"]}
        for s in states
        if s.state == "done"
    ]
    if not any(not row["pruned"] for row in rows):
        reasons = {s.reason for s in states if s.state == "failed"}
        raise InputError(f"no trial of {plan.name} is done: {'; '.join(sorted(reasons)) or 'none has run'}")
    table = pd.DataFrame(rows)
    # a pruned trial's mean is of fewer folds: it stands below those that were not
    table = table.sort_values(["pruned", plan.metric], ascending=[True, not higher_is_better(plan.metric)])
    folder = study_folder(plan.name) / "search"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "trials.csv"
    table.to_csv(path, index=False)
    draw_trials(table, plan.metric, tuple(plan.search.space), folder / "trials.png", title=plan.name)
    best = table.iloc[0]
    log_summary(plan.experiment, "search", folder, {f"best/{plan.metric}": float(best[plan.metric])})
    # of the result, not of the table, where a choice of none is not a number
    chosen = next(s.result["options"] for s in states if s.unit.repeat == best["trial"])
    _say(plan, table, len(states), path, chosen)
    return path


def train_command(plan: Tuning, chosen: Mapping[str, Any]) -> str:
    """The command line that trains with the options of a search and those that it chose.

    Args:
        plan: The search.
        chosen: Values of the options of its space, by dotted name.

    Raises:
        InputError: If there is no such preset or data any more.
    """
    adapter, values = load_adapter(plan.package), flatten_values(dict(plan.values))
    usual = flatten(adapter.recipe(plan.preset, values.get("data")))
    fixed = {name: value for name, value in values.items() if name == "data" or value != usual[name]}
    words = [adapter.program, "train", *([plan.preset] if plan.preset else [])]
    return " ".join([*words, *(_option(name, value) for name, value in {**fixed, **chosen}.items())])


def _say(plan: Tuning, table: pd.DataFrame, planned: int, path: pathlib.Path, chosen: Mapping[str, Any]) -> None:
    pruned = sum(table["pruned"].tolist())
    print(
        f"{plan.name}: {len(table)} of {planned} trials, {pruned} of them given up early; {plan.metric} is the mean "
        f"over {plan.search.folds} inner folds, the test was not looked at"
    )
    print(table.drop(columns="pruned").head(_SHOWN).to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    here = pathlib.Path.cwd()
    shown = path.parent.relative_to(here) if path.is_relative_to(here) else path.parent
    print(f"saved {shown}/trials.csv and trials.png")
    print(f"next: {train_command(plan, chosen)}   (the search's own value is optimistic, the test's is not)")


def _option(name: str, value: Any) -> str:
    """An option with its value, as the command line and the shell take them.

    Example:
        >>> _option("b", 1.5), _option("norm", None), _option("windows.lengths", [5, 20]), _option("shift", -1e-5)
        ('--b 1.5', '--norm null', "--windows.lengths '[5, 20]'", '--shift=-1e-05')
    """
    word = shlex.quote(value if isinstance(value, str) else json.dumps(value))
    return f"--{name}{'=' if word.startswith('-') else ' '}{word}"
