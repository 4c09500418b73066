import itertools
from dataclasses import replace

import numpy as np
import pytest
from bcos_eval.figures import draw_ranks, draw_scatter
from bcos_eval.figures.canvas import COLOURS, mark_style
from bcos_eval.figures.ranks import find_cliques


def test_cliques_are_the_maximal_groups_without_a_difference():
    rng = np.random.default_rng(0)
    for _ in range(50):
        ranks = np.sort(rng.uniform(1, 6, 6)).tolist()
        groups = [set(g) for n in range(2, 7) for g in itertools.combinations(range(6), n)]
        close = [g for g in groups if all(abs(ranks[i] - ranks[j]) < 1.2 for i in g for j in g)]
        maximal = [(min(g), max(g)) for g in close if not any(g < other for other in close)]
        assert find_cliques(ranks, 1.2) == sorted(maximal)


def test_ranks_stand_where_they_are(compare, tmp_path):
    comparison = compare(4, 6)
    figure = draw_ranks(comparison, tmp_path / "ranks.png")
    marks = [artist for artist in figure.axes[0].lines if artist.get_gid() == "rank"]
    np.testing.assert_allclose(sorted(m.get_xdata()[0] for m in marks), sorted(r for _, r in comparison.omnibus.ranks))
    assert "Descriptive" in figure.get_supxlabel()
    with pytest.raises(ValueError, match="three or more paired arms"):
        draw_ranks(compare(2, 5), tmp_path / "none.png")


def test_scatter_has_both_intervals(compare, tmp_path):
    accuracy, localisation = compare(2, 5), compare(2, 5, metric="localisation")
    up = localisation.arms[::-1]
    axes = draw_scatter(accuracy.arms, up, tmp_path / "x.png", metrics=("accuracy", "localisation")).axes[0]
    for container, x, y in zip(axes.containers, accuracy.arms, localisation.arms, strict=True):
        across, upward = (bars.get_segments()[0] for bars in container.lines[2])
        np.testing.assert_allclose(across[:, 0], [100 * x.low, 100 * x.high])
        np.testing.assert_allclose(upward[:, 1], [100 * y.low, 100 * y.high])
    still = replace(accuracy.arms[0], low=float("nan"), high=float("nan"))
    found = [still, accuracy.arms[1]]
    axes = draw_scatter(found, up, tmp_path / "x.png", metrics=("accuracy", "localisation")).axes[0]
    assert axes.containers[0].lines[0].get_xdata() == [100 * still.mean]
    with pytest.raises(ValueError, match="expected the arms of across"):
        draw_scatter(accuracy.arms, up[:1], tmp_path / "none.png", metrics=("accuracy", "localisation"))


def test_colours_next_to_one_another_differ_in_grey():
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16  # CIE L*
    assert np.abs(np.diff(lightness)).min() > 10
    assert len({mark_style(i) for i in range(30)}) == 30
