from dataclasses import replace

import numpy as np
import pytest
from bcos_eval.figures import draw_differences, draw_intervals, draw_posterior


def artists(axes, gid):
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def test_differences_are_the_contrasts(compare, tmp_path):
    comparison = compare(3, 5)
    axes = draw_differences(comparison, tmp_path / "differences.png").axes[0]
    for c, points in zip(comparison.contrasts, artists(axes, "pairs"), strict=True):
        np.testing.assert_allclose(points.get_offsets()[:, 0], 100 * np.array(c.differences))
    for c, line in zip(comparison.contrasts, artists(axes, "interval"), strict=True):
        np.testing.assert_allclose(line.get_xdata(), [100 * c.low, 100 * c.high])
    (zero,) = artists(axes, "zero")
    assert list(zero.get_xdata()) == [0, 0]
    (rope,) = artists(axes, "rope")
    np.testing.assert_allclose([rope.get_x(), rope.get_width()], [-0.5, 1.0])


def test_p_and_the_number_of_pairs_stand_beside_each_row(compare, tmp_path):
    comparison = compare(3, 5)
    first, second = comparison.contrasts
    contrasts = (replace(first, p_holm=0.0), replace(second, p_holm=float("nan"), differences=()))
    axes = draw_differences(replace(comparison, contrasts=contrasts), tmp_path / "differences.png").axes[0]
    assert [text.get_text() for text in axes.texts] == ["p (Holm) < 0.0001\nn = 5", "no p (Holm)\nnot paired"]


def test_no_band_without_a_rope(compare, tmp_path):
    assert not artists(draw_differences(compare(2, 5, rope=0), tmp_path / "differences.png").axes[0], "rope")


def test_intervals_of_several_metrics_share_rows(compare, tmp_path):
    accuracy, loss = compare(3, 5), compare(3, 5, metric="loss", rope=0.1)
    accuracy = replace(
        accuracy, contrasts=tuple(replace(c, p_holm=0.01 * 9**i) for i, c in enumerate(accuracy.contrasts))
    )
    left, right = draw_intervals([accuracy, loss], tmp_path / "intervals.png").axes
    np.testing.assert_allclose(
        [line.get_xdata() for line in artists(left, "interval")],
        [[100 * c.low, 100 * c.high] for c in accuracy.contrasts],
    )
    np.testing.assert_allclose(
        [line.get_xdata() for line in artists(right, "interval")], [[c.low, c.high] for c in loss.contrasts]
    )
    shown, not_shown = artists(left, "mean")  # p 0.01 and 0.09
    assert shown.get_markerfacecolor() != "white"
    assert not_shown.get_markerfacecolor() == "white"
    with pytest.raises(ValueError, match="expected at least one, got none"):
        draw_intervals([], tmp_path / "none.png")


def test_a_difference_without_an_interval_is_a_mark_alone(compare, tmp_path):
    comparison, nan = compare(2, 5), float("nan")
    (found,) = comparison.contrasts
    still = replace(found, differences=(0.25,) * 5, mean=0.25, low=nan, high=nan, p_holm=nan)
    comparison = replace(comparison, contrasts=(still,))
    for draw in (draw_differences, lambda c, path: draw_intervals([c], path)):
        axes = draw(comparison, tmp_path / "still.svg").axes[0]
        assert np.isnan(artists(axes, "interval")[0].get_xdata()).all()
        assert artists(axes, "mean")[0].get_xdata() == [25]
    assert [text.get_text() for text in axes.texts] == ["+25.00 pp\n(–)"]


def test_posterior_bars_stack_to_one(compare, tmp_path):
    comparison = compare(3, 5)
    axes = draw_posterior(comparison, tmp_path / "posterior.png").axes[0]
    for kind in ("worse", "equivalent", "better"):
        widths = [bar.get_width() for bar in artists(axes, kind)]
        np.testing.assert_allclose(widths, [100 * getattr(c.bayes, kind) for c in comparison.contrasts])
    ends = [bar.get_x() + bar.get_width() for bar in artists(axes, "better")]
    np.testing.assert_allclose(ends, 100)
    without = replace(comparison, contrasts=tuple(replace(c, bayes=None) for c in comparison.contrasts))
    with pytest.raises(ValueError, match="expected contrasts with posterior shares"):
        draw_posterior(without, tmp_path / "none.png")
