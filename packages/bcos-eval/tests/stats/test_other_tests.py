"""5x2cv, McNemar, sign flips, effect sizes, ranks: against formulas, SciPy's own calls and published numbers."""

import itertools
import math

import numpy as np
import pytest
from bcos_eval.stats.assumption import assumption_notes
from bcos_eval.stats.effect import hedges_g, paired_d
from bcos_eval.stats.five_by_two import five_by_two_f, five_by_two_t
from bcos_eval.stats.interval import mean_interval
from bcos_eval.stats.permutation import sign_flip
from bcos_eval.stats.predictions import mcnemar
from bcos_eval.stats.ranks import critical_difference, rank_arms
from scipy import integrate, special, stats

RNG = np.random.default_rng(1)
EXACT = {"rel": 1e-10, "abs": 1e-12}


def test_five_by_two_by_hand():
    """s_i² of these rows: 2, 2, 2, 8, 0 (in 1e-4)."""
    differences = np.array([[3, 1], [2, 0], [2, 4], [1, 5], [2, 2]]) / 100
    t, f = five_by_two_t(differences), five_by_two_f(differences)
    assert t.statistic == pytest.approx(3 / math.sqrt(14 / 5), **EXACT)
    assert f.statistic == pytest.approx((9 + 1 + 4 + 0 + 4 + 16 + 1 + 25 + 4 + 4) / (2 * 14), **EXACT)
    assert (t.df, t.p) == (5, pytest.approx(2 * stats.t.cdf(-t.statistic, 5), **EXACT))
    assert f.p == pytest.approx(1 - stats.f.cdf(68 / 28, 10, 5), **EXACT)
    swapped = five_by_two_t(-differences)
    assert (swapped.statistic, swapped.p) == (-t.statistic, t.p)
    assert five_by_two_f(-differences).p == f.p


def test_five_by_two_where_nothing_varies_and_of_another_shape():
    assert five_by_two_t(np.zeros((5, 2))).p == five_by_two_f(np.zeros((5, 2))).p == 1
    assert math.isnan(five_by_two_t(np.ones((5, 2))).p)
    assert math.isnan(five_by_two_f(np.ones((5, 2))).p)
    with pytest.raises(ValueError, match=r"expected shape \(5, 2\).*got \(2, 5\)"):
        five_by_two_t(np.zeros((2, 5)))


def right(both, b, c, neither):
    """Right or wrong of two models, with these counts."""
    arm = np.repeat([True, True, False, False], (both, b, c, neither))
    return arm, np.repeat([True, False, True, False], (both, b, c, neither))


def test_mcnemar_of_a_textbook_table():
    """Approval of a president in two surveys (Agresti, Categorical Data Analysis, 1990, p. 350): 794, 150, 86, 570."""
    test = mcnemar(*right(794, 150, 86, 570))
    assert (test.name, test.df) == ("McNemar", 1)
    assert test.statistic == pytest.approx((abs(150 - 86) - 1) ** 2 / (150 + 86), **EXACT)
    assert test.p == pytest.approx(stats.chi2.sf(63**2 / 236, 1), **EXACT)
    assert "Of 1600 images the arm alone is right on 150, the control alone on 86" in test.says


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (8, 2), (3, 15), (12, 12)])
def test_few_disagreements_are_a_binomial(b, c):
    test = mcnemar(*right(50, b, c, 5))
    assert test.name == "McNemar, exact"
    assert test.p == pytest.approx(stats.binomtest(b, b + c).pvalue if b + c else 1, **EXACT)
    assert test.p == mcnemar(*reversed(right(50, b, c, 5))).p


def test_mcnemar_takes_right_or_wrong_not_classes():
    with pytest.raises(ValueError, match="expected a boolean"):
        mcnemar(np.array([3, 4]), np.array([3, 3]))
    with pytest.raises(ValueError, match=r"got bool \(2,\) and bool \(3,\)"):
        mcnemar(np.ones(2, bool), np.ones(3, bool))


def test_sign_flips_are_all_tried():
    d = RNG.normal(0.5, 1, size=9)
    means = [np.mean(d * np.array(signs)) for signs in itertools.product((-1, 1), repeat=9)]
    p = np.mean([abs(mean) >= abs(d.mean()) - 1e-12 for mean in means])
    test = sign_flip(d)
    assert test.p == pytest.approx(p, **EXACT)
    assert sign_flip(-d).p == pytest.approx(p, **EXACT)
    assert "all 512 patterns" in test.says
    assert "at least 0.0039" in test.says
    assert sign_flip(np.zeros(5)).p == 1


def test_many_sign_flips_are_drawn_and_agree_with_t_of_normal_differences():
    d = RNG.normal(0.4, 1, size=40)
    test = sign_flip(d)
    assert test.p == sign_flip(d).p
    assert sign_flip(d, seed=1).p != test.p
    assert test.p == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)
    assert sign_flip(d + 10).p == 2 / 10_000  # the observed pattern counts: never 0


def test_hedges_g_and_its_correction():
    x, y = RNG.normal(size=5), RNG.normal(1, 2, size=4)
    pooled = math.sqrt((4 * x.var(ddof=1) + 3 * y.var(ddof=1)) / 7)
    d = (x.mean() - y.mean()) / pooled
    assert hedges_g(x, y) == pytest.approx(d * (1 - 3 / (4 * 7 - 1)), **EXACT)
    assert hedges_g(y, x) == pytest.approx(-hedges_g(x, y), **EXACT)
    for n, error in ((2, 0.0134), (5, 0.001)):  # the docstring's errors of the approximation
        m = 2 * n - 2
        exact = math.exp(special.gammaln(m / 2) - special.gammaln((m - 1) / 2)) / math.sqrt(m / 2)
        assert 0 < (1 - 3 / (4 * m - 1)) / exact - 1 < error
    assert paired_d(x[:4], y) == pytest.approx((x[:4] - y).mean() / (x[:4] - y).std(ddof=1), **EXACT)


def test_critical_differences_of_the_published_table():
    """Demšar, JMLR 2006, table 5 (a): q of 2 to 10 methods at 5%."""
    published = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    for k, q in zip(range(2, 11), published, strict=True):
        assert critical_difference(k, 20) == pytest.approx(q * math.sqrt(k * (k + 1) / 120), abs=1e-3)
    assert round(critical_difference(4, 14, alpha=0.1), 1) == 1.1


@pytest.mark.parametrize("alpha", [0.05, 0.005])
@pytest.mark.parametrize("k", [2, 3, 10])
def test_critical_differences_are_quantiles_of_the_range_of_normal_variables(k, alpha):
    """P(range of k < q) = k times the integral of phi(z) (Phi(z) - Phi(z - q))^(k - 1)."""

    def cover(q):
        def density(z):
            return (
                k * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (special.ndtr(z) - special.ndtr(z - q)) ** (k - 1)
            )

        return integrate.quad(density, -9, q + 9, points=[0, q], epsabs=1e-14, epsrel=1e-13, limit=200)[0]

    q = critical_difference(k, 20, alpha) * math.sqrt(2) / math.sqrt(k * (k + 1) / 120)
    assert cover(q * (1 - 1e-10)) < 1 - alpha < cover(q * (1 + 1e-10))
    if k == 2:
        assert q / math.sqrt(2) == pytest.approx(stats.norm.isf(alpha / 2), **EXACT)


@pytest.mark.parametrize("higher", [True, False])
def test_ranks_and_friedman(higher):
    scores = RNG.normal((0, 1, 0, 0), size=(12, 4))
    found = rank_arms(scores, list("abcd"), higher_is_better=higher)
    ranks = {
        arm: np.mean([sum((other > row[i]) == higher for other in row if other != row[i]) + 1 for row in scores])
        for i, arm in enumerate("abcd")
    }
    assert dict(found.ranks) == pytest.approx(ranks, **EXACT)
    assert (found.ranks[0][0] == "b") == higher
    chi2 = 12 * 12 / (4 * 5) * (sum(r**2 for r in ranks.values()) - 4 * 25 / 4)
    assert (found.test.statistic, found.test.df) == (pytest.approx(chi2, **EXACT), 3)
    assert found.test.p == pytest.approx(stats.chi2.sf(chi2, 3), **EXACT)
    assert "Descriptive" in found.test.says
    assert rank_arms(np.ones((5, 3)), list("abc")).test.p == 1


def test_scores_a_rounding_error_apart_share_a_rank():
    scores = np.array([[0.3, 0.1 + 0.2, 0.2], [0.7, 0.7, 0.1], [0.1, 0.1, 0.3]])
    assert scores[0, 0] != scores[0, 1]
    found, exact = rank_arms(scores, list("abc")), rank_arms(np.round(scores, 1), list("abc"))
    assert found == exact
    assert dict(found.ranks)["a"] == dict(found.ranks)["b"] == pytest.approx((1.5 + 1.5 + 2.5) / 3, **EXACT)


def test_intervals_of_an_arms_mean():
    values = RNG.lognormal(size=12)
    t = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert mean_interval(values, confidence=0.9) == pytest.approx((t.low, t.high), **EXACT)
    half = stats.t.ppf(0.975, 11) * math.sqrt((1 / 12 + 0.5) * values.var(ddof=1))
    folds = values.mean() - half, values.mean() + half
    assert mean_interval(values, ratio=0.5) == pytest.approx(folds, **EXACT)
    for still in (0.9, 0.0, 1.0):
        assert np.isnan(mean_interval(np.full(12, still))).all()


def test_an_interval_ends_where_means_do():
    few = np.array([0.9, 0.99, 1.0])
    t = stats.ttest_1samp(few, 0).confidence_interval(0.95)
    assert t.high > 1
    assert mean_interval(few, within=(0, 1)) == pytest.approx((t.low, 1), **EXACT)
    assert mean_interval(1 - few, within=(0, math.inf)) == pytest.approx((0, 1 - t.low), **EXACT)
    assert mean_interval(few - 0.45, within=(0, 1)) == mean_interval(few - 0.45)


def test_notes_on_values():
    x = stats.norm.ppf((np.arange(8) + 0.5) / 8)
    (note,) = assumption_notes(x, "differences")
    assert note.startswith(
        f"differences: Shapiro-Wilk p = {stats.shapiro(x).pvalue:.2g}, nothing against normal (n = 8"
    )
    assert "not normal" in assumption_notes(np.array([0.0, 0, 0.1, 0, 0, 0.1, 0, 9]), "differences")[0]
    assert assumption_notes(x[:4], "scores")[0].startswith("only 4 scores")
    assert assumption_notes(np.full(9, 0.3), "scores") == ["all 9 scores are the same"]
