"""How many threads small arithmetic gets."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let PyTorch use one thread: a context, or a decorator.

    Layers of some thirty units are too small to share. Where another process wants the cores, threads that wait for one
    another make them four to fifty times slower.

    Example:
        >>> with single_threaded():
        ...     torch.get_num_threads()
        1
    """
    found = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(found)
