"""``bcos-eval crossval``: train every arm on every fold, test the differences, write the report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bcos_core.run.command import CommandParser, parse_config
from bcos_core.run.config import flatten, to_dict
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

if TYPE_CHECKING:
    from bcos_eval.design import Design
    from bcos_eval.studies.adapter import Adapter
    from bcos_eval.study import Study


def crossval(argv: Sequence[str]) -> None:
    from bcos_eval.studies.adapter import load_adapter

    adapter = load_adapter(package_of(argv))
    parser = _parser(adapter)
    options = parse_twice(parser, adapter, argv)
    from rich.console import Console

    from bcos_eval.conclusion import conclude

    console = Console(stderr=True)
    if options.resume is not None:
        queue, place = open_queue(options.resume, options.queue, retry=options.retry)
    else:
        study = _plan(parser, options, adapter, argv)
        text = f"study {study.name}: {len(study.arms)} arms, {study.design.name}, {len(study.units())} trainings"
        console.print(text, highlight=False, markup=False)
        queue, place = new_queue(with_data(study, adapter), options.queue)
    timing = work(queue, place, options, "crossval", console)
    if timing is not None:
        conclude(queue, timing=timing, console=console)


def rope_of(options: Any, metric: str) -> float:
    """The region of practical equivalence: what --rope says, else half a point of a share, else none."""
    from bcos_eval.stats.metric import is_share

    if options.rope is not None:
        return options.rope
    return 0.005 if is_share(metric) else 0.0


def _parser(adapter: "Adapter") -> CommandParser:
    parser = CommandParser(
        prog="bcos-eval crossval",
        description="Train every arm on every fold (or with every seed), test the differences, write the report.",
        epilog=f"All further options are those of {adapter.program} train, and hold for every arm.",
    )
    parser.add_argument(
        "--arm",
        action="append",
        metavar="NAME[:OPTION=VALUE,...]",
        default=None,
        type=str,
        help=f"what to compare, several times: {', '.join(adapter.shorthands)}, or a name and options of the training "
        '("narrow:b=1.5,optim.lr=0.01")',
    )
    add_design_options(parser, control="the first")
    parser.add_argument(
        "--metric",
        type=str,
        default=adapter.metrics[0],
        help=f"what arms are compared by, of {', '.join(adapter.metrics)}",
    )
    parser.add_argument(
        "--contrast",
        action="append",
        metavar="ARM,CONTROL",
        default=None,
        type=str,
        help="a planned contrast, several times; by default every arm against the control",
    )
    parser.add_argument(
        "--space",
        action="append",
        metavar="OPTION=VALUES",
        default=None,
        type=str,
        help="nested cross-validation: choose this option in every unit, inside its training images, for every arm "
        "(as bcos-eval tune has it)",
    )
    parser.add_argument("--trials", type=int, default=10, help="with --space: trials of each unit")
    parser.add_argument("--inner_folds", type=int, default=3, help="with --space: parts of the training images")
    add_work_options(parser, adapter, "study")
    return parser


def add_design_options(parser: CommandParser, *, control: str) -> None:
    """Add what says which units a study has and how they are compared; ``control`` is the arm compared with."""
    parser.add_argument("--folds", type=int, default=5, help="parts of the data, each the test once; 1: its own split")
    parser.add_argument("--repeats", type=int, default=1, help="times that the data is cut anew")
    parser.add_argument("--seeds", type=int, default=1, help="seeds for each fold, counted from --seed")
    parser.add_argument(
        "--rope",
        type=float,
        default=None,
        help="differences up to this size count as none (chosen beforehand); by default half a point "
        "of a share, else 0",
    )
    parser.add_argument(
        "--alpha", type=float, default=0.05, help="level of the tests, chosen beforehand; intervals have 1 - alpha"
    )
    parser.add_argument("--control", type=str, default=None, help=f"the arm to compare with; by default {control}")


def read_design(parser: CommandParser, options: Any, adapter: "Adapter", argv: Sequence[str]) -> "Design":
    """The design that the options ask for.

    Raises:
        SystemExit: With code 2 after one line, on a design that is none, or options that it sets.
    """
    from bcos_eval.design import Design

    allowed = frozenset({"seed", "split.seed"})
    refuse_varied(parser, adapter, argv, allowed=allowed, why="the study sets it, from --folds")
    for name, least in (("folds", 1), ("repeats", 1), ("seeds", 1)):
        if (value := getattr(options, name)) < least:
            parser.error(f"--{name}: expected at least {least}, got {value}")
    if options.folds == 1 and options.repeats > 1:
        parser.error("--repeats: cuts the data into folds anew; with --folds 1 there are none (--seeds repeats)")
    if options.folds > 1 and any(word.startswith("--split.test") for word in argv):
        parser.error("--split.test: with folds each is the test once; a held-out share belongs to --folds 1")
    return Design(options.folds, options.repeats, tuple(range(options.seed, options.seed + options.seeds)))


def _plan(parser: CommandParser, options: Any, adapter: "Adapter", argv: Sequence[str]) -> "Study":
    """The study that the options ask for."""
    from bcos_eval.space import read_search
    from bcos_eval.study import Study

    design = read_design(parser, options, adapter, argv)
    words = options.arm or []
    if len(words) < 2:
        parser.error(f"--arm: a comparison needs at least two arms, got {len(words)} (--arm bcos --arm baseline)")
    arms: dict[str, Any] = {}
    for word in words:
        name, changes = _read_arm(word, adapter)
        if name in arms:
            parser.error(f'--arm: two arms are called "{name}"')
        arms[name] = _arm_config(parser, adapter, argv, name, changes)
    first = next(iter(arms))
    search = None
    if options.space:
        search = read_search(options.space, options.trials, options.inner_folds, arms, adapter.varied)
    elif {word.partition("=")[0] for word in argv} & {"--trials", "--inner_folds"}:
        parser.error("--trials, --inner_folds: belong to --space")
    if options.metric not in adapter.metrics:
        raise InputError(f"--metric: {unknown_name('metric', options.metric, adapter.metrics)}")
    study = Study(
        name=options.name or default_name(arms[first], design.name),
        package=adapter.name,
        arms={name: to_dict(config) for name, config in arms.items()},
        design=design,
        metric=options.metric,
        control=options.control or first,
        rope=rope_of(options, options.metric),
        contrasts=read_contrasts(options.contrast or ()),
        alpha=options.alpha,
        search=search,
        command=write_command("crossval", argv),
        created=now(),
    )
    refuse_existing(study.name)
    return study


def read_contrasts(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Planned contrasts, as the command line has them: "ARM,CONTROL".

    Raises:
        InputError: If one is not two names.
    """
    pairs = [tuple(name.strip() for name in word.split(",")) for word in words]
    for word, pair in zip(words, pairs, strict=True):
        if len(pair) != 2 or not all(pair):
            raise InputError(f'--contrast: expected ARM,CONTROL, got "{word}"')
    return tuple((arm, control) for arm, control in pairs)


def _read_arm(word: str, adapter: "Adapter") -> tuple[str, dict[str, Any]]:
    """Name and options of an arm.

    Raises:
        InputError: If it is neither a known name nor has options.
    """
    name, colon, text = word.partition(":")
    name = name.strip()
    if not colon:
        if name not in adapter.shorthands:
            known = ", ".join(adapter.shorthands)
            raise InputError(f'--arm "{word}": expected one of {known}, or NAME:OPTION=VALUE,...')
        return name, dict(adapter.shorthands[name])
    changes = dict(adapter.shorthands.get(name, {}))
    for part in text.split(","):
        option, equals, value = part.strip().partition("=")
        if not equals or not name:
            raise InputError(f'--arm "{word}": expected NAME:OPTION=VALUE,...')
        changes[option] = value
    return name, changes


def _arm_config(
    parser: CommandParser, adapter: "Adapter", argv: Sequence[str], name: str, changes: dict[str, Any]
) -> Any:
    known = flatten(adapter.config_type())
    for option in changes:
        if option in adapter.varied:
            raise InputError(f'--arm {name}: "{option}" is the study\'s to set')
        if option not in known:
            raise InputError(f"--arm {name}: {unknown_name('option', option, known)}")
    extra = [f"--{option}={value}" for option, value in changes.items()]
    return adapter.resolve(parse_config(parser, adapter.config_type, [*argv, *extra]))


def with_data(study: "Study", adapter: "Adapter") -> "Study":
    """The study with what its data is, after a look at it: what cannot be trained is refused here, once."""
    import dataclasses

    from bcos_core.run import config as configuration

    from bcos_eval.study import Unit

    configs = {
        name: adapter.place(configuration.from_dict(adapter.config_type, dict(values)), Unit(name), study.design.folds)
        for name, values in study.arms.items()
    }
    return dataclasses.replace(study, data=adapter.check(configs))
