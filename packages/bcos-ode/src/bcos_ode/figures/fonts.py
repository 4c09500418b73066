"""Fonts for names in any script, where the machine has them."""

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator

import matplotlib as mpl
from matplotlib import font_manager

_WIDE = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Tamil"),
)
"""Of scripts that Matplotlib's own font lacks."""


class MissingLetters(UserWarning):
    """Letters that no installed font has."""

    def __init__(self, letters: Iterable[str]) -> None:
        self.letters = tuple(letters)
        text = f"pictures: no installed font has {' '.join(self.letters)}"
        super().__init__(f"{text}; they show boxes there (Noto Sans CJK has most)")


@contextlib.contextmanager
def fonts_for_names() -> Iterator[None]:
    """Draw, and write, figures inside: letters that Matplotlib's own font lacks come from others that are installed.

    One warning says which letters no font has, in place of one for each letter and picture.
    """
    installed = set(font_manager.get_font_names())
    family = [*mpl.rcParams["font.family"], *(name for name in _WIDE if name in installed)]
    with mpl.rc_context({"font.family": family}), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing: dict[str, None] = {}  # in their order
    for found in caught:
        if isinstance(found.message, MissingLetters):  # of a context within this one
            missing |= dict.fromkeys(found.message.letters)
        elif letter := re.match(r"Glyph (\d+) \(.*missing from font", str(found.message), re.DOTALL):
            missing[chr(int(letter[1]))] = None
        else:
            warnings.warn_explicit(found.message, found.category, found.filename, found.lineno)
    if missing:
        warnings.warn(MissingLetters(missing), stacklevel=3)
