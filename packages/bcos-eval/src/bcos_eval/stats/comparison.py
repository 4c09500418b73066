"""A study's planned contrasts, for one metric."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from bcos_core.run.error import InputError, unknown_name
from jaxtyping import Bool
from statsmodels.stats.multitest import multipletests

from ..scores import ScoreTable
from .contrast import contrast_of
from .interval import interval_method, mean_interval
from .metric import higher_is_better, value_range, write_value
from .predictions import mcnemar
from .ranks import rank_arms
from .result import ArmSummary, Comparison, Contrast


def compare_arms(
    table: ScoreTable,
    metric: str,
    *,
    contrasts: Sequence[tuple[str, str]] | None = None,
    control: str | None = None,
    rope: float,
    alpha: float = 0.05,
    predictions: Mapping[str, Bool[np.ndarray, " images"]] | None = None,
) -> Comparison:
    """Compare arms by the tests that their design calls for, adjusted over the planned contrasts (Holm).

    Which test answers is the design's matter (:func:`~bcos_eval.stats.contrast.estimate_difference`), not the data's.

    Args:
        table: Scores of a whole study, or the :meth:`~bcos_eval.scores.ScoreTable.shared` ones of an unfinished one.
        metric: A metric of the table, or "seconds".
        contrasts: Pairs (arm, control), planned before the scores were seen; None compares every arm with ``control``.
        control: An arm; None takes the first. Not together with ``contrasts``.
        rope: Region of practical equivalence: differences up to this size, in the metric's unit (0.005 for half a
            percentage point), count as none. At least 0; chosen beforehand.
        alpha: Level of the tests, in (0, 1); intervals have confidence 1 - alpha.
        predictions: For each arm, whether each test image was predicted right, shape (images,): by one model, or where
            the design has folds, by the model of the image's fold in one repeat. Adds McNemar's test.

    Raises:
        InputError: If the table fails its check; on one arm, one fold or one seed; on unknown or repeated arms in a
            contrast; on a rope or alpha out of range; on predictions that do not go with the arms.

    Example:
        >>> import pandas as pd
        >>> from bcos_eval.design import Design
        >>> unit = dict(repeat=0, seed=0, num_train=8, num_test=2, seconds=1.0, run_id="")
        >>> scores = {"plain": [0.92, 0.93, 0.93, 0.95, 0.95], "bcos": [0.93, 0.95, 0.94, 0.96, 0.95]}
        >>> rows = [dict(arm=arm, fold=i, accuracy=x, **unit) for arm in scores for i, x in enumerate(scores[arm])]
        >>> (contrast,) = compare_arms(ScoreTable(pd.DataFrame(rows), Design()), "accuracy", rope=0.005).contrasts
        >>> contrast.arm, contrast.control, contrast.default, round(contrast.p, 3)
        ('bcos', 'plain', 'corrected resampled t', 0.103)
    """
    table.check(metric)
    if not 0 <= rope < float("inf"):
        raise InputError(f"rope: expected a difference of at least 0, in the unit of {metric}, got {rope}")
    if not 0 < alpha < 1:
        raise InputError(f"alpha: expected a level in (0, 1), got {alpha}")
    pairs = _plan(table.arms, contrasts, control)
    for arm, count in ((arm, len(table.values(metric, arm))) for arm in table.arms):
        if count < 2:
            unit = "fold" if table.design.is_crossval else "seed"
            raise InputError(f'scores: "{arm}" has one {unit}; a comparison needs two or more, for a variance')
    found = [
        contrast_of(
            table,
            metric,
            arm,
            other,
            rope=rope,
            alpha=alpha,
            planned=len(pairs),
            more=_test_predictions(predictions, arm, other, folds=table.design.folds),
        )
        for arm, other in pairs
    ]
    ratio = {arm: table.test_train_ratio(arm) if table.design.is_crossval else None for arm in table.arms}
    values = {arm: table.values(metric, arm).to_numpy() for arm in table.arms}
    paired = all(contrast.differences for contrast in found)
    better = higher_is_better(metric)
    arms = tuple(_summary(metric, arm, values[arm], ratio[arm], 1 - alpha) for arm in table.arms)
    return Comparison(
        metric=metric,
        higher_is_better=better,
        design=table.design.name,
        rope=rope,
        alpha=alpha,
        arms=arms,
        interval=interval_method(ratio[table.arms[0]]) + _exceptions(metric, arms),
        contrasts=_adjust(found, alpha),
        omnibus=rank_arms(np.stack(list(values.values()), 1), table.arms, higher_is_better=better, alpha=alpha)
        if paired and len(values) > 2
        else None,
        notes=(table.note,) if table.note else (),
    )


def _plan(
    arms: Sequence[str], contrasts: Sequence[tuple[str, str]] | None, control: str | None
) -> Sequence[tuple[str, str]]:
    if len(arms) < 2:
        raise InputError(f'scores: a comparison needs two arms or more, got only "{arms[0]}"')
    if contrasts is not None and control is not None:
        raise InputError("contrasts, control: expected one of them; contrasts name their own controls")
    if contrasts is None:
        control = arms[0] if control is None else control
        contrasts = [(arm, control) for arm in arms if arm != control]
    for pair in contrasts:
        for arm in pair:
            if arm not in arms:
                raise unknown_name("arm", arm, arms)
        if pair[0] == pair[1]:
            raise InputError(f'contrasts: "{pair[0]}" cannot be compared with itself')
    if not contrasts or len({frozenset(pair) for pair in contrasts}) < len(contrasts):
        raise InputError("contrasts: expected one or more pairs of arms, each once")
    return contrasts


def _test_predictions(predictions: Mapping[str, np.ndarray] | None, *pair: str, folds: int) -> tuple:
    if predictions is None:
        return ()
    if absent := [arm for arm in pair if arm not in predictions]:
        raise InputError(f'predictions: none of "{absent[0]}"; expected those of every arm that is compared')
    return (mcnemar(*(predictions[arm] for arm in pair), folds=folds),)


def _summary(metric: str, arm: str, values: np.ndarray, ratio: float | None, confidence: float) -> ArmSummary:
    ends = mean_interval(values, ratio=ratio, confidence=confidence, within=value_range(metric))
    return ArmSummary(arm, tuple(values.tolist()), float(values.mean()), float(values.std(ddof=1)), *ends)


def _exceptions(metric: str, arms: Sequence[ArmSummary]) -> str:
    """Which of the arms' intervals are not as the method makes them."""
    ends = {end for arm in arms for end in (arm.low, arm.high)}
    beyond = " and ".join(write_value(metric, bound) for bound in value_range(metric) if bound in ends)
    text = f", cut at {beyond}, beyond which no mean lies" if beyond else ""
    return text + "; none of scores that do not vary" * any(math.isnan(arm.low) for arm in arms)


def _adjust(contrasts: Sequence[Contrast], alpha: float) -> tuple[Contrast, ...]:
    """Holm over all that were planned: one without a test counts, as the last."""
    p = np.array([contrast.p for contrast in contrasts])
    adjusted = np.array(multipletests(np.where(np.isnan(p), 1.0, p), alpha, method="holm")[1])
    adjusted[np.isnan(p)] = np.nan
    return tuple(replace(contrast, p_holm=float(q)) for contrast, q in zip(contrasts, adjusted, strict=True))
