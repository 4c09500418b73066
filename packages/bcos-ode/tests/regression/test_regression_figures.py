"""What pictures of a regression show adds up, too."""

import dataclasses

import numpy as np
import pytest
from bcos_ode.figures.regression import _first_line, _terms, draw_contributions, draw_predictions, draw_series
from bcos_ode.regression import Contributions


@pytest.fixture
def found():
    random = np.random.default_rng(0)
    values, rest = random.normal(size=(6, 2, 15)), random.normal(size=(6, 2))
    channels = (*(f"x{k}" for k in range(14)), "1")
    predictions = values.sum(-1) + rest
    predictions[:, 1] += 3.0
    return Contributions(channels, values, rest, predictions, 3.0)


def test_drawn_terms_are_all_of_a_prediction(found):
    for output, ends in ((0, ["3 others", "biases"]), (1, ["3 others", "biases", "unaccounted"])):
        names, terms = _terms(found, output)
        assert names[12:] == ends
        np.testing.assert_allclose(terms.sum(1), found.predictions[:, output])
        sizes = np.abs(terms[:, :12]).mean(0)
        assert (np.diff(sizes) <= 0).all()
        k = found.channels.index(names[0])
        np.testing.assert_array_equal(terms[:, 0], found.values[:, output, k])


def test_names_are_drawn_as_they_are(found, tmp_path):
    """Dollars, which begin a formula, an underscore, which hides from legends, and five outputs of which four fit."""
    names = ["_a", "US$", "$\\frac$", *(f"temperature of the reactor {k}" for k in range(11))]
    of_five = dataclasses.replace(
        found,
        channels=(*names, "1"),
        values=np.tile(found.values[:, :1], (1, 5, 1)),
        remainder=np.zeros((6, 5)),
        predictions=np.tile(found.predictions[:, :1], 5),
    )
    outputs, rows = [f"$y_{k}$" for k in range(4)] + ["$\\sqrt$"], np.arange(6)
    draw_contributions(
        of_five, np.ones((6, 14)), of_five.predictions, names, outputs, tmp_path / "c.png", title="$\\a$"
    )
    draw_series(of_five, rows * 1.0, of_five.predictions, rows, outputs, tmp_path / "s.png", title="$\\a$")
    draw_predictions(of_five.predictions, of_five.predictions, outputs, tmp_path / "p.png", title="$\\a$")
    assert len(list(tmp_path.glob("*.png"))) == 3
    assert _first_line("t $\\a$", outputs) == r"t \$\a\$; the first 4 of 5 outputs"


def test_many_channels_can_be_drawn(found, tmp_path):
    inputs = np.ones((6, 14))
    draw_contributions(found, inputs, found.predictions, found.channels[:14], ["u", "v"], tmp_path / "c.png", title="t")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
