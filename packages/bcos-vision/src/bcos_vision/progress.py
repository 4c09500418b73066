"""A bar over things that take a while, on a terminal; in a log a line now and then."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import progress
from rich.console import Console

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 30.0


def track(items: Iterable[T], text: str, total: int) -> Iterator[T]:
    """Iterate over ``items`` behind a bar on standard error that disappears when it is done, or with lines in a log."""
    console = Console(stderr=True)
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # of processes that train together one speaks
    if first and not console.is_terminal:
        yield from _with_lines(items, text, total)
    else:
        yield from progress.track(items, text, total, console=console, transient=True, disable=not first)


def _with_lines(items: Iterable[T], text: str, total: int) -> Iterator[T]:
    began = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            left = (now - began) / done * (total - done)
            print(f"{text} {done}/{total}, about {left:.0f} s left", file=sys.stderr, flush=True)
        yield item
