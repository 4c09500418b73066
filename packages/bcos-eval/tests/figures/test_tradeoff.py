import dataclasses

import numpy as np
import pytest
from bcos_eval.ablation.exponents import ArmExponent
from bcos_eval.figures.tradeoff import FORM_COLOURS, draw_tradeoff

EXPONENTS = {
    "B 2": ArmExponent(2, 2, 2),
    "B 1": ArmExponent(1, 1, 1),
    "learnt": ArmExponent(1.4, 1.1, 1.8, "layer", "max 0.1"),
    "other": ArmExponent(1.2, 1.2, 1.2, "global"),
}


def artists(axes, gid):
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def test_arms_stand_at_their_exponents(compare, tmp_path):
    names = [*EXPONENTS, "baseline"]
    comparisons = [compare(names, 5), compare(names, 5, metric="localisation")]
    path = tmp_path / "tradeoff.png"
    figure = draw_tradeoff(comparisons, EXPONENTS, path, title="all of it")
    assert path.stat().st_size > 1000
    assert len(figure.axes) == 2
    for axes, comparison in zip(figure.axes, comparisons, strict=True):
        mean, sd = (
            {a.arm: 100 * np.mean(a.values) for a in comparison.arms},
            {a.arm: 100 * np.std(a.values, ddof=1) for a in comparison.arms},
        )
        line, bars = axes.containers[0].lines[0], axes.containers[0].lines[2][0]
        np.testing.assert_allclose(line.get_xydata(), [[1, mean["B 1"]], [2, mean["B 2"]]])  # from the left
        ends = [[[b, mean[f"B {b}"] + side * sd[f"B {b}"]] for side in (-1, 1)] for b in (1, 2)]
        np.testing.assert_allclose(bars.get_segments(), ends)
        marks = artists(axes, "learnt")
        np.testing.assert_allclose(
            [mark.get_xydata()[0] for mark in marks], [[1.4, mean["learnt"]], [1.2, mean["other"]]]
        )
        assert [mark.get_color() for mark in marks] == [FORM_COLOURS["layer"], FORM_COLOURS["global"]]
        assert marks[0].get_marker() != marks[1].get_marker()
        np.testing.assert_allclose([bar.get_xdata() for bar in artists(axes, "range")], [[1.1, 1.8], [1.2, 1.2]])
        upright = axes.containers[1].lines[2][0].get_segments()[0]
        np.testing.assert_allclose(upright[:, 1], [mean["learnt"] - sd["learnt"], mean["learnt"] + sd["learnt"]])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["fixed", "learnt, one for all", "learnt by layer", "loss + 0.1 max B", "loss alone"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy (%)", "localisation (%)"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"B"}


def test_a_panel_has_the_arms_that_were_measured(compare, tmp_path):
    accuracy, localisation = compare(["B 2", "learnt"], 5), compare(["B 2", "learnt"], 5, metric="localisation")
    localisation = dataclasses.replace(localisation, arms=localisation.arms[:1])
    left, right = draw_tradeoff([accuracy, localisation], EXPONENTS, tmp_path / "x.png").axes
    assert (len(artists(left, "learnt")), len(artists(right, "learnt"))) == (1, 0)
    (only,) = draw_tradeoff([accuracy], {"B 2": EXPONENTS["B 2"]}, tmp_path / "x.svg").axes
    assert not artists(only, "learnt")
    with pytest.raises(ValueError, match="of arms with exponents, got none"):
        draw_tradeoff([accuracy], {}, tmp_path / "none.png")
    with pytest.raises(ValueError, match="expected at least one"):
        draw_tradeoff([], EXPONENTS, tmp_path / "none.png")
