"""Choosing options by trials, inside the training samples alone.

A trial trains once on each inner fold and is worth the mean; after each fold it is compared with the best trial on the
same folds, and given up where it is worse (Wilcoxon's signed-rank test).
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from bcos_core.run.seed import derive_seed

from .queue import Attempt, UnitQueue
from .space import make_pruner, make_sampler, suggest
from .study import Job, Study, Tuning, Unit

if TYPE_CHECKING:
    import optuna

Train = Callable[[Job], dict[str, Any]]


class UnitFailed(Exception):
    """A training ended without a result."""


def run_nested(study: Study, unit: Unit, train: Train) -> dict[str, Any]:
    """A unit whose options are chosen first: a search inside its training samples, then the training with the best.

    The trials follow from the unit alone: who goes on with it asks the same ones again, and finds those that were done.
    """
    import optuna

    assert study.search is not None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = derive_seed(unit.training_seed, "search", unit.arm) % 2**32
    inner = optuna.create_study(
        direction=_direction(study.metric),
        sampler=make_sampler(seed),
        pruner=make_pruner(),
    )
    search = study.search
    reason = ""
    for number in range(search.trials):
        trial = inner.ask()
        options = suggest(trial, search.space)
        jobs = [study.inner_job(unit, number, options, fold) for fold in range(search.folds)]
        try:
            value, pruned = _value(trial, jobs, study.metric, train)
        except UnitFailed as error:  # options that cannot be trained with are a bad choice, no end of the search
            reason = str(error)
            inner.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        if pruned:
            inner.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            inner.tell(trial, value)
    if not any(t.state == optuna.trial.TrialState.COMPLETE for t in inner.trials):
        raise UnitFailed(f"no trial of its search worked: {reason}")
    best = inner.best_trial
    result = train(study.job(unit, best.params))
    return {**result, "options": best.params, "inner_value": best.value}


def run_trial(queue: UnitQueue, attempt: Attempt, train: Train) -> dict[str, Any]:
    """One trial of a tuning: options as the sampler proposes, or as an interrupted attempt had them."""
    plan = queue.plan
    assert isinstance(plan, Tuning)
    trial = queue.trial(attempt, sampler_seed=derive_seed(plan.seed, "trial", attempt.number) % 2**32)
    options = suggest(trial, plan.search.space)
    jobs = [plan.inner_job(attempt.unit, options, fold) for fold in range(plan.search.folds)]
    value, pruned = _value(trial, jobs, plan.metric, train)
    return {"options": options, "value": value, "pruned": pruned}


def _value(trial: "optuna.Trial", jobs: Sequence[Job], metric: str, train: Train) -> tuple[float, bool]:
    """Mean over the folds, and whether it was given up before the last."""
    values: list[float] = []
    for fold, job in enumerate(jobs):
        result = train(job)
        if metric not in result["metrics"]:
            raise UnitFailed(f'no metric "{metric}"; there are {", ".join(sorted(result["metrics"]))}')
        values.append(float(result["metrics"][metric]))
        if not math.isfinite(values[-1]):
            raise UnitFailed(f"{metric} is {values[-1]} on inner fold {fold}")
        trial.report(values[-1], fold)
        if fold + 1 < len(jobs) and trial.should_prune():
            return sum(values) / len(values), True
    return sum(values) / len(values), False


def _direction(metric: str) -> Literal["maximize", "minimize"]:
    from .stats import higher_is_better

    return "maximize" if higher_is_better(metric) else "minimize"
