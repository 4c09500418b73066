"""A bar over things that take a while, on a terminal; nothing in a log."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import progress
from rich.console import Console

T = TypeVar("T")


def track(items: Iterable[T], text: str, total: int) -> Iterator[T]:
    """Iterate over ``items`` behind a bar on standard error that disappears when it is done."""
    console = Console(stderr=True)
    yield from progress.track(items, text, total, console=console, transient=True, disable=not console.is_terminal)
