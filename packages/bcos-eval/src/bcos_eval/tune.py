"""Choosing options by trials, inside the training samples alone.

A trial trains once on each inner fold and is worth the mean; after each fold it is compared with the best trial on the
same folds, and given up where it is worse (Wilcoxon's signed-rank test).
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from bcos_core.run.seed import derive_seed

from .queue import Attempt, UnitQueue
from .space import make_pruner, make_sampler, suggest
from .study import Job, Search, Study, Tuning, Unit

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
    for _ in range(search.trials):
        trial = inner.ask()
        options = suggest(trial, search.space)
        value, pruned = _value(
            trial, search, study.metric, lambda fold, options=options: train(study.inner_job(unit, options, fold))
        )
        if pruned:
            inner.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            inner.tell(trial, value)
    best = inner.best_trial
    result = train(study.job(unit, best.params))
    return {**result, "options": best.params, "inner_value": best.value}


def run_trial(queue: UnitQueue, attempt: Attempt, train: Train) -> dict[str, Any]:
    """One trial of a tuning: options as the sampler proposes, or as an interrupted attempt had them."""
    plan = queue.plan
    assert isinstance(plan, Tuning)
    trial = queue.trial(attempt, sampler_seed=derive_seed(plan.seed, "trial", attempt.number) % 2**32)
    options = suggest(trial, plan.search.space)
    value, pruned = _value(
        trial, plan.search, plan.metric, lambda fold: train(plan.inner_job(attempt.unit, options, fold))
    )
    return {"options": options, "value": value, "pruned": pruned}


def _value(
    trial: "optuna.Trial", search: Search, metric: str, train: Callable[[int], Mapping[str, Any]]
) -> tuple[float, bool]:
    """Mean over the folds, and whether it was given up before the last."""
    values: list[float] = []
    for fold in range(search.folds):
        result = train(fold)
        if metric not in result["metrics"]:
            raise UnitFailed(f'no metric "{metric}"; there are {", ".join(sorted(result["metrics"]))}')
        values.append(float(result["metrics"][metric]))
        trial.report(values[-1], fold)
        if fold + 1 < search.folds and trial.should_prune():
            return sum(values) / len(values), True
    return sum(values) / len(values), False


def _direction(metric: str) -> Literal["maximize", "minimize"]:
    from .stats import higher_is_better

    return "maximize" if higher_is_better(metric) else "minimize"
