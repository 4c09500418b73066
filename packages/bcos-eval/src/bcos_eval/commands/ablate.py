"""``bcos-eval ablate``: one study whose arms are an ablation, trained, localised, tested, in one table."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bcos_core.run.command import CommandParser, given_options, parse_config
from bcos_core.run.config import to_dict
from bcos_core.run.error import InputError, unknown_name
from bcos_vision.config import ExponentConfig, TrainConfig

from .crossval import add_design_options, read_design, rope_of, with_data
from .localise import check_rules
from .planning import (
    add_work_options,
    default_name,
    new_queue,
    now,
    open_queue,
    package_of,
    parse_twice,
    refuse_existing,
    work,
    write_command,
)

if TYPE_CHECKING:
    from bcos_eval.ablation.arms import Arms
    from bcos_eval.ablation.conclusion import Ablation
    from bcos_eval.studies.adapter import Adapter
    from bcos_eval.study import Study

DESCRIPTION = """Train the arms of an ablation, see where their explanations point, test every arm against the control.
b: fixed exponents B, and learnt ones of each form under each objective; a picture of accuracy and localisation over B.
design: one choice at a time: B, MaxOut, norm, encoding, biases, loss, detached training; and the baseline.
Writes ablation.csv, ablation.md and tradeoff.png in studies/NAME, beside the study's own page."""

_METRIC = "accuracy"
_OF_B = ("forms", "objectives", "strengths", "bounds")
_OWN = ("learn", "objective", "strength", "bound", "start", "rise_epochs")
"""Options of the exponent that are the ablation's to set."""
_GAME = ("grid", "grids", "confidence", "smooth", "weak")


def ablate(argv: Sequence[str]) -> None:
    from bcos_eval.studies.adapter import load_adapter

    if (package := package_of(argv)) != "vision":
        raise InputError(f'--package: ablations are of vision, got "{package}"')
    adapter = load_adapter("vision")
    parser = _parser(adapter)
    options = parse_twice(parser, adapter, argv, on_resume=[f"--{name}" for name in _GAME])
    from rich.console import Console

    from bcos_eval.ablation.conclusion import Ablation, conclude_ablation

    console = Console(stderr=True)
    if options.resume is not None:
        ablation = _with_game(parser, options, Ablation.load(options.resume))
        queue, place = open_queue(options.resume, options.queue, retry=options.retry)
    else:
        if options.what not in ("b", "design"):
            raise InputError(f"--what: {unknown_name('ablation', options.what, ('b', 'design'))}")
        ablation = _with_game(parser, options, Ablation(options.what))
        study = _plan(parser, options, adapter, argv)
        text = f"ablation {study.name}: {len(study.arms)} arms, {study.design.name}, {len(study.units())} trainings"
        console.print(text, highlight=False, markup=False)
        queue, place = new_queue(with_data(study, adapter), options.queue)
    ablation.save(queue.plan.name)
    timing = work(queue, place, options, "ablate", console)
    if timing is not None:
        conclude_ablation(queue, ablation, timing=timing, console=console)


def _parser(adapter: "Adapter") -> CommandParser:
    from bcos_eval.ablation import arms

    parser = CommandParser(
        prog="bcos-eval ablate",
        description=DESCRIPTION,
        epilog=f"All further options are those of {adapter.program} train, and hold for every arm; --b is where learnt "
        "exponents start, and in a design ablation the control's.",
    )
    parser.add_argument("--what", type=str, default="design", help="b or design")
    for name, text in (
        (
            "factors",
            f"design: what to change, of {', '.join(arms.FACTORS)}, separated by commas [all]",
        ),
        ("fixed", f"fixed exponents, separated by commas [b: {_list(arms.FIXED)}; design: {_list(arms.DESIGN_FIXED)}]"),
        ("forms", f"b: who shares a learnt exponent, of {', '.join(arms.FORMS)} [all]"),
        ("objectives", f"b: of {', '.join(arms.OBJECTIVES)} [{_list(arms.USUAL_OBJECTIVES)}]"),
        ("strengths", f"b: for objectives max and smooth_max [{_list(arms.STRENGTHS)}]"),
        ("bounds", f"b: for objectives at_most and at_least, at least 1 [{_list(arms.BOUNDS)}]"),
    ):
        parser.add_argument(f"--{name}", metavar="LIST", type=str, default=None, help=text)
    add_design_options(parser, control="B 2 (b) or bcos (design)")
    for name, kind, text in (
        ("grid", int, "localisation: cells along a side of a grid [3]"),
        ("grids", int, "localisation: grids of each unit [as many as there can be, 250 at most]"),
        ("confidence", float, "localisation: least probability of the true class, by every arm's model [0.5]"),
        ("smooth", int, "localisation: side of the box that averages a map first; odd [1]"),
        (
            "weak",
            float,
            "localisation: arms with less than this share of the control's accuracy play no grids, as they would leave "
            "none to the others [0.5]",
        ),
    ):
        parser.add_argument(f"--{name}", type=kind, default=None, help=f"{text}; goes with --resume, too")
    add_work_options(parser, adapter, "study")
    return parser


def _list(values: Sequence[object]) -> str:
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def _with_game(parser: CommandParser, options: Any, ablation: "Ablation") -> "Ablation":
    """The ablation by the rules that are given, and otherwise by those that it has."""
    given = {name: getattr(options, name) for name in _GAME if getattr(options, name) is not None}
    changed = dataclasses.replace(ablation, **given)
    check_rules(parser, dataclasses.asdict(changed))
    if not 0 <= changed.weak <= 1:
        parser.error(f"--weak: expected a share from 0 to 1, got {changed.weak}")
    return changed


def _plan(parser: CommandParser, options: Any, adapter: "Adapter", argv: Sequence[str]) -> "Study":
    """The study that the options ask for."""
    from bcos_eval.study import Study

    design = read_design(parser, options, adapter, argv)
    # for the arms that learn: the control, whose B is fixed, cannot have it
    base = adapter.resolve(parse_config(parser, TrainConfig, [*argv, f"--exponent.lr={ExponentConfig.lr}"]))
    _refuse_own(parser, base)
    arms = _arms(parser, options, base, argv)
    usual = "B 2" if options.what == "b" and "B 2" in arms else next(iter(arms))
    study = Study(
        name=options.name or default_name(base, f"ablation-{options.what}-{design.name}"),
        package=adapter.name,
        arms={name: to_dict(config) for name, config in arms.items()},
        design=design,
        metric=_METRIC,
        control=options.control or usual,
        rope=rope_of(options, _METRIC),
        alpha=options.alpha,
        command=write_command("ablate", argv),
        created=now(),
    )
    refuse_existing(study.name)
    return study


def _refuse_own(parser: CommandParser, base: TrainConfig) -> None:
    """Refuse what the ablation itself sets."""
    if base.variant != "bcos":
        parser.error(f'--variant: what is changed in an ablation is a B-cos network, got "{base.variant}"')
    for name in _OWN:
        if getattr(base.exponent, name) != getattr(ExponentConfig(), name):
            parser.error(f"--exponent.{name}: the ablation sets it (--what b: --forms, --objectives, ...)")


def _arms(parser: CommandParser, options: Any, base: TrainConfig, argv: Sequence[str]) -> "Arms":
    from bcos_eval.ablation.arms import design_arms, exponent_arms

    foreign = ["factors"] if options.what == "b" else _OF_B
    for name in foreign:
        if getattr(options, name) is not None:
            parser.error(f"--{name}: belongs to --what {'design' if options.what == 'b' else 'b'}")
    given: dict[str, Any] = {}
    for name in ("factors", "forms", "objectives"):
        if (text := getattr(options, name)) is not None:
            given[name] = list(dict.fromkeys(word.strip() for word in text.split(",")))
    for name, least in (("fixed", 1.0), ("strengths", 0.0), ("bounds", 1.0)):
        if (text := getattr(options, name)) is not None:
            given[name] = _numbers(parser, name, text, least)
    for name, objectives in (("strengths", {"max", "smooth_max"}), ("bounds", {"at_most", "at_least"})):
        if name in given and "objectives" in given and not objectives & set(given["objectives"]):
            parser.error(f"--{name}: belongs to --objectives {' or '.join(sorted(objectives))}")
    if "fixed" in given and "factors" in given and "exponent" not in given["factors"]:
        parser.error("--fixed: belongs to --factors exponent")
    if "exponent.lr" in given_options(argv):
        if "exponent" not in given.get("factors", ["exponent"]):
            parser.error("--exponent.lr: belongs to --factors exponent")
        given["lr"] = options.exponent.lr
    if options.what == "b":
        return exponent_arms(base, **given)
    return design_arms(base, own_norm=_own_norm(base), **given)


def _numbers(parser: CommandParser, name: str, text: str, least: float) -> list[float]:
    found: list[float] = []
    for word in text.split(","):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            parser.error(f'--{name}: expected numbers of at least {least:g}, separated by commas, got "{word.strip()}"')
        found.append(value)
    return list(dict.fromkeys(found))


def _own_norm(base: TrainConfig) -> str | None:
    """The norm that the network has unless another is asked for, if it is one that an ablation tries."""
    import torch
    from bcos_core.nn import BatchNormUncentered2d
    from bcos_vision.models import create_model

    with torch.device("meta"):  # nothing is computed: what it is built of is all that is asked
        network = create_model(base.model, num_classes=2, variant="bcos", stem=base.stem)
    batch = any(isinstance(module, BatchNormUncentered2d) for module in network.modules())
    return "batch_uncentered" if batch else None
