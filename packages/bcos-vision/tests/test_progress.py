"""Progress in a log: lines now and then, none for what is quick."""

import pytest
from bcos_vision import progress


def test_quick_work_is_silent(capsys):
    assert list(progress.track("abc", "letters", 3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_long_work_says_how_far_it_is(capsys, monkeypatch):
    now = iter([0.0, 0.0, 20.0, 40.0, 50.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    assert list(progress.track("abcd", "letters", 4)) == ["a", "b", "c", "d"]
    assert capsys.readouterr().err == "letters 2/4, about 40 s left\n"


@pytest.mark.parametrize("rank", ["1", "3"])
def test_one_process_speaks(rank, capsys, monkeypatch):
    now = iter([0.0, 0.0, 40.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now, 90.0))
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert list(progress.track("ab", "letters", 2)) == ["a", "b"]
    assert capsys.readouterr().err == ""
