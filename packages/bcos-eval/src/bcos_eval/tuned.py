"""What a search found: trials in order, a picture, and the command that trains with the best."""

import pathlib
from typing import Any

import pandas as pd
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
    _say(plan, table, len(states), path)
    return path


def _say(plan: Tuning, table: pd.DataFrame, planned: int, path: pathlib.Path) -> None:
    pruned = sum(table["pruned"].tolist())
    print(
        f"{plan.name}: {len(table)} of {planned} trials, {pruned} of them given up early; {plan.metric} is the mean "
        f"over {plan.search.folds} inner folds, the test was not looked at"
    )
    print(table.drop(columns="pruned").head(_SHOWN).to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    best = table.iloc[0]
    chosen = " ".join(f"--{name} {_word(best[name])}" for name in plan.search.space)
    here = pathlib.Path.cwd()
    shown = path.parent.relative_to(here) if path.is_relative_to(here) else path.parent
    data = f"--data {plan.values['data']} " if "data" in plan.values else ""
    print(f"saved {shown}/trials.csv and trials.png")
    program = load_adapter(plan.package).program
    print(
        f"next: {program} train {data}{chosen}   (with the options of the search; its own value is optimistic, the "
        "test's is not)"
    )


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
