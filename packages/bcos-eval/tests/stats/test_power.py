import itertools
import math

import numpy as np
import pytest
from bcos_eval.stats.power import power_of, runs_needed, smallest_detectable
from scipy import integrate, optimize, special, stats
from statsmodels.stats.power import TTestIndPower, TTestPower

EXACT = {"rel": 1e-10, "abs": 1e-12}


def power_by_integral(shift, df, critical):
    """Over what the sd may come out as, in units of the true one: chi-square of df, over df, under a root."""
    scale = math.log(2) + df / 2 * math.log(df / 2) - math.lgamma(df / 2)

    def density(s):
        rejected = special.ndtr(shift - critical * s) + special.ndtr(-critical * s - shift)
        return rejected * math.exp(scale - df * s**2 / 2) * s ** (df - 1)

    ends = (0, 0.25, 0.5, 1, 1.5, 2, 3, 5, 8)
    return sum(integrate.quad(density, *pair, epsabs=1e-14, epsrel=1e-13)[0] for pair in itertools.pairwise(ends))


@pytest.mark.parametrize("df", [1, 2, 4, 12.34, 49])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3])
def test_power_is_an_integral_over_what_the_sd_may_come_out_as(df, alpha):
    se, critical = 0.02, stats.t.ppf(1 - alpha / 2, df)
    for shift in (0, 0.5, 2, 5):
        expected = power_by_integral(shift, df, critical)
        assert power_of(shift * se, se, df, alpha=alpha) == pytest.approx(expected, **EXACT)
    shift = smallest_detectable(se, df, alpha=alpha) / se
    below, above = (power_by_integral(shift * (1 + error), df, critical) for error in (-1e-10, 1e-10))
    assert below < 0.8 < above
    assert power_of(0, se, df, alpha=alpha) == pytest.approx(alpha, **EXACT)
    assert power_of(1000 * shift * se, se, df, alpha=alpha) == 1


@pytest.mark.parametrize("df", [2, 9, 98])
def test_same_as_scipys_noncentral_t(df):
    def power(shift):
        critical = stats.t.isf(0.025, df)
        return stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift)

    assert power_of(1.5, 1.0, df) == pytest.approx(power(1.5), **EXACT)
    root = optimize.bisect(lambda shift: power(shift) - 0.8, 1, 8, xtol=1e-13)
    assert smallest_detectable(1.0, df) == pytest.approx(root, **EXACT)


def test_same_as_statsmodels_own_designs():
    paired = smallest_detectable(1 / math.sqrt(7), 6, alpha=0.01, power=0.9)
    assert TTestPower().power(paired, nobs=7, alpha=0.01) == pytest.approx(0.9, **EXACT)
    assert TTestIndPower().power(smallest_detectable(math.sqrt(2 / 7), 12), nobs1=7, alpha=0.05) == pytest.approx(
        0.8, **EXACT
    )
    for d in (0.3, 0.8, 3):
        assert runs_needed(d, 1.0) == max(2, math.ceil(TTestPower().solve_power(effect_size=d, alpha=0.05, power=0.8)))
        independent = TTestIndPower().solve_power(effect_size=d, alpha=0.05, power=0.8)
        assert runs_needed(d, 1.0, arms=2) == max(2, math.ceil(independent))


def test_cohens_table():
    """Cohen, Statistical Power Analysis, 1988, table 2.4.1: n of each group at 5%, two-sided, power 0.8."""
    table = {0.5: 64, 0.8: 26, 1.0: 17}
    assert {d: runs_needed(d, 1.0, arms=2) for d in table} == table


def test_the_number_that_is_needed_is_the_smallest():
    for ratio in (0.0, 0.01):
        n = runs_needed(0.5, 1.0, ratio=ratio)
        assert n is not None
        powers = [power_of(0.5, math.sqrt(1 / m + ratio), m - 1) for m in (n - 1, n)]
        assert powers[0] < 0.8 <= powers[1]


def test_folds_have_a_floor_that_no_number_of_repeats_gets_under():
    """As n grows, se falls to sqrt(ratio) sd: found are differences of 1.96 + 0.84 of it, and no smaller ones."""
    ratio = 1 / 4
    limit = float(stats.norm.ppf([0.975, 0.8]).sum()) * math.sqrt(ratio)
    assert runs_needed(0.999 * limit, 1.0, ratio=ratio) is None
    assert 100 < runs_needed(1.01 * limit, 1.0, ratio=ratio) < 10_000
    assert runs_needed(0.999 * limit, 1.0) < 10
    assert runs_needed(1e-3, 1.0) is None


def test_power_by_simulation():
    rng = np.random.default_rng(0)
    x = rng.normal(smallest_detectable(1 / math.sqrt(6), 5), 1, size=(20_000, 6))
    assert (stats.ttest_1samp(x, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)
