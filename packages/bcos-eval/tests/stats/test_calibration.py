"""The simulation itself, small: it must catch a test that is off."""

import numpy as np
import pytest
from bcos_eval.design import Design
from bcos_eval.stats.calibration import (
    _count_power,
    assumed_study,
    calibrate,
    count_rejections,
    fold_correlation,
    halves_study,
    main,
)

FOLDS = Design(5)


def assumed(n, design=FOLDS):
    rng = np.random.default_rng(0)
    return [assumed_study(design, rng) for _ in range(n)]


def test_the_default_test_keeps_its_level_and_the_naive_one_does_not():
    corrected, naive, *_ = count_rejections(assumed(1500), FOLDS)
    assert (corrected.what, naive.what) == ("corrected resampled t", "paired t")
    low, high = corrected.interval
    assert low < 0.05 < high
    assert 0.04 < corrected.rate < 0.06
    assert naive.interval[0] > 0.1


def test_seeds_keep_their_level_paired_or_not():
    seeds = Design(1, 1, tuple(range(6)))
    for paired in (True, False):
        default, *_ = count_rejections(assumed(1500, seeds), seeds, paired=paired)
        assert default.interval[0] < 0.05 < default.interval[1]


def test_the_simulated_folds_are_as_correlated_as_was_asked():
    assert fold_correlation(assumed(4000)) == pytest.approx(1 / 5, abs=0.02)


def test_a_true_difference_is_found_more_often():
    assert count_rejections([(arm + 3, control) for arm, control in assumed(200)], FOLDS)[0].rate > 0.5


def test_detectable_differences_of_two_seeds_are_found_in_four_of_five_studies():
    """Welch's own degrees of freedom lie between 1 and 2 here; by 2 (n - 1) of them, half were found."""
    found = _count_power(Design(1, 1, (0, 1)), False, 600, 0)
    assert (found.what, found.rate) == ("Welch t", pytest.approx(0.8, abs=0.05))


def test_real_arms_are_as_good_as_each_other():
    rng = np.random.default_rng(1)
    d = np.array([np.subtract(*halves_study(Design(5), rng)).mean() for _ in range(40)])
    assert abs(d.mean()) < 3 * d.std() / np.sqrt(40)
    assert d.std() > 0.01  # and yet differ on any one data set


def test_the_page_is_made_of_what_was_counted(tmp_path, capsys):
    main(["--studies", "4", "--data_sets", "2", "--out", str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text()
    assert capsys.readouterr().out.strip() == page.strip()
    count = calibrate(4, 2)["assumed"][0]
    assert f"| 10x5-fold | **corrected resampled t** | {100 * count.rate:.1f}% |" in page
