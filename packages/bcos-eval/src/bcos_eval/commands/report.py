"""``bcos-eval report``: write a study's page again, of whatever is done."""

from collections.abc import Sequence

from bcos_core.run.command import CommandParser


def report(argv: Sequence[str]) -> None:
    parser = CommandParser(
        prog="bcos-eval report", description="Write a study's page, tables and figures again, of whatever is done."
    )
    parser.add_argument("study", type=str, help="name of the study")
    parser.add_argument("--queue", metavar="PLACE", type=str, default=None, help="its queue, if not in its folder")
    options = parser.parse_args(list(argv))
    from rich.console import Console

    from bcos_eval.conclusion import conclude
    from bcos_eval.queue import UnitQueue, default_location
    from bcos_eval.study import study_folder

    queue = UnitQueue.open(options.study, options.queue or default_location(study_folder(options.study)))
    conclude(queue, console=Console(stderr=True))
