import math

import numpy as np
import pytest
from baycomp import CorrelatedTTest
from bcos_eval.stats.posterior import posterior_shares
from bcos_eval.stats.student import corrected_t, paired_t, student_t, welch_t
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

RNG = np.random.default_rng(0)
ARM, CONTROL = 0.95 + 0.01 * RNG.normal(size=10), 0.94 + 0.02 * RNG.normal(size=10)
EXACT = {"rel": 1e-10, "abs": 1e-12}

PARTS = ARM.var(ddof=1) / 10, CONTROL[:6].var(ddof=1) / 6
WELCH = math.sqrt(sum(PARTS)), sum(PARTS) ** 2 / (PARTS[0] ** 2 / 9 + PARTS[1] ** 2 / 5)
"""Standard error and degrees of freedom of ten runs against six (Welch, Biometrika 1947)."""

SLEEP = (
    np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]),
    np.array(
        [
            1.9,
            0.8,
            1.1,
            0.1,
            -0.1,
            4.4,
            5.5,
            1.6,
            4.6,
            3.4,
        ]  # hours of sleep gained by two drugs; Student, Biometrika 1908
    ),
)


def test_students_sleep_data():
    paired = paired_t(*SLEEP)
    assert (round(paired.statistic, 4), paired.df, round(paired.p, 6)) == (-4.0621, 9, 0.002833)
    assert [round(x, 4) for x in paired.interval()] == [-2.4599, -0.7001]
    welch = welch_t(*SLEEP)
    assert (round(welch.statistic, 4), round(welch.df, 3), round(welch.p, 5)) == (-1.8608, 17.776, 0.07939)
    assert [round(x, 4) for x in welch.interval()] == [-3.3655, 0.2055]
    assert round(student_t(*SLEEP).p, 5) == 0.07919


@pytest.mark.parametrize(
    ("mine", "scipys"),
    [
        (paired_t(ARM, CONTROL), stats.ttest_rel(ARM, CONTROL)),
        (welch_t(ARM, CONTROL[:6]), stats.ttest_ind(ARM, CONTROL[:6], equal_var=False)),
        (student_t(ARM, CONTROL[:6]), stats.ttest_ind(ARM, CONTROL[:6])),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_same_as_scipy(mine, scipys):
    assert (mine.statistic, mine.df, mine.p) == pytest.approx((scipys.statistic, scipys.df, scipys.pvalue), **EXACT)
    for confidence in (0.8, 0.99):
        ends = scipys.confidence_interval(confidence)
        assert mine.interval(confidence) == pytest.approx((ends.low, ends.high), **EXACT)


def test_same_as_statsmodels():
    means = CompareMeans(DescrStatsW(ARM), DescrStatsW(CONTROL[:6]))
    assert welch_t(ARM, CONTROL[:6]).interval() == pytest.approx(means.tconfint_diff(usevar="unequal"), **EXACT)
    assert student_t(ARM, CONTROL[:6]).interval() == pytest.approx(means.tconfint_diff(usevar="pooled"), **EXACT)
    assert paired_t(ARM, CONTROL).interval() == pytest.approx(DescrStatsW(ARM - CONTROL).tconfint_mean(), **EXACT)


def test_corrected_t_is_its_formula():
    d = [a - c for a, c in zip(ARM.tolist(), CONTROL.tolist(), strict=True)]
    n, mean = len(d), math.fsum(d) / len(d)
    variance = math.fsum((x - mean) ** 2 for x in d) / (n - 1)
    t = mean / math.sqrt((1 / n + 20 / 80) * variance)
    mine = corrected_t(ARM, CONTROL, ratio=20 / 80)
    assert (mine.statistic, mine.df) == pytest.approx((t, n - 1), **EXACT)
    assert mine.p == pytest.approx(2 * (1 - stats.t.cdf(abs(t), n - 1)), **EXACT)
    half = stats.t.ppf(0.975, n - 1) * mean / t
    assert mine.interval() == pytest.approx((mean - half, mean + half), **EXACT)
    assert corrected_t(ARM, CONTROL, ratio=0).p == pytest.approx(stats.ttest_rel(ARM, CONTROL).pvalue, **EXACT)


def test_baycomp_agrees_with_corrected_t():
    """baycomp knows the ratio of whole folds, 1 / (k - 1), alone; at a ROPE of 0 the smaller share is half of p."""
    mine = corrected_t(ARM, CONTROL, ratio=1 / 4)
    assert 2 * min(CorrelatedTTest.probs(CONTROL, ARM, runs=2)) == pytest.approx(mine.p, **EXACT)
    worse, equivalent, better = CorrelatedTTest.probs(CONTROL, ARM, rope=0.005, runs=2)
    bayes = posterior_shares(mine, 0.005)
    assert (bayes.worse, bayes.equivalent, bayes.better) == pytest.approx((worse, equivalent, better), **EXACT)
    cost = posterior_shares(mine, 0.005, higher_is_better=False)
    assert (cost.worse, cost.better) == (bayes.better, bayes.worse)
    none = posterior_shares(mine, 0)
    assert (none.equivalent, none.worse + none.better) == (0, pytest.approx(1, **EXACT))
    assert 2 * min(none.worse, none.better) == pytest.approx(mine.p, **EXACT)


@pytest.mark.parametrize("rope", [0, 0.005, 0.3])
@pytest.mark.parametrize(
    ("estimate", "se", "df"),
    [
        (corrected_t(ARM, CONTROL, 1 / 4), math.sqrt((1 / 10 + 1 / 4) * (ARM - CONTROL).var(ddof=1)), 9),
        (welch_t(ARM, CONTROL[:6]), *WELCH),
    ],
    ids=["folds", "Welch"],
)
def test_posterior_shares_are_those_of_a_t_distribution(estimate, se, df, rope):
    bayes = posterior_shares(estimate, rope)
    mean = ARM.mean() - (CONTROL if df == 9 else CONTROL[:6]).mean()
    below, above = (float(stats.t.cdf((-rope - sign * mean) / se, df)) for sign in (1, -1))
    assert (bayes.worse, bayes.better) == pytest.approx((below, above), **EXACT)
    assert bayes.equivalent == pytest.approx(1 - below - above, **EXACT)
    assert bayes.rope == rope


SCORES = st.lists(st.tuples(*[st.floats(0, 1)] * 2), min_size=3, max_size=12)


@given(SCORES, st.sampled_from([paired_t, welch_t, student_t, lambda x, y: corrected_t(x, y, 0.25)]))
def test_swapping_arms_turns_the_sign_and_nothing_else(pairs, test):
    x, y = np.array(pairs).T
    one, other = test(x, y), test(y, x)
    assume(one.se > 0)
    assert (one.mean, one.se, one.df, one.p) == pytest.approx((-other.mean, other.se, other.df, other.p), **EXACT)
    low, high = one.interval()
    assert (-high, -low) == pytest.approx(other.interval(), **EXACT)
    assert (one.p < 0.05) == (low > 0 or high < 0)


@given(SCORES, st.floats(0.01, 1))
def test_correction_never_makes_p_smaller(pairs, ratio):
    x, y = np.array(pairs).T
    naive = paired_t(x, y)
    assume(naive.se > 0)
    assert corrected_t(x, y, ratio).p >= naive.p


@pytest.mark.parametrize("test", [paired_t, welch_t, student_t, lambda x, y: corrected_t(x, y, 0.25)])
def test_what_does_not_vary_has_no_test(test):
    same = np.full(3, 0.1 + 0.2)
    assert (test(same, same.copy()).p, test(same, np.full(3, 0.3)).p) == (1, 1)  # a rounding error apart
    one = test(same, np.full(3, 0.2))
    assert math.isnan(one.p)
    assert np.isnan(one.interval()).all()
    assert test(same, same.copy()).interval() == (0, 0)  # which says only that nothing varied


def test_pairs_that_differ_by_a_constant_do_not_vary_although_rounding_does():
    arm, control = np.array([0.91, 0.87, 0.93, 0.79]), np.array([0.81, 0.77, 0.83, 0.69])
    assert (arm - control).std() > 0
    assert math.isnan(paired_t(arm, control).p)
