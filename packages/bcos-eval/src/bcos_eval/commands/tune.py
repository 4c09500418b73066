"""``bcos-eval tune``: search for the best options inside the training data."""

from collections.abc import Sequence

from bcos_core.run.command import CommandParser, parse_config
from bcos_core.run.config import to_dict
from bcos_core.run.error import InputError, unknown_name

from .planning import (
    add_work_options,
    default_name,
    new_queue,
    now,
    open_queue,
    package_of,
    parse_twice,
    refuse_existing,
    refuse_varied,
    work,
    write_command,
)


def tune(argv: Sequence[str]) -> None:
    from bcos_eval.studies.adapter import load_adapter

    adapter = load_adapter(package_of(argv))
    parser = CommandParser(
        prog="bcos-eval tune",
        description="Search for the best options inside the training data: a trial is worth its mean over inner folds, "
        "and the test is never looked at.",
        epilog=f"All further options are those of {adapter.program} train, and hold for every trial.",
    )
    parser.add_argument(
        "--space",
        action="append",
        metavar="OPTION=VALUES",
        default=None,
        type=str,
        help='what to choose, several times: "optim.lr=1e-4..1e-1:log", "epochs=5..20", "norm=batch|layer"',
    )
    parser.add_argument("--trials", type=int, default=20, help="how many to try")
    parser.add_argument("--inner_folds", type=int, default=3, help="parts of the training images, each scored once")
    parser.add_argument(
        "--metric",
        type=str,
        default=adapter.metrics[0],
        help=f"what trials are compared by, of {', '.join(adapter.metrics)}",
    )
    add_work_options(parser, adapter, "search")
    options = parse_twice(parser, adapter, argv)
    from rich.console import Console

    from bcos_eval.space import read_search
    from bcos_eval.study import Tuning
    from bcos_eval.tuned import conclude

    console = Console(stderr=True)
    if options.resume is not None:
        queue, place = open_queue(options.resume, options.queue, retry=options.retry)
    else:
        allowed = frozenset({"seed", "split.seed", "split.folds", "split.fold"})
        refuse_varied(parser, adapter, argv, allowed=allowed, why="the search sets it, from --inner_folds")
        config = parse_config(parser, adapter.config_type, argv)
        if options.metric not in adapter.metrics:
            raise InputError(f"--metric: {unknown_name('metric', options.metric, adapter.metrics)}")
        config = adapter.resolve(config)
        search = read_search(
            options.space or (), options.trials, options.inner_folds, {"trial": config}, adapter.varied
        )
        name = options.name or default_name(config, f"{search.trials} trials")
        refuse_existing(name)
        console.print(
            f"search {name}: {search.trials} trials of {search.folds} trainings", highlight=False, markup=False
        )
        plan = Tuning(
            name=name,
            package=adapter.name,
            values=to_dict(config),
            search=search,
            metric=options.metric,
            preset=options.preset,
            seed=config.seed,
            data=adapter.check({name: config}),
            command=write_command("tune", argv),
            created=now(),
        )
        queue, place = new_queue(plan, options.queue)
    if work(queue, place, options, "tune", console) is not None:
        conclude(queue)
