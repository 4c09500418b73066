"""What pictures of a regression show adds up, too."""

import numpy as np
import pytest
from bcos_ode.figures.regression import _terms, draw_contributions
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


def test_many_channels_can_be_drawn(found, tmp_path):
    inputs = np.ones((6, 14))
    draw_contributions(found, inputs, found.predictions, found.channels[:14], ["u", "v"], tmp_path / "c.png", title="t")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
