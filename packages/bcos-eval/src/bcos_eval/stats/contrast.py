"""One arm against another: the tests that a design calls for, and all that is said beside them."""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ..design import Design
from ..scores import ScoreTable
from .assumption import assumption_notes
from .effect import hedges_g, paired_d
from .five_by_two import five_by_two_f, five_by_two_t
from .interval import cut
from .metric import difference_range, higher_is_better, write_difference
from .permutation import sign_flip
from .posterior import posterior_shares
from .power import runs_needed, smallest_detectable
from .result import Contrast, Power, TestResult
from .student import Estimate, corrected_t, paired_t, round_off, score_scale, student_t, welch_t

_OF_FOLDS = (
    "Folds share training samples, so here it is anticonservative (p can be much too small): to read older papers by."
)
_OF_SEEDS = (
    "Both arms ran with the same seeds on one split: a pair shares its split and, mostly, its order of data, so "
    "pairing takes out what a seed does to both."
)


def estimate_difference(
    arm: Float[np.ndarray, " n"], control: Float[np.ndarray, " m"], *, paired: bool = True, ratio: float | None = None
) -> Estimate:
    """Mean difference by the default test: corrected resampled t of folds, paired t of shared seeds, else Welch's t.

    Args:
        arm: Scores.
        control: Scores; of the same units in the same order, if paired.
        paired: Whether both arms ran on the same folds or seeds.
        ratio: n_test / n_train of folds, which are always paired; None for seeds.
    """
    if ratio is not None:
        return corrected_t(arm, control, ratio)
    if not paired:
        return welch_t(arm, control)
    default = paired_t(arm, control)
    return replace(default, says=f"{default.says} {_OF_SEEDS}")


def run_tests(
    arm: Float[np.ndarray, " n"],
    control: Float[np.ndarray, " m"],
    design: Design,
    *,
    paired: bool = True,
    ratio: float | None = None,
) -> list[TestResult]:
    """All tests that a design allows, first the default; arguments as of :func:`estimate_difference`.

    Beside the default stand, for folds, the naive paired t, sign flips, and of a 5x2 design its own two tests; for
    seeds that both arms ran with, sign flips, Welch's and Student's t; for other seeds, Student's t.

    Example:
        >>> scores = np.array([0.93, 0.95, 0.94, 0.96, 0.95]), np.array([0.92, 0.93, 0.93, 0.95, 0.95])
        >>> [test.name for test in run_tests(*scores, Design(folds=5), ratio=1 / 4)]
        ['corrected resampled t', 'paired t', 'sign-flip permutation']
    """
    default = estimate_difference(arm, control, paired=paired, ratio=ratio).test()
    if not paired:
        return [default, student_t(arm, control).test()]
    differences = round_off(arm - control, score_scale(arm, control))
    flips = sign_flip(differences)
    if ratio is None:
        return [default, flips, welch_t(arm, control).test(), student_t(arm, control).test()]
    naive = paired_t(arm, control).test()
    tests = [default, *(replace(test, says=f"{test.says} {_OF_FOLDS}") for test in (naive, flips))]
    if (design.folds, design.repeats, len(arm)) == (2, 5, 10):
        grid = differences.reshape(5, 2)
        tests += [five_by_two_t(grid), five_by_two_f(grid)]
    return tests


def contrast_of(
    table: ScoreTable,
    metric: str,
    arm: str,
    control: str,
    *,
    rope: float,
    alpha: float,
    planned: int = 1,
    more: tuple[TestResult, ...] = (),
) -> Contrast:
    """Compare two arms of a table that was checked; its p_holm is p until the other contrasts are known.

    Args:
        table: Scores.
        metric: Of what.
        arm: The one.
        control: The other.
        rope: Differences up to this size count as none.
        alpha: Level; the interval has confidence 1 - alpha.
        planned: Contrasts that the level is shared by; power is at alpha / planned, Holm's first step.
        more: Further tests, of predictions.
    """
    values, others = table.values(metric, arm), table.values(metric, control)
    paired = values.index.equals(others.index)
    x, y = values.to_numpy(), others.to_numpy()
    ratio = table.test_train_ratio(arm, control) if table.design.is_crossval else None
    estimate = estimate_difference(x, y, paired=paired, ratio=ratio)
    ends = estimate.interval(1 - alpha)
    low, high = cut(ends, difference_range(metric))
    varies = estimate.se > 0
    sd = float(np.std(x - y, ddof=1)) if paired else math.sqrt((np.var(x, ddof=1) + np.var(y, ddof=1)) / 2)
    power = None
    if varies:
        level = alpha / planned
        needed = runs_needed(rope, sd, ratio=ratio or 0.0, arms=1 if paired else 2, alpha=level) if rope else None
        power = Power(smallest_detectable(estimate.se, estimate.df, alpha=level), needed, level)
    notes = _notes_on_variance(metric, estimate)
    if varies and (low, high) != ends:
        most = write_difference(metric, difference_range(metric)[1]).lstrip("+")
        notes.append(f"the interval by t reaches beyond {most}, the largest difference that there can be: cut there")
    for sample, what in [(x - y, "differences")] if paired else [(x, f"scores of {arm}"), (y, f"scores of {control}")]:
        notes += assumption_notes(sample, what) if varies else []
    if power and rope and ratio and power.needed is None:
        floor = write_difference(metric, math.sqrt(ratio) * sd).lstrip("+")
        notes.append(
            "not even 10 000 folds would find a difference of the size of the ROPE: folds of one data set share "
            f"samples, and the standard error stays above {floor}; that takes more data"
        )
    return Contrast(
        metric=metric,
        arm=arm,
        control=control,
        differences=tuple((x - y).tolist()) if paired else (),
        mean=estimate.mean,
        low=low,
        high=high,
        confidence=1 - alpha,
        estimand=_estimand(table, metric, arm, control, paired=paired),
        default=estimate.name,
        tests=(*run_tests(x, y, table.design, paired=paired, ratio=ratio), *more),
        p=estimate.p,
        p_holm=estimate.p,
        hedges_g=hedges_g(x, y) if student_t(x, y).se > 0 else 0.0 if estimate.mean == 0 else math.nan,
        paired_d=paired_d(x, y) if paired and varies else None,
        bayes=posterior_shares(estimate, rope, higher_is_better=higher_is_better(metric)) if varies else None,
        power=power,
        notes=tuple(notes),
    )


def _notes_on_variance(metric: str, estimate: Estimate) -> list[str]:
    if estimate.se > 0:
        return []
    if estimate.mean == 0:
        return ["all scores of both arms agree: p = 1, and an interval without width says only that nothing varied"]
    size = write_difference(metric, estimate.mean)
    return [f"every difference is {size}: without variance no t test applies, and there is no p and no interval"]


def _estimand(table: ScoreTable, metric: str, arm: str, control: str, *, paired: bool) -> str:
    rows = table.frame[table.frame["arm"].isin([arm, control])]
    train, test = (f"{rows[column].mean():.0f}" for column in ("num_train", "num_test"))
    what = f"Mean difference in {metric}, arm minus control"
    if not table.design.is_crossval:
        runs = "seeds that both arms ran with" if paired else "seeds, other ones for each arm"
        return (
            f"{what}, over {runs} (first weights, order of data) on one split of {train} training and {test} test "
            "samples; the interval covers training again, not other training or test samples."
        )
    seeds = len(table.design.seeds)
    runs = f"the mean of {seeds} seeds" if seeds > 1 else "one seed"
    return (
        f"{what}, over divisions of this data into {train} training and {test} test samples ({table.design.name}, "
        f"{runs} for each fold); the interval covers which samples train and which test, and training's own chance, "
        "for data sets of this size from the same source, not for other sources, sizes or options."
    )
