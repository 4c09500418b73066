"""``bcos-ode``: the entry point and the table of its commands."""

import sys
from collections.abc import Sequence

from bcos_core.run.command import run_command

from .commands.evaluate import evaluate
from .commands.explain import explain
from .commands.systems import systems
from .commands.train import train

COMMANDS = {
    "train": ("fit dynamics, a regression or an image classifier; score it, account for it, keep the run", train),
    "evaluate": ("score a run's model again: longer, from other starts, by another solver", evaluate),
    "explain": ("account for a run's model: what drives each output, and how exactly that is known", explain),
    "systems": ("list the systems, with their equations", systems),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    run_command("bcos-ode", COMMANDS, sys.argv[1:] if argv is None else argv, _version)


def _version() -> str:
    from importlib.metadata import version

    import torch
    from bcos_core.functional import kernel_report

    return f"bcos-ode {version('bcos-ode')}, torch {torch.__version__}\nkernels: {kernel_report()}"


if __name__ == "__main__":
    main()
