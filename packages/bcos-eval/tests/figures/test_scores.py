from dataclasses import replace

import numpy as np
import pytest
from bcos_eval.figures import draw_scores
from PIL import Image


def artists(figure, gid):
    return [artist for artist in figure.axes[0].get_children() if artist.get_gid() == gid]


def test_points_and_intervals_are_the_comparisons_in_percent(compare, tmp_path):
    comparison = compare(3, 5)
    figure = draw_scores(comparison, tmp_path / "scores.png")
    for arm, points in zip(comparison.arms, artists(figure, "scores"), strict=True):
        np.testing.assert_allclose(points.get_offsets()[:, 0], 100 * np.array(arm.values))
    for arm, line in zip(comparison.arms, artists(figure, "interval"), strict=True):
        np.testing.assert_allclose(line.get_xdata(), [100 * arm.low, 100 * arm.high])
    for arm, mark in zip(comparison.arms, artists(figure, "mean"), strict=True):
        np.testing.assert_allclose(mark.get_xdata(), [100 * arm.mean])
    assert figure.axes[0].get_xlabel() == "accuracy (%)"
    with Image.open(tmp_path / "scores.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(("values", "violins"), [(9, 0), (10, 2)])
def test_a_violin_takes_ten_values_and_ends_at_the_data(compare, tmp_path, values, violins):
    comparison = compare(2, values)
    bodies = artists(draw_scores(comparison, tmp_path / "scores.png"), "violin")
    assert len(bodies) == violins
    for arm, body in zip(comparison.arms, bodies, strict=False):
        ends = body.get_paths()[0].get_extents()
        np.testing.assert_allclose([ends.x0, ends.x1], [100 * min(arm.values), 100 * max(arm.values)])


def test_scores_that_do_not_vary_are_drawn(compare, tmp_path):
    comparison = compare(2, 10)
    nan = float("nan")
    still = replace(comparison.arms[0], values=(0.9,) * 10, mean=0.9, low=nan, high=nan, sd=0.0)
    figure = draw_scores(replace(comparison, arms=(still, comparison.arms[1])), tmp_path / "scores.png")
    assert (artists(figure, "scores")[0].get_offsets()[:, 0] == 90).all()
    assert [np.isnan(line.get_xdata()).all() for line in artists(figure, "interval")] == [True, False]
    assert [mark.get_xdata()[0] for mark in artists(figure, "mean")] == pytest.approx(
        [90, 100 * comparison.arms[1].mean]
    )


def test_lines_join_the_scores_of_a_fold(compare, tmp_path):
    comparison = compare(4, 5)
    lines = artists(draw_scores(comparison, tmp_path / "scores.png"), "pair")
    scores = 100 * np.array([arm.values for arm in comparison.arms])
    np.testing.assert_allclose([line.get_xdata() for line in lines], scores.T)


def test_nothing_joins_many_arms_or_unpaired_ones(compare, tmp_path):
    assert not artists(draw_scores(compare(5, 5), tmp_path / "scores.png"), "pair")
    assert not artists(draw_scores(compare(2, 5, paired=False), tmp_path / "scores.png"), "pair")


def test_long_and_strange_names_are_shown_whole(compare, tmp_path):
    names = ["a$b$c <&%_ β", "bcos_b=2_max_out=2_" + "very_long_" * 6]
    figure = draw_scores(compare(names, 3), tmp_path / "scores.svg")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert [text.replace("\n", "").replace(r"\$", "$") for text in labels] == names
    # inside the picture
    width = figure.bbox.width
    assert all(0 <= label.get_window_extent().x0 < width for label in figure.axes[0].get_yticklabels())


def test_an_svg_of_the_same_numbers_is_the_same_file(compare, tmp_path):
    for name in ("one.svg", "two.svg"):
        draw_scores(compare(2, 10), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
