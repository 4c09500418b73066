"""What the commands that plan trainings share: the training's own options, names, and a look at the data."""

import datetime
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bcos_core.run.command import CommandParser
from bcos_core.run.config import flatten
from bcos_core.run.error import InputError

if TYPE_CHECKING:
    from bcos_eval.queue import UnitQueue
    from bcos_eval.studies.adapter import Adapter


def add_work_options(parser: CommandParser, adapter: "Adapter", what: str) -> None:
    """Add name, workers, queue, resume, and all options of the training."""
    parser.add_argument("preset", nargs="?", help="preset of the training; by default the one that suits the data")
    parser.add_argument("--name", type=str, default=None, help=f"the {what}'s name; by default data, kind and time")
    parser.add_argument("--workers", type=int, default=2, help="processes that train at the same time")
    parser.add_argument("--queue", metavar="PLACE", type=str, default=None, help="journal file or postgresql://...")
    parser.add_argument("--resume", metavar="NAME", type=str, default=None, help=f"go on with a {what}")
    parser.add_argument("--retry", action="store_true", help="with --resume: try failed units again")
    parser.add_class_arguments(adapter.config_type, as_group=True)


def parse_twice(parser: CommandParser, adapter: "Adapter", argv: Sequence[str]) -> Any:
    """The options, with the preset's values as the defaults of the training's.

    Raises:
        SystemExit: With code 2 after one line, on bad input.
    """
    first = parser.parse_args([word for word in argv if word not in ("-h", "--help")])  # the preset has to be known
    if first.workers < 1:
        parser.error(f"--workers: expected at least 1, got {first.workers}")
    if first.resume is not None:
        given = {word.partition("=")[0] for word in argv if word.startswith("--")}
        if first.preset is not None or given - {"--resume", "--workers", "--queue", "--retry"}:
            parser.error("--resume takes everything as planned; only --workers, --queue and --retry go with it")
        return first
    if first.retry:
        parser.error("--retry: belongs to --resume")
    parser.set_defaults(flatten(adapter.recipe(first.preset, first.data)))
    return parser.parse_args(list(argv))


def refuse_varied(
    parser: CommandParser, adapter: "Adapter", argv: Sequence[str], *, allowed: frozenset[str], why: str
) -> None:
    """Refuse options of the training that are not the user's to set here."""
    for word in argv:
        name = word.partition("=")[0].removeprefix("--")
        if word.startswith("--") and name in adapter.varied - allowed:
            parser.error(f"--{name}: {why}")


def default_name(config: Any, kind: str) -> str:
    """Data, kind and time."""
    time = datetime.datetime.now()
    return f"{config.data_name.replace(':', '-')}-{kind.replace(' ', '-')}-{time:%Y%m%d-%H%M%S}"


def write_command(name: str, argv: Sequence[str]) -> str:
    """The command line that asked."""
    return shlex.join(["bcos-eval", name, *argv])


def now() -> str:
    """Date and time, ISO 8601."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def open_queue(name: str, location: str | None, *, retry: bool) -> "tuple[UnitQueue, str]":
    """The queue of an earlier study or search, and where it is.

    Raises:
        InputError: If there is none.
    """
    from bcos_eval.queue import UnitQueue, default_location
    from bcos_eval.study import study_folder

    place = location or default_location(study_folder(name))
    queue = UnitQueue.open(name, place)
    queue.put_missing(failed=retry)
    return queue, place


def new_queue(plan: Any, location: str | None) -> "tuple[UnitQueue, str]":
    """The queue of a new study or search, and where it is.

    Raises:
        InputError: If there is one of that name, or its folder cannot be written.
    """
    from bcos_eval.queue import UnitQueue, default_location
    from bcos_eval.study import study_folder
    from bcos_eval.worker import make_folder

    make_folder(plan)
    place = location or default_location(study_folder(plan.name))
    return UnitQueue.create(plan, place), place


def refuse_existing(name: str, location: str | None) -> None:
    """Say early that a name is taken: a look at the data takes a while.

    Raises:
        InputError: If there is a study of that name in this project.
    """
    import pathlib

    from bcos_eval.queue import default_location
    from bcos_eval.study import study_folder

    if location is None and pathlib.Path(default_location(study_folder(name))).exists():
        raise InputError(
            f'there is a study "{name}" already; --resume {name} goes on with it, --name gives this one another name'
        )
