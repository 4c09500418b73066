"""``bcos-eval``: the entry point and the table of its commands."""

import importlib
import sys
from collections.abc import Sequence
from functools import partial

from bcos_core.run.command import Command, run_command

_HELP = {
    "crossval": "train every arm on every fold, compare them, write the report",
    "ablate": "sweep B and learn it, or change one choice at a time: accuracy, localisation, one table",
    "compare": "test a finished study again: other metric, contrasts, ROPE",
    "worker": "work on a study's units; as many as wanted, on any machine that reaches its queue",
    "tune": "search for the best options inside the training data",
    "attribute": "draw what attribution methods say of pictures, method by method",
    "localise": "score where explanations point: grid pointing game, boxes, DiFull",
    "report": "write a study's page, tables and figures again",
}


def _load(name: str, argv: Sequence[str]) -> None:
    # each command's module names its function; nothing heavy is imported for another's sake
    getattr(importlib.import_module(f".commands.{name}", "bcos_eval"), name)(argv)


COMMANDS: dict[str, tuple[str, Command]] = {name: (text, partial(_load, name)) for name, text in _HELP.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    run_command("bcos-eval", COMMANDS, sys.argv[1:] if argv is None else argv, _version)


def _version() -> str:
    from importlib.metadata import version

    return f"bcos-eval {version('bcos-eval')}, captum {version('captum')}, optuna {version('optuna')}"


if __name__ == "__main__":
    main()
