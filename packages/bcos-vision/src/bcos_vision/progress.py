"""A bar over things that take a while, on a terminal; nothing in a log."""

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import progress
from rich.console import Console

T = TypeVar("T")


def track(items: Iterable[T], text: str, total: int) -> Iterator[T]:
    """Iterate over ``items`` behind a bar on standard error that disappears when it is done."""
    console = Console(stderr=True)
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # of processes that train together one speaks
    quiet = not (first and console.is_terminal)
    yield from progress.track(items, text, total, console=console, transient=True, disable=quiet)
