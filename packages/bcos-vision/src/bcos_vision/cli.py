"""``bcos-vision``: the entry point and the table of its commands."""

import sys
from collections.abc import Sequence

from bcos_core.run.command import run_command

from .commands.check import check
from .commands.evaluate import evaluate
from .commands.explain import explain
from .commands.export import export
from .commands.models import models
from .commands.train import train

COMMANDS = {
    "train": ("train a classifier, score it, explain it, keep the run", train),
    "evaluate": ("score a model on held-out images, class by class", evaluate),
    "explain": ("explain what a model sees in pictures, one or a folder of them", explain),
    "check": ("say whether a model's explanations are exact, and which modules break them", check),
    "export": ("write a model, or it with its explanations, for other runtimes", export),
    "models": ("list the models", models),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    run_command("bcos-vision", COMMANDS, sys.argv[1:] if argv is None else argv, _version)


def _version() -> str:
    from importlib.metadata import version

    import torch
    from bcos_core.functional import kernel_report

    return f"bcos-vision {version('bcos-vision')}, torch {torch.__version__}\nkernels: {kernel_report()}"


if __name__ == "__main__":
    main()
