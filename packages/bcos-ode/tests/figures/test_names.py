"""Names that fit into a picture can still be told apart; what is left out is the smallest."""

import io
import warnings

import numpy as np
import pytest
from bcos_ode.figures.names import find_largest, find_moving, label_names
from matplotlib.figure import Figure

LONG = [f"concentration of species {k} (mmol/L)" for k in range(30)]


@pytest.mark.parametrize(
    "names", [LONG, [f"{'x' * 40}{k}" for k in range(12)], [f"{k}{'x' * 40}{k}" for k in range(12)]]
)
def test_long_names_stay_different(names):
    found = label_names(names)
    assert len(set(found)) == len(names)
    assert max(map(len, found)) <= 16


def test_what_tells_names_apart_is_kept():
    assert label_names(LONG)[7] == "conc…7 (mmol/L)"
    assert label_names(["short", "_hidden", "US$ and €$"]) == ["short", " _hidden", r"US\$ and €\$"]


def test_matplotlib_writes_what_it_is_given():
    """Without the escapes a formula is a syntax error, and a name with an underscore is missing."""
    figure = Figure()
    axes = figure.subplots()
    for name in label_names(["_x", r"$\frac$"]):
        axes.plot([0, 1], label=name)
    axes.legend()
    figure.savefig(io.BytesIO())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [" _x", r"\$\frac\$"]


def test_the_largest_are_found_in_their_own_order():
    sizes = np.random.default_rng(0).permutation(20.0 + np.arange(20))
    shown, others = find_largest(sizes, 5)
    assert sorted(sizes[shown]) == [35, 36, 37, 38, 39]
    assert (np.diff(shown) > 0).all()
    assert sorted([*shown, *others]) == list(range(20))
    assert [len(part) for part in find_largest(sizes, 19)] == [20, 0]  # a single one has a name
    assert find_largest(np.array([1.0, np.inf, 2.0, 0.0]), 1)[0].tolist() == [1]


def test_variables_that_move_are_found_in_any_unit():
    t = np.linspace(0, 1, 50)
    states = np.stack([np.sin(9 * t), 1e6 + t, 1e-9 * np.cos(9 * t), 0 * t], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_moving(states, 2).tolist() == [0, 2]
