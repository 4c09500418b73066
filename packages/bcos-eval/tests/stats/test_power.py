import math

import numpy as np
import pytest
from bcos_eval.stats.power import power_of, runs_needed, smallest_detectable
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower


@pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
@pytest.mark.parametrize("ratio", [0, 0.25, 1])
def test_power_is_an_integral_over_what_the_sd_may_come_out_as(n, ratio):
    sd = 0.02
    se = sd * math.sqrt(1 / n + ratio)
    detectable = smallest_detectable(se, n - 1)
    critical = stats.t.ppf(0.975, n - 1)
    scale = np.linspace(1e-6, 6, 200_001)  # of the sd over its true value: the other tail is nothing at this distance
    density = stats.chi.pdf(scale * math.sqrt(n - 1), n - 1) * math.sqrt(n - 1)
    found = np.trapezoid(stats.norm.sf(critical * scale - detectable / se) * density, scale)
    assert found == pytest.approx(0.8, abs=1e-6)
    assert power_of(100 * detectable, se, n - 1) == 1
    assert power_of(0, se, n - 1, alpha=0.1) == pytest.approx(0.1)


def test_same_as_statsmodels_own_designs():
    paired = TTestPower().solve_power(nobs=7, alpha=0.01, power=0.9)
    assert smallest_detectable(1 / math.sqrt(7), 6, alpha=0.01, power=0.9) == pytest.approx(paired, rel=1e-6)
    two = TTestIndPower().solve_power(nobs1=7, alpha=0.05, power=0.8)
    assert smallest_detectable(math.sqrt(2 / 7), 12) == pytest.approx(two, rel=1e-6)
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
