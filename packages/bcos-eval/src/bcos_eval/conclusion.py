"""From a study's scores to its answer: table, tests, pictures, report."""

from rich.console import Console

from .crossval import Timing, score_table
from .queue import UnitQueue


def conclude(queue: UnitQueue, *, timing: Timing | None, console: Console) -> None:
    """x."""
    table = score_table(queue.states(), queue)
    console.print(table.frame.to_string())
    console.print(timing)
