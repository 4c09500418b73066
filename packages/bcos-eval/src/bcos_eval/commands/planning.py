"""What the commands that plan trainings share: the training's own options, names, and a look at the data."""

import datetime
import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bcos_core.run.command import CommandParser, given_options
from bcos_core.run.config import flatten
from bcos_core.run.error import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from bcos_eval.crossval import Timing
    from bcos_eval.queue import UnitQueue
    from bcos_eval.studies.adapter import Adapter


def package_of(argv: Sequence[str]) -> str:
    """The package that ``--package`` names: it decides which other options there are."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word == "--package" or word.startswith("--package="):
            return word.partition("=")[2] or following
    return "vision"


def add_work_options(parser: CommandParser, adapter: "Adapter", what: str) -> None:
    """Add package, name, workers, queue, resume, and all options of the training."""
    parser.add_argument(
        "--package",
        type=str,
        default="vision",
        help="what is trained: vision, ode (dynamics), ode-regression or ode-classification; each has its own options",
    )
    parser.add_argument("preset", nargs="?", help="preset of the training; by default the one that suits the data")
    parser.add_argument("--name", type=str, default=None, help=f"the {what}'s name; by default data, kind and time")
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        help="processes that train at the same time; 0 fills the queue and leaves the work to bcos-eval worker",
    )
    parser.add_argument("--queue", metavar="PLACE", type=str, default=None, help="journal file or postgresql://...")
    parser.add_argument("--resume", metavar="NAME", type=str, default=None, help=f"go on with a {what}")
    parser.add_argument("--retry", action="store_true", help="with --resume: try failed units again")
    parser.add_class_arguments(adapter.config_type, as_group=True)


def parse_twice(
    parser: CommandParser, adapter: "Adapter", argv: Sequence[str], *, on_resume: Sequence[str] = ()
) -> Any:
    """The options, with the preset's values as the defaults of the training's.

    ``on_resume`` are options that go with --resume, besides those that say who works and where.

    Raises:
        SystemExit: With code 2 after one line, on bad input.
    """
    first = parser.parse_args([word for word in argv if word not in ("-h", "--help")])  # the preset has to be known
    if first.workers < 0:
        parser.error(f"--workers: expected at least 0, got {first.workers}")
    if first.resume is not None:
        given = {f"--{name}" for name in given_options(argv)}
        allowed = ["--workers", "--queue", "--retry", *on_resume]
        if first.preset is not None or given - {"--resume", "--package", *allowed}:
            listed = f"{', '.join(allowed[:-1])} and {allowed[-1]}"
            parser.error(f"--resume takes everything as planned; only {listed} go with it")
        return first
    if first.retry:
        parser.error("--retry: belongs to --resume")
    parser.set_defaults(flatten(adapter.recipe(first.preset, first.data)))
    return parser.parse_args(list(argv))


def refuse_varied(
    parser: CommandParser, adapter: "Adapter", argv: Sequence[str], *, allowed: frozenset[str], why: str
) -> None:
    """Refuse options of the training that are not the user's to set here."""
    if refused := sorted(given_options(argv) & (adapter.varied - allowed)):
        parser.error(f"--{refused[0]}: {why}")


def default_name(config: Any, kind: str) -> str:
    """Data, kind and time."""
    from bcos_eval.study import slug

    time = datetime.datetime.now()
    return slug(f"{config.data_name}-{kind}-{time:%Y%m%d-%H%M%S}").lstrip(".")


def write_command(name: str, argv: Sequence[str]) -> str:
    """The command line that asked, without the password of its queue."""
    from bcos_eval.queue import without_password

    return shlex.join(["bcos-eval", name, *map(without_password, argv)])


def where(location: str | None) -> str:
    """The option that says where a queue is, if a command needs it: a URL with a password is kept nowhere."""
    from bcos_eval.queue import without_password

    return f" --queue {without_password(location)}" if location and without_password(location) != location else ""


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

    place = absolute_place(location) if location else default_location(study_folder(name))
    queue = UnitQueue.open(name, place)
    queue.put_missing(failed=retry)
    return queue, place


def new_queue(plan: Any, location: str | None) -> "tuple[UnitQueue, str]":
    """The queue of a new study or search, and where it is.

    Raises:
        InputError: If there is one of that name, or its folder cannot be written.
    """
    from bcos_core.run.config import save_values

    from bcos_eval.queue import UnitQueue, default_location, note_location
    from bcos_eval.study import PLAN, plan_to_dict, study_folder
    from bcos_eval.worker import make_folder

    make_folder(plan)
    folder = study_folder(plan.name)
    place = absolute_place(location) if location else default_location(folder)
    queue = UnitQueue.create(plan, place)
    note_location(folder, place)
    save_values(plan_to_dict(plan), folder / PLAN)
    return queue, place


def work(queue: "UnitQueue", place: str, options: Any, command: str, console: "Console") -> "Timing | None":
    """Run the units of a queue with the workers that were asked for; None where others are to do the work.

    Raises:
        InputError: If workers cannot be started, or none is left.
        KeyboardInterrupt: On Ctrl-C or SIGTERM, saying how to go on.
    """
    from bcos_eval.crossval import run_workers
    from bcos_eval.worker import Stopped

    name = queue.plan.name
    if options.workers == 0:
        print(f"{name} waits for workers: bcos-eval worker {name}{where(options.queue)}")
        return None
    try:
        return run_workers(queue, place, workers=options.workers, command=command, console=console)
    except (KeyboardInterrupt, Stopped):
        hint = f"bcos-eval {command} --resume {name}{where(options.queue)}"
        raise KeyboardInterrupt(f"go on with: {hint}") from None


def absolute_place(location: str) -> str:
    """A queue's place that means the same from every folder."""
    return location if "://" in location else os.path.abspath(location)


def refuse_existing(name: str) -> None:
    """Say early that a name is taken: a look at the data takes a while.

    Raises:
        InputError: If there is a study of that name in this project.
    """
    from bcos_eval.study import PLAN, study_folder

    if (study_folder(name) / PLAN).exists():
        raise InputError(
            f'there is a study "{name}" already; --resume {name} goes on with it, --name gives this one another name'
        )
