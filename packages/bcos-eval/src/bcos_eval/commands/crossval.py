"""``bcos-eval crossval``: train every arm on every fold, test the differences, write the report."""

import datetime
import shlex
from collections.abc import Sequence
from typing import Any

from bcos_core.run.command import CommandParser
from bcos_core.run.config import flatten, to_dict
from bcos_core.run.error import InputError


def crossval(argv: Sequence[str]) -> None:
    from bcos_eval.studies.adapter import load_adapter

    adapter = load_adapter("vision")
    parser = _parser(adapter)
    # the preset sets the defaults of the training's options, so it has to be known first
    plain = [word for word in argv if word not in ("-h", "--help")]
    first = parser.parse_args(plain)
    from rich.console import Console

    from bcos_eval.conclusion import conclude
    from bcos_eval.crossval import run_workers
    from bcos_eval.queue import UnitQueue, default_location
    from bcos_eval.study import study_folder

    if first.workers < 1:
        parser.error(f"--workers: expected at least 1, got {first.workers}")
    console = Console(stderr=True)
    if first.resume is not None:
        given = {word.partition("=")[0] for word in argv if word.startswith("--")}
        if first.preset is not None or given - {"--resume", "--workers", "--queue", "--retry"}:
            parser.error("--resume takes the study as it was planned; only --workers, --queue and --retry go with it")
        location = first.queue or default_location(study_folder(first.resume))
        queue = UnitQueue.open(first.resume, location)
        queue.put_missing(failed=first.retry)
    else:
        parser.set_defaults(flatten(adapter.recipe(first.preset, first.data)))
        study = _plan(parser, adapter, argv)
        folder = study_folder(study.name)
        location = first.queue or default_location(folder)
        _say_plan(console, study)
        study = _with_data(study, adapter)
        folder.mkdir(parents=True, exist_ok=True)
        queue = UnitQueue.create(study, location)
    name = queue.plan.name
    try:
        timing = run_workers(queue, location, workers=first.workers, console=console)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with: bcos-eval crossval --resume {name}") from None
    conclude(queue, timing=timing, console=console)


def _parser(adapter: Any) -> CommandParser:
    parser = CommandParser(
        prog="bcos-eval crossval",
        description="Train every arm on every fold (or with every seed), test the differences, write the report.",
        epilog="All further options are those of bcos-vision train, and hold for every arm.",
    )
    parser.add_argument("preset", nargs="?", help="preset of the training; by default the one that suits the data")
    parser.add_argument(
        "--arm",
        action="append",
        metavar="NAME[:OPTION=VALUE,...]",
        default=None,
        type=str,
        help=f"what to compare, several times: {', '.join(adapter.shorthands)}, or a name and options of the training "
        '("narrow:b=1.5,optim.lr=0.01")',
    )
    parser.add_argument("--name", type=str, default=None, help="the study's name; by default data, design and time")
    parser.add_argument("--folds", type=int, default=5, help="parts of the data, each the test once; 1: its own split")
    parser.add_argument("--repeats", type=int, default=1, help="times that the data is cut anew")
    parser.add_argument("--seeds", type=int, default=1, help="seeds for each fold, counted from --seed")
    parser.add_argument("--metric", type=str, default="accuracy", help="what arms are compared by")
    parser.add_argument(
        "--rope", type=float, default=0.005, help="differences up to this size count as none (chosen beforehand)"
    )
    parser.add_argument("--control", type=str, default=None, help="the arm to compare with; by default the first")
    parser.add_argument(
        "--contrast",
        action="append",
        metavar="ARM,CONTROL",
        default=None,
        type=str,
        help="a planned contrast, several times; by default every arm against the control",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that train at the same time")
    parser.add_argument("--queue", metavar="PLACE", type=str, default=None, help="journal file or postgresql://...")
    parser.add_argument("--resume", metavar="NAME", type=str, default=None, help="go on with a study")
    parser.add_argument("--retry", action="store_true", help="with --resume: try failed units again")
    parser.add_class_arguments(adapter.config_type, as_group=True)
    return parser


def _plan(parser: CommandParser, adapter: Any, argv: Sequence[str]) -> Any:
    """The study that the options ask for."""
    from bcos_eval.scores import Design
    from bcos_eval.study import Study

    options = parser.parse_args(list(argv))
    for word in argv:
        name = word.partition("=")[0].removeprefix("--")
        if word.startswith("--") and name in adapter.varied - {"seed", "split.seed"}:
            parser.error(f"--{name}: the study sets it, from --folds")
    for name, least in (("folds", 1), ("repeats", 1), ("seeds", 1)):
        if (value := getattr(options, name)) < least:
            parser.error(f"--{name}: expected at least {least}, got {value}")
    if options.folds == 1 and options.repeats > 1:
        parser.error("--repeats: cuts the data into folds anew; with --folds 1 there are none (--seeds repeats)")
    words = options.arm or []
    if len(words) < 2:
        parser.error(f"--arm: a comparison needs at least two arms, got {len(words)} (--arm bcos --arm baseline)")
    arms: dict[str, Any] = {}
    for word in words:
        name, changes = _read_arm(word, adapter)
        if name in arms:
            parser.error(f'--arm: two arms are called "{name}"')
        arms[name] = _arm_config(parser, adapter, argv, name, changes)
    design = Design(options.folds, options.repeats, tuple(range(options.seed, options.seed + options.seeds)))
    now = datetime.datetime.now().astimezone()
    some = next(iter(arms.values()))
    kind = design.name.replace(" ", "-")
    default = f"{some.data_name.replace(':', '-')}-{kind}-{now:%Y%m%d-%H%M%S}"
    return Study(
        name=options.name or default,
        package=adapter.name,
        arms={name: to_dict(config) for name, config in arms.items()},
        design=design,
        metric=options.metric,
        control=options.control or next(iter(arms)),
        rope=options.rope,
        contrasts=read_contrasts(options.contrast or ()),
        command=shlex.join(["bcos-eval", "crossval", *argv]),
        created=now.isoformat(timespec="seconds"),
    )


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


def _read_arm(word: str, adapter: Any) -> tuple[str, dict[str, Any]]:
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
    changes = {}
    for part in text.split(","):
        option, equals, value = part.strip().partition("=")
        if not equals or not name:
            raise InputError(f'--arm "{word}": expected NAME:OPTION=VALUE,...')
        changes[option] = value
    return name, changes


def _arm_config(parser: CommandParser, adapter: Any, argv: Sequence[str], name: str, changes: dict[str, Any]) -> Any:
    from bcos_core.run.command import parse_config

    known = flatten(parser_defaults(adapter))
    for option in changes:
        if option in adapter.varied:
            raise InputError(f'--arm {name}: "{option}" is the study\'s to set')
        if option not in known:
            from bcos_core.run.error import unknown_name

            raise InputError(f"--arm {name}: {unknown_name('option', option, known)}")
    extra = [f"--{option}={value}" for option, value in changes.items()]
    return parse_config(parser, adapter.config_type, [*argv, *extra])


def parser_defaults(adapter: Any) -> Any:
    """Any configuration of the package, for the names of its options."""
    return adapter.config_type()


def _with_data(study: Any, adapter: Any) -> Any:
    """The study with what its data is, after a look at it: what cannot be trained is refused here, once."""
    import dataclasses

    from bcos_core.run import config as configuration

    from bcos_eval.study import Unit

    folds = study.design.folds
    configs = {
        name: adapter.place(configuration.from_dict(adapter.config_type, dict(values)), Unit(name), folds)
        for name, values in study.arms.items()
    }
    return dataclasses.replace(study, data=adapter.check(configs))


def _say_plan(console: Any, study: Any) -> None:
    total = len(study.units())
    console.print(
        f"study {study.name}: {len(study.arms)} arms, {study.design.name}: {total} trainings",
        highlight=False,
        markup=False,
    )
