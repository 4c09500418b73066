import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
from bcos_core.run.error import InputError
from bcos_eval.design import Design
from bcos_eval.scores import ScoreTable
from bcos_eval.stats import compare_arms, higher_is_better, to_lines
from bcos_eval.stats.effect import hedges_g
from bcos_eval.stats.metric import write_difference, write_value
from scipy import stats
from statsmodels.stats.multitest import multipletests

EXACT = {"rel": 1e-10, "abs": 1e-12}
RNG = np.random.default_rng(3)


def make_table(design, metric="accuracy", **arms):
    """Each arm's scores in the order of repeats, folds and seeds."""
    units = list(itertools.product(range(design.repeats), range(design.folds), design.seeds))
    fixed = {"num_train": 80, "num_test": 20, "seconds": 1.0, "run_id": ""}
    rows = [
        {"arm": arm, "repeat": repeat, "fold": fold, "seed": seed, metric: score, **fixed}
        for arm, scores in arms.items()
        for (repeat, fold, seed), score in zip(units, scores, strict=True)
    ]
    return ScoreTable(pd.DataFrame(rows), design)


def draw(n, mean):
    return mean + 0.01 * RNG.normal(size=n)


PLAIN, BCOS, THIRD = draw(10, 0.95), draw(10, 0.94), draw(10, 0.955)
CROSS = make_table(Design(5, 2), plain=PLAIN, bcos=BCOS, third=THIRD)
SEEDS = make_table(Design(1, 1, tuple(range(10))), plain=PLAIN, bcos=BCOS)


def test_folds_are_answered_by_the_corrected_test():
    found = compare_arms(CROSS, "accuracy", rope=0.005)
    assert [(c.arm, c.control) for c in found.contrasts] == [("bcos", "plain"), ("third", "plain")]
    one = found.contrasts[0]
    d = BCOS - PLAIN
    t = d.mean() / math.sqrt((1 / 10 + 1 / 4) * d.var(ddof=1))
    assert (one.default, one.mean) == ("corrected resampled t", pytest.approx(d.mean(), **EXACT))
    assert one.p == pytest.approx(2 * stats.t.sf(abs(t), 9), **EXACT)
    assert one.differences == pytest.approx(tuple(d), **EXACT)
    assert [test.name for test in one.tests] == ["corrected resampled t", "paired t", "sign-flip permutation"]
    assert one.tests[1].p == pytest.approx(stats.ttest_rel(BCOS, PLAIN).pvalue, **EXACT)
    for test in one.tests[1:]:
        assert "independent" in test.says
        assert "Folds share training samples, so here it is anticonservative" in test.says
    assert one.hedges_g == hedges_g(BCOS, PLAIN)
    assert one.paired_d == pytest.approx(d.mean() / d.std(ddof=1), **EXACT)
    assert "80 training and 20 test samples (2x5-fold, one seed for each fold)" in one.estimand
    assert found.omnibus is not None
    assert found.omnibus.test.p == pytest.approx(stats.friedmanchisquare(PLAIN, BCOS, THIRD).pvalue, **EXACT)
    plain = found.arms[0]
    half = stats.t.ppf(0.975, 9) * math.sqrt((1 / 10 + 1 / 4) * PLAIN.var(ddof=1))
    assert (plain.low, plain.high) == pytest.approx((PLAIN.mean() - half, PLAIN.mean() + half), **EXACT)


def test_holm_is_over_the_planned_contrasts():
    found = compare_arms(CROSS, "accuracy", rope=0.005)
    expected = multipletests([c.p for c in found.contrasts], method="holm")[1]
    assert [c.p_holm for c in found.contrasts] == pytest.approx(expected, **EXACT)
    (one,) = compare_arms(CROSS, "accuracy", rope=0.005, contrasts=[("bcos", "third")]).contrasts
    assert (one.arm, one.control, one.p_holm) == ("bcos", "third", one.p)
    turned = compare_arms(CROSS, "accuracy", rope=0.005, control="bcos").contrasts[1]
    assert (turned.mean, turned.low, turned.p) == pytest.approx((-one.mean, -one.high, one.p), **EXACT)


def test_five_by_two_designs_get_their_own_tests_too():
    table = make_table(Design(2, 5), plain=PLAIN, bcos=BCOS)
    (found,) = compare_arms(table, "accuracy", rope=0.005).contrasts
    names = [test.name for test in found.tests]
    assert names[3:] == ["5x2cv t", "5x2cv F"]
    d = (BCOS - PLAIN).reshape(5, 2)
    within = ((d - d.mean(1, keepdims=True)) ** 2).sum(1)
    assert found.tests[3].statistic == pytest.approx(d[0, 0] / math.sqrt(within.mean()), **EXACT)
    short = ScoreTable(table.frame.drop(3), table.design).shared()
    (found,) = compare_arms(short, "accuracy", rope=0.005).contrasts
    assert [test.name for test in found.tests] == names[:3]


@pytest.mark.parametrize(
    ("arm", "p", "flips"),
    [
        (np.array([81, 77, 83, 69, 75, 78, 80, 82, 84, 76]) / 100, math.nan, 2 / 2**10),  # 0.1 below
        (0.9 + np.array([1, -3, 3, -11, -5, -2, 0, 2, 4, -4]) / 100, 1, 1),  # equal
    ],
)
def test_rounding_is_no_variance_in_any_test(arm, p, flips):
    plain = np.array([91, 87, 93, 79, 85, 88, 90, 92, 94, 86]) / 100
    assert len(set((arm - plain).tolist())) > 1
    (found,) = compare_arms(make_table(Design(2, 5), plain=plain, bcos=arm), "accuracy", rope=0).contrasts
    of_name = {test.name: test.p for test in found.tests}
    assert [found.p, of_name["5x2cv t"], of_name["5x2cv F"]] == pytest.approx([p] * 3, nan_ok=True)
    assert of_name["sign-flip permutation"] == flips


def test_seeds_that_both_arms_ran_with_are_paired():
    found = compare_arms(SEEDS, "accuracy", rope=0.005, alpha=0.1)
    (one,) = found.contrasts
    scipys = stats.ttest_rel(BCOS, PLAIN)
    ends = scipys.confidence_interval(0.9)
    assert (one.default, one.p) == ("paired t", pytest.approx(scipys.pvalue, **EXACT))
    assert (one.low, one.high, one.confidence) == pytest.approx((ends.low, ends.high, 0.9), **EXACT)
    assert "same seeds on one split" in one.tests[0].says
    assert "not other training or test samples" in one.estimand
    assert found.interval == "t of the seeds"
    assert found.omnibus is None


def test_other_seeds_are_welch():
    seeds = tuple(range(10))
    table = make_table(Design(1, 1, seeds), plain=PLAIN, bcos=BCOS)
    keep = [*range(4), *range(14, 20)]  # four seeds of plain, the other six of bcos
    table = ScoreTable(table.frame.loc[keep], table.design)
    found = compare_arms(table, "accuracy", rope=0.005)
    (one,) = found.contrasts
    assert one.default == "Welch t"
    assert one.p == pytest.approx(stats.ttest_ind(BCOS[4:], PLAIN[:4], equal_var=False).pvalue, **EXACT)
    assert (one.differences, one.paired_d) == ((), None)
    assert [test.name for test in one.tests] == ["Welch t", "Student t"]
    assert found.interval == "t of the seeds"
    assert any("only 4 scores of plain" in note for note in one.notes)


def test_seeds_of_a_fold_are_averaged():
    noise = np.tile([0.01, -0.01], 10)
    table = make_table(Design(5, 2, (0, 1)), plain=np.repeat(PLAIN, 2) + noise, bcos=np.repeat(BCOS, 2) - noise)
    (found,) = compare_arms(table, "accuracy", rope=0.005).contrasts
    assert found.p == pytest.approx(compare_arms(CROSS, "accuracy", rope=0.005).contrasts[0].p, **EXACT)
    assert "the mean of 2 seeds for each fold" in found.estimand


def test_smaller_is_better_where_the_name_says_so():
    (gain,) = compare_arms(make_table(Design(5, 2), "loss", plain=PLAIN, bcos=BCOS), "loss", rope=0.005).contrasts
    (fall,) = compare_arms(make_table(Design(5, 2), plain=PLAIN, bcos=BCOS), "accuracy", rope=0.005).contrasts
    assert (gain.mean, gain.p) == (fall.mean, fall.p)
    assert (gain.bayes.better, gain.bayes.worse) == (fall.bayes.worse, fall.bayes.better)
    table = make_table(Design(5, 2), "loss", plain=PLAIN, bcos=BCOS, third=THIRD)
    assert compare_arms(table, "loss", rope=0).omnibus.ranks[0][0] == "bcos"


def test_names_of_costs():
    costs = "test/loss val_loss loss_mean completeness_error top5-error field_error errors seconds seconds_per_image"
    costs += " rmse nrmse test/rmse_mean mse mae nll val/nll ece brier_score perplexity cross_entropy max_sensitivity"
    costs += " test/avg_sensitivity deletion_grey Brier MSE max_error avg_loss"
    gains = "accuracy top5_accuracy test/f1 r2 valid_time localisation insertion_grey sensitivity recall glossiness"
    assert [name for name in costs.split() if higher_is_better(name)] == []
    assert [name for name in gains.split() if not higher_is_better(name)] == []


def test_a_column_of_losses_keeps_its_zeros():
    assert [write_value("loss", x) for x in (0.1, 0.1234, 1.5, 1234)] == ["0.1000", "0.1234", "1.500", "1234"]
    assert [write_difference("loss", x) for x in (0.1, -0.01, 2.0, 150)] == ["+0.100", "-0.0100", "+2.00", "+150"]


@pytest.mark.parametrize("table", [CROSS, SEEDS], ids=["folds", "seeds"])
def test_equal_arms_have_p_1_and_a_note(table):
    table = make_table(table.design, plain=PLAIN, bcos=PLAIN, far=PLAIN + 0.25)
    same, far = compare_arms(table, "accuracy", rope=0.005).contrasts
    assert (same.p, same.p_holm, same.mean, same.hedges_g, same.bayes, same.power) == (1, 1, 0, 0, None, None)
    assert "all scores of both arms agree" in same.notes[0]
    assert math.isnan(far.p)
    assert math.isnan(far.p_holm)
    assert "every difference is +25.00 pp: without variance no t test applies" in far.notes[0]
    assert "far - plain" in to_lines(compare_arms(table, "accuracy", rope=0.005))


def test_a_contrast_without_a_test_still_counts_for_holm():
    table = make_table(CROSS.design, plain=PLAIN, bcos=BCOS, far=PLAIN + 0.25)
    bcos, _ = compare_arms(table, "accuracy", rope=0.005).contrasts
    assert bcos.p_holm == pytest.approx(min(1, 2 * bcos.p), **EXACT)


def test_no_interval_where_nothing_varies():
    table = make_table(CROSS.design, plain=PLAIN, far=PLAIN - 0.25, still=np.full(10, 0.75), none=np.zeros(10))
    found = compare_arms(table, "accuracy", rope=0.005, contrasts=[("far", "plain"), ("none", "still")])
    for c in found.contrasts:
        assert math.isnan(c.low)
        assert math.isnan(c.high)
    of_arm = {arm.arm: (arm.low, arm.high) for arm in found.arms}
    assert {arm: bool(np.isnan(ends).all()) for arm, ends in of_arm.items()} == {
        "plain": False,
        "far": False,
        "still": True,
        "none": True,
    }
    assert found.interval.endswith("; none of scores that do not vary")
    lines = to_lines(found).splitlines()
    assert "still  75.00%  –                 0.00 pp  10" in lines
    (row,) = (line for line in lines if line.startswith("far - plain  "))
    assert re.split(r"  +", row)[:4] == ["far - plain", "-25.00 pp", "–", "–"]


def test_intervals_of_shares_end_where_shares_do():
    """By t of three values, 99.33% ± 4.4 points; the difference of 0 and 1 in turn, ± 248 points."""
    design = Design(1, 1, (0, 1, 2))
    high, wild = np.array([0.97, 0.99, 1.0]), np.array([0.0, 1.0, 0.0])
    t = stats.ttest_1samp(high, 0).confidence_interval()
    found = compare_arms(make_table(design, high=high, wild=wild), "accuracy", rope=0.005)
    assert t.high > 1
    assert [(arm.low, arm.high) for arm in found.arms] == [(pytest.approx(t.low, **EXACT), 1), (0, 1)]
    assert found.interval == "t of the seeds, cut at 0.00% and 100.00%, beyond which no mean lies"
    (one,) = found.contrasts
    ends = stats.ttest_rel(wild, high).confidence_interval()
    assert ends.low < -1
    assert (one.low, one.high) == (-1, pytest.approx(ends.high, **EXACT))
    assert "the interval by t reaches beyond 100.00 pp" in one.notes[0]
    assert one.power.detectable > 1
    assert "80% of such studies find a true difference of more than the possible 100.00 pp" in to_lines(found)
    narrow = compare_arms(make_table(design, high=high - 0.4, other=high[::-1] - 0.4), "accuracy", rope=0.005)
    assert narrow.interval == "t of the seeds"
    assert not any("beyond" in note for note in narrow.contrasts[0].notes)


def test_intervals_of_what_has_no_bounds_are_by_t():
    design = Design(1, 1, (0, 1, 2))
    values = np.array([0.97, 0.99, 1.0])
    ends = stats.ttest_1samp(values, 0).confidence_interval()
    for metric, (low, high) in {"loss": ends, "seconds_per_image": ends, "r2": (ends.low, 1)}.items():
        arm, _ = compare_arms(make_table(design, metric, a=values, b=values[::-1]), metric, rope=0).arms
        assert (arm.low, arm.high) == pytest.approx((low, high), **EXACT)
    wide = np.array([0.0, 0.5, 0.0])
    arm, _ = compare_arms(make_table(design, "field_error", a=wide, b=wide[::-1]), "field_error", rope=0).arms
    assert (arm.low, arm.high) == pytest.approx((0, stats.ttest_1samp(wide, 0).confidence_interval().high), **EXACT)


def test_arms_that_never_vary():
    table = make_table(CROSS.design, plain=np.full(10, 0.1 + 0.2), bcos=np.full(10, 0.7), third=PLAIN)
    found = compare_arms(table, "accuracy", rope=0.005)
    assert math.isnan(found.contrasts[0].hedges_g)
    assert math.isfinite(found.contrasts[1].p)
    assert "nan" not in to_lines(found)


def test_power_says_what_is_out_of_reach():
    (one, _) = compare_arms(CROSS, "accuracy", rope=0.001).contrasts
    assert one.power.needed is None
    floor = 100 * math.sqrt(1 / 4) * (BCOS - PLAIN).std(ddof=1)
    assert any(f"the standard error stays above {floor:.2f} pp" in note for note in one.notes)
    (seeds,) = compare_arms(SEEDS, "accuracy", rope=0.001).contrasts
    assert seeds.power.needed > 100
    assert compare_arms(SEEDS, "accuracy", rope=0).contrasts[0].power.needed is None


@pytest.mark.parametrize(("contrasts", "level"), [([("bcos", "plain")], 0.1), (None, 0.05)])
def test_power_is_at_the_level_that_contrasts_share(contrasts, level):
    """Holm's first step of 0.1 over one contrast, and over two."""

    def power(difference, n):
        shift = difference / math.sqrt((1 / n + 1 / 4) * (BCOS - PLAIN).var(ddof=1))
        critical = stats.t.isf(level / 2, n - 1)
        return stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)

    found = compare_arms(CROSS, "accuracy", rope=0.03, alpha=0.1, contrasts=contrasts)
    one = found.contrasts[0].power
    assert one.alpha == level
    assert power(one.detectable, 10) == pytest.approx(0.8, **EXACT)
    assert power(0.03, one.needed - 1) < 0.8 <= power(0.03, one.needed)
    shared = ": 0.1 over 2 contrasts, Holm's first step" if contrasts is None else ""
    assert f"(level {level:g}{shared})" in to_lines(found)


def test_predictions_add_mcnemar():
    right = {arm: RNG.random(500) < share for arm, share in (("plain", 0.9), ("bcos", 0.8))}
    (one,) = compare_arms(SEEDS, "accuracy", rope=0.005, predictions=right).contrasts
    b, c = (int((right[x] & ~right[y]).sum()) for x, y in (("bcos", "plain"), ("plain", "bcos")))
    assert one.tests[-1].p == pytest.approx(stats.chi2.sf((abs(b - c) - 1) ** 2 / (b + c), 1), **EXACT)
    assert f"arm alone is right on {b}, the control alone on {c}" in one.tests[-1].says
    assert "these two fitted models" in one.tests[-1].says
    over_folds = compare_arms(CROSS, "accuracy", rope=0.005, contrasts=[("bcos", "plain")], predictions=right)
    says = over_folds.contrasts[0].tests[-1].says
    assert "pools 5 models of each arm" in says
    assert "training sets overlap, and p takes the images for independent: descriptive." in says
    assert "two fitted models" not in says
    with pytest.raises(InputError, match='predictions: none of "plain"'):
        compare_arms(SEEDS, "accuracy", rope=0.005, predictions={"bcos": right["bcos"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"control": "plian"}, 'unknown arm "plian"; did you mean "plain"'),
        ({"contrasts": [("bcos", "plian")]}, 'unknown arm "plian"; did you mean "plain"'),
        ({"contrasts": [("bcos", "bcos")]}, '"bcos" cannot be compared with itself'),
        ({"contrasts": [("bcos", "plain"), ("plain", "bcos")]}, "one or more pairs of arms, each once"),
        ({"contrasts": []}, "one or more pairs of arms"),
        ({"contrasts": [("bcos", "plain")], "control": "plain"}, "expected one of them"),
        ({"rope": -0.1}, "rope: expected a difference of at least 0, in the unit of accuracy, got -0.1"),
        ({"rope": math.nan}, "rope: .*got nan"),
        ({"alpha": 5}, r"alpha: expected a level in \(0, 1\), got 5"),
    ],
)
def test_mistakes_in_the_plan(options, message):
    with pytest.raises(InputError, match=message):
        compare_arms(CROSS, "accuracy", **{"rope": 0.005, **options})


def test_too_little_to_compare():
    with pytest.raises(InputError, match='needs two arms or more, got only "plain"'):
        compare_arms(make_table(Design(5, 2), plain=PLAIN), "accuracy", rope=0.005)
    with pytest.raises(InputError, match='"plain" has one seed; a comparison needs two or more'):
        compare_arms(make_table(Design(1), plain=[0.9], bcos=[0.8]), "accuracy", rope=0.005)
    with pytest.raises(InputError, match="1 of 30 units are missing"):
        compare_arms(ScoreTable(CROSS.frame.drop(4), CROSS.design), "accuracy", rope=0.005)


def test_an_unfinished_study_says_so():
    found = compare_arms(ScoreTable(CROSS.frame.drop([4, 11]), CROSS.design).shared(), "accuracy", rope=0.005)
    assert len(found.arms[0].values) == 8
    assert "2 of its units are missing, and 4 finished ones are left out" in found.notes[0]
    assert found.notes[0] in to_lines(found)


def test_text_leads_with_the_difference_and_its_interval():
    found = compare_arms(CROSS, "accuracy", rope=0.005)
    lines = to_lines(found).splitlines()
    assert lines[0].startswith("accuracy (higher is better), 2x5-fold")
    (row,) = (line for line in lines if line.startswith("bcos - plain  "))
    one = found.contrasts[0]
    assert re.split(r"  +", row) == [
        "bcos - plain",
        f"{100 * one.mean:+.2f} pp",
        f"[{100 * one.low:+.2f}, {100 * one.high:+.2f}]",
        f"{one.p:.3f}" if one.p >= 0.01 else f"{one.p:.4f}",
        f"{one.p_holm:.3f}" if one.p_holm >= 0.01 else f"{one.p_holm:.4f}",
        f"{one.hedges_g:+.2f}",
        f"{one.bayes.worse:.2f} / {one.bayes.equivalent:.2f} / {one.bayes.better:.2f}",
    ]
    assert sum(line.startswith("Mean difference in accuracy") for line in lines) == 1
    assert sum("studies find" in line for line in lines) == 1
