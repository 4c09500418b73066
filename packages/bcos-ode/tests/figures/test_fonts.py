"""Letters that no font has are said once, and nothing else is swallowed."""

import io
import warnings

import matplotlib as mpl
import pytest
from bcos_ode.figures.fonts import MissingLetters, fonts_for_names
from matplotlib import font_manager
from matplotlib.figure import Figure

NOWHERE = "\ue0b0\ue0b1"  # of private use: no font of the list has them


def draw(text):
    figure = Figure()
    figure.suptitle(text)
    figure.savefig(io.BytesIO())


def test_missing_letters_are_said_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with fonts_for_names():
            draw(NOWHERE)
            with fonts_for_names():
                draw(NOWHERE[::-1])
            warnings.warn("another", DeprecationWarning, stacklevel=1)
    assert [found.category for found in caught] == [DeprecationWarning, MissingLetters]
    assert caught[1].message.letters == tuple(NOWHERE)


def test_installed_fonts_are_asked(monkeypatch):
    usual = mpl.rcParams["font.family"]
    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["SimHei", "Comic Sans MS"])
    with fonts_for_names():
        assert mpl.rcParams["font.family"] == [*usual, "SimHei"]
    assert mpl.rcParams["font.family"] == usual


def test_what_can_be_written_needs_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fonts_for_names():
            draw("pressure, давление")


def test_errors_pass():
    with pytest.raises(ValueError, match="inside"), fonts_for_names():
        raise ValueError("inside")
