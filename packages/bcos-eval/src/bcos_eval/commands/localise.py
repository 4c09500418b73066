"""``bcos-eval localise``: score where explanations point, every method on every model, on grids that all share."""

import itertools
import pathlib
import sys
from collections.abc import Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bcos_core.run.command import CommandParser, given_options
from bcos_core.run.error import InputError
from bcos_core.run.result_folder import short, writable_folder
from bcos_vision.commands.model_option import ModelChoice, choose_model

if TYPE_CHECKING:
    import pandas as pd
    from bcos_vision.data import ImageData

    from bcos_eval.localisation import Contest, Game

Rows = list[dict[Any, Any]]
"""Of the summary."""

COLUMNS = (
    *("game", "model", "method", "grid", "cell", "class", "score", "confidence"),
    *("seconds", "chance", "empty", "residual"),
)
"""Of scores.csv."""
RESIDUAL = 0.05
"""A method whose maps miss the sum it promises by more than this share is said not to add up."""
GAMES = ("grid", "energy", "difull")
OWN = "bcos"
"""The method that is a B-cos network's own explanation."""

DESCRIPTION = """Score where explanations point: every method on every model, on the same images.
grid: images of different classes make one picture; the share of what a map says for a class that lies in its cell.
energy: the share of what a map says for the class that lies in the object's box (data with boxes).
difull: as grid, with cells that cannot see one another: the truth is known, and a test of methods, not of models.
Only images that every model classifies correctly and confidently are used, so that scores pair. Writes scores.csv (a
row for each map), summary.csv and localisation.png; with --faithfulness, faithfulness.csv."""


def localise(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-eval localise", description=DESCRIPTION)
    parser.add_argument(
        "--study",
        metavar="NAME",
        type=str,
        default=None,
        help="instead of models: the grid pointing game with every model of a study, as a metric of its own, "
        "'localisation', in its tests and its page",
    )
    parser.add_argument("--run", metavar="NAME=RUN_ID", type=str, action="append", help="a run's model; repeatable")
    parser.add_argument("--model_file", metavar="NAME=FILE", type=str, action="append", help="a model file; repeatable")
    for name, kind, default, text in (
        ("data", str, None, "digits, folder:PATH, tiny-imagenet:PATH, ... [what the models were trained on]"),
        ("game", str, "grid", "grid, energy, difull, separated by commas"),
        (
            "methods",
            str,
            None,
            "names separated by commas, all, or quick: of less than a hundred passes an image "
            "[quick; with --study bcos, the models' own]",
        ),
        ("grid", int, 3, "cells along a side"),
        ("grids", int, None, "how many [as many as there can be, 250 at most]"),
        ("confidence", float, 0.5, "least probability of the true class, by the loss of training: sigmoid or softmax"),
        ("smooth", int, 1, "side of the box that averages a map first; odd"),
        ("cell_size", int, None, "scale images to this side in the grids"),
        ("count", int, 100, "images of game energy and of --faithfulness, at most"),
        ("batch_size", int, 32, "maps at a time"),
        ("seed", int, 0, "of what is drawn: grids, images, noise"),
        ("out", str, "localisation", "folder to write"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    for name, text in (
        ("official", "draw each model's own grids as the public B-cos v2 code, quirks and all; models do not pair"),
        ("faithfulness", "also deletion, randomisation, stability, sparseness"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=text)
    options = parser.parse_args(list(argv))
    check_rules(parser, vars(options))
    games: list[Any] = list(dict.fromkeys(options.game.split(",")))
    if unknown := [game for game in games if game not in GAMES]:
        parser.error(f'--game: expected {", ".join(GAMES)}, separated by commas, got "{unknown[0]}"')
    if options.study is not None:
        _localise_study(options, games, argv)
        return
    _refuse_idle(parser, given_options(argv), games)
    models = _named(options.run, "run") | _named(options.model_file, "model_file")
    if not models:
        raise InputError("give at least one of --run NAME=RUN_ID and --model_file NAME=FILE, or --study NAME")
    if len(models) < len(options.run or ()) + len(options.model_file or ()):
        raise InputError("--run, --model_file: give every model a name of its own, NAME=...")
    methods = _methods(options.methods or "quick")
    out = writable_folder(pathlib.Path(options.out))
    contest = _gather(models, options)
    if "energy" in games and not contest.boxes:
        raise InputError("--game energy: the data has no boxes (tiny-imagenet has)")
    if {"grid", "difull"} & set(games):
        contest.draw()
    _warn_of_assumed_split(models, options.data)
    _run(contest, games, methods, out, faithfulness=options.faithfulness)


def check_rules(parser: CommandParser, options: Mapping[str, Any]) -> None:
    """Refuse rules by which no game can be played, of those that are given.

    Raises:
        SystemExit: With code 2 after one line that names the option.
    """
    for name, least in (("grid", 2), ("grids", 1), ("count", 1), ("batch_size", 1), ("cell_size", 1), ("smooth", 1)):
        if (value := options.get(name)) is not None and value < least:
            parser.error(f"--{name}: expected at least {least}, got {value}")
    if options["smooth"] % 2 == 0:
        parser.error(f"--smooth: expected an odd number, got {options['smooth']}")
    if not 0 <= options["confidence"] < 1:
        parser.error(f"--confidence: expected a probability from 0 to below 1, got {options['confidence']}")


def _refuse_idle(parser: CommandParser, given: Collection[str], games: Sequence[str]) -> None:
    """Refuse options that nothing asked for here would heed."""
    if "count" in given and "energy" not in games and "faithfulness" not in given:
        parser.error("--count: belongs to --game energy and --faithfulness; --grids says how many grids")
    for name in ("grid", "grids", "cell_size", "official"):
        if name in given and not {"grid", "difull"} & set(games):
            parser.error(f"--{name}: belongs to --game grid and difull")


def _localise_study(options: Any, games: Sequence[str], argv: Sequence[str]) -> None:
    foreign = ("run", "model_file", "data", "official", "faithfulness", "out", "count")
    if given := [name for name in foreign if name in given_options(argv)]:
        raise InputError(f"--{given[0]}: does not go with --study, which has its own models, data and folder")
    if list(games) != ["grid"]:
        raise InputError("--study: plays the game grid")
    from rich.console import Console

    from bcos_eval.conclusion import conclude, keep_localisation
    from bcos_eval.localisation import Rules
    from bcos_eval.localisation.study import localise_units
    from bcos_eval.queue import UnitQueue, default_location
    from bcos_eval.study import Study, study_folder

    folder = study_folder(options.study)
    queue = UnitQueue.open(options.study, default_location(folder))
    if not isinstance(queue.plan, Study):
        raise InputError(f"{options.study} is a search, not a study")
    if queue.plan.package != "vision":
        raise InputError(f"{options.study} is a study of {queue.plan.package}; the game is for classifiers of images")
    rules = Rules(
        options.grid, options.grids, options.confidence, options.smooth, options.cell_size,
        batch_size=options.batch_size, seed=options.seed,
    )  # fmt: skip
    methods = [OWN] if options.methods is None else _methods(options.methods)
    scores = localise_units(queue.states(), list(queue.plan.arms), rules, methods)
    keep_localisation(scores, folder)
    conclude(queue, console=Console(stderr=True), shown="localisation")


def _named(given: list[str] | None, kind: str) -> dict[str, ModelChoice]:
    found = {}
    for text in given or ():
        name, equals, place = text.partition("=")
        if not (name and equals and place):
            raise InputError(f'--{kind}: expected NAME={"RUN_ID" if kind == "run" else "FILE"}, got "{text}"')
        one = {"run": None, "model_file": None, "model": None, "class_names": None, kind: place}
        found[name] = choose_model(SimpleNamespace(**one), name_column=0)
    return found


def _methods(names: str) -> list[str]:
    from bcos_eval.attribution import METHODS

    if names in ("all", "quick"):
        return [name for name, method in METHODS.items() if names == "all" or method.is_quick]
    return [METHODS[name].name for name in dict.fromkeys(names.split(","))]


def _gather(models: Mapping[str, ModelChoice], options: Any) -> "Contest":
    """The models, and images that none of them was trained on."""
    import torch
    from bcos_vision.commands.evaluate import match_classes
    from bcos_vision.evaluation import MatchedImages

    from bcos_eval.localisation import Contest, Rules

    first, *others = models
    for other in others:
        mine, its = models[first].trained, models[other].trained
        if mine.classes != its.classes:
            raise InputError(
                f"{first} and {other} know different classes ({len(mine.classes)}: {mine.classes[0]}, ...; "
                f"{len(its.classes)}: {its.classes[0]}, ...); compared models must answer the same question"
            )
        if mine.image_size != its.image_size:
            raise InputError(f"{first} and {other} take images of different sizes: {mine.image_size}, {its.image_size}")
    data = _load(models, options.data)
    index = torch.tensor([match_classes(choice, data, data.name) for choice in models.values()])[0]
    part, kind = (data.test, "test") if len(data.test) else (data.val, "validation")
    if not len(part):
        raise InputError(f"--data {data.name}: no image of it is held out, and those that train show nothing")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for choice in models.values():
        choice.trained.model.to(device).eval()
    rules = Rules(
        options.grid, options.grids, options.confidence, options.smooth, options.cell_size, options.official,
        options.count, options.batch_size, options.seed,
    )  # fmt: skip
    trained = {name: choice.trained for name, choice in models.items()}
    boxes = data.boxes if part is data.test else {}
    contest = Contest(trained, MatchedImages(part, index), rules, boxes=boxes, source=data.fingerprint, device=device)
    print(
        f"{data.name}: {len(part)} {kind} images, {int(contest.usable.sum())} classified correctly with a probability "
        f"of at least {rules.threshold:g} by {'the model' if len(models) == 1 else f'all {len(models)} models'}"
    )
    return contest


def _load(models: Mapping[str, ModelChoice], name: str | None) -> "ImageData":
    """The data asked for, else the models' own: of that, the images that were held out."""
    from bcos_core.run.split import SplitConfig
    from bcos_vision.data import absolute, load_data

    trained_on = {key: _trained_on(choice) for key, choice in models.items()}
    if name is None:
        if len(set(trained_on.values())) > 1 or not all(trained_on.values()):
            raise InputError(
                "--data: needed, as the models were trained on different data "
                f"({', '.join(f'{key}: {data}' for key, data in trained_on.items())})"
            )
        name = next(iter(trained_on.values()))
    own = {key: choice for key, choice in models.items() if trained_on[key] == absolute(name)}
    any_model = next(iter(models.values())).trained
    height, width = any_model.image_size
    # a file does not say how its data was split: as by default
    split = SplitConfig() if own else SplitConfig(test=1, val=0)
    sizes: dict[str, Any] = {"image_size": height if height == width else None, "eval_resize": any_model.resize}
    configs = {key: choice.config for key, choice in own.items() if choice.config is not None}
    if configs:
        splits = {key: config.split for key, config in configs.items()}
        if len(set(splits.values())) > 1 or len(configs) < len(own):
            raise InputError(
                f"--data {name}: {', '.join(own)} may have been trained on one another's test images (their splits "
                "differ, or a file does not know its own); compare runs of one split, or on other data"
            )
        config = next(iter(configs.values()))
        split = config.split
        sizes = {option: getattr(config, option) for option in ("image_size", "eval_size", "eval_resize")}
    data = load_data(name, split, **sizes)
    for key in configs:
        if models[key].fingerprint != data.fingerprint:
            raise InputError(f"{name} has changed since run {key}: what was held out then may not be now")
    return data


def _trained_on(choice: ModelChoice) -> str:
    return choice.config.data if choice.config else choice.trained.data


def _warn_of_assumed_split(models: Mapping[str, ModelChoice], name: str | None) -> None:
    """Say which model files may have been trained on the images that they are scored on."""
    from bcos_vision.data import absolute, data_folder

    name = name or _trained_on(next(iter(models.values())))
    unsure = [key for key, choice in models.items() if choice.config is None and _trained_on(choice) == absolute(name)]
    kind, _, path = name.partition(":")
    root = pathlib.Path(path).expanduser() if path else data_folder(kind)
    has_own_test = kind == "cifar10" or any((root / part).is_dir() for part in ("val", "test"))
    if unsure and not has_own_test:
        print(
            f"warning: {', '.join(unsure)}: a model file does not say how {name} was split; the default split is "
            "assumed, and if it was another, some of these images trained the model (--run knows its split)",
            file=sys.stderr,
        )


def _run(
    contest: "Contest", games: "Sequence[Game]", methods: Sequence[str], out: pathlib.Path, *, faithfulness: bool
) -> None:
    import pandas as pd

    from bcos_eval.figures.localisation import draw_localisation
    from bcos_eval.localisation import select, summarise

    scores: list[pd.DataFrame] = []
    measured: list[pd.DataFrame] = []
    left_out: dict[str, list[str]] = {}
    for model, method in itertools.product(contest.models, methods):
        try:  # each table is in its file before the next is made: whatever ends the command, it is kept
            for game in games:
                _append(contest.play(game, model, method).filter(list(COLUMNS)), scores, out / "scores.csv")
            if faithfulness:
                _append(contest.faithfulness(model, method), measured, out / "faithfulness.csv")
        except InputError as error:
            left_out.setdefault(str(error), []).append(f"{method} on {model}")
    if not scores:
        raise InputError(f"no method worked: {next(iter(left_out))}")
    table = pd.concat(scores, ignore_index=True)
    summary = summarise(table, seed=contest.rules.seed)
    summary["grids_hash"] = [
        "" if game == "energy" else contest.grids[model].hash
        for game, model in zip(summary["game"], summary["model"], strict=True)
    ]
    summary.to_csv(out / "summary.csv", index=False)
    rows: Rows = summary.to_dict("records")
    compared = [row for row in rows if row["game"] != "difull"]  # whose maps are of the models themselves
    same = {
        m: contest.same(m, list(dict.fromkeys(row["method"] for row in compared if row["model"] == m)))
        for m in dict.fromkeys(row["model"] for row in compared)
    }
    own = [(name, OWN) for name, trained in contest.models.items() if trained.model.is_bcos]
    files = ["scores.csv", "summary.csv"]
    for game in dict.fromkeys(row["game"] for row in rows):
        played = [row for row in rows if row["game"] == game]
        files.append("localisation.png" if len(files) == 2 else f"localisation-{game}.png")
        title = _title(contest, game, played)
        draw_localisation(select(table, game=game), out / files[-1], title=title, own=own)
        print(f"\n{title}")
        _print_table(played, same if game != "difull" else {})
        for model in (name for name, _ in own if name in same and game != "difull"):
            print(_verdict(select(table, game=game), played, model, same[model], contest.rules.seed))
    for reason, where in left_out.items():
        print(f"left out: {', '.join(where)}: {reason}")
    if measured:
        files.append("faithfulness.csv")
        _print_faithfulness(pd.concat(measured, ignore_index=True), list(contest.models))
    print(f"\nsaved in {short(out)}: {', '.join(files)}")


def _append(found: "pd.DataFrame", tables: "list[pd.DataFrame]", path: pathlib.Path) -> None:
    found.to_csv(path, mode="a" if tables else "w", header=not tables, index=False)
    tables.append(found)


def _title(contest: "Contest", game: str, rows: Rows) -> str:
    rules, number = contest.rules, rows[0]["grids"]
    if game == "energy":
        return f"energy pointing game, {number} images, smooth {rules.smooth}"
    hashes = dict.fromkeys(contest.grids[row["model"]].hash[:12] for row in rows)
    name = "grid pointing game" if game == "grid" else "DiFull (cells cannot see one another)"
    whose = ", each model's own (official)" if rules.official else ""
    return (
        f"{name}, {number} grids of {rules.side}x{rules.side}{whose}, smooth {rules.smooth}, grids {', '.join(hashes)}"
    )


def _print_table(rows: Rows, same: Mapping[str, list[tuple[str, ...]]]) -> None:
    """Methods down, models across: mean, interval, what they coincide with, milliseconds a map."""
    cells = {(row["method"], row["model"]): row for row in rows}
    models, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("model", "method"))
    mark = {(m, method): f"={'abcdefgh'[i % 8]}" for m in same for i, group in enumerate(same[m]) for method in group}
    width = max(len(method) for method in (*methods, "uniform"))
    print(f"  {'':<{width}}" + "".join(f"  {model:<35}" for model in models).rstrip())
    for method in methods:
        line = f"  {method:<{width}}"
        for model in models:
            text = ""
            if row := cells.get((method, model)):
                text = f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}] {mark.get((model, method), ''):<2}"
                text += f" {row['seconds'] * 1000:>7.1f} ms"
            line += f"  {text:<35}"
        print(line.rstrip())
    chance = sum(row["chance"] for row in rows) / len(rows)
    print(f"  {'uniform':<{width}}  {chance:.3f}; oracle 1; mean [95% interval], milliseconds a map")
    for row in rows:
        if row["empty"]:
            text = f"{row['empty']} of {row['maps']} maps have no positive part and score 0"
            print(f"  {row['method']} on {row['model']}: {text}")
        if row["residual"] > RESIDUAL:
            print(f"  {row['method']} on {row['model']}: does not add up, residual up to {row['residual']:.1g}")
    for model, groups in same.items():
        for i, group in enumerate(groups):
            print(f"  ={'abcdefgh'[i % 8]} on {model}: {', '.join(group)} gave the same maps (up to scale)")


def _verdict(scores: "pd.DataFrame", rows: Rows, model: str, same: list[tuple[str, ...]], seed: int) -> str:
    """Whether a B-cos model's own contributions beat every post-hoc method on it that says something else.

    The claim is of all methods, so each one's paired interval must lie above 0: an intersection of tests, which needs
    no correction for their number.
    """
    from bcos_eval.localisation import difference

    means = {row["method"]: row["mean"] for row in rows if row["model"] == model}
    coincide = next((group for group in same if OWN in group), (OWN,))
    others = [method for method in means if method not in coincide]
    if OWN not in means or not others:
        return f"{model}: nothing to compare its own contributions with"
    gaps = [difference(scores, (model, OWN), (model, other), seed=seed) for other in others]
    gaps.sort(key=lambda gap: gap.mean)
    if ahead := [gap for gap in gaps if gap.high < 0]:
        says, shown = "are beaten by", ahead
    elif unclear := [gap for gap in gaps if not gap.low > 0]:  # not a number, too
        says, shown = "are not shown to beat", unclear
    else:
        says, shown = "beat every post-hoc method played on it; the nearest is", gaps[:1]
    listed = "; ".join(
        f"{gap.second[1]} {means[gap.second[1]]:.3f}, difference {gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        for gap in shown
    )
    return f"{model}: its own contributions, {means[OWN]:.3f}, {says} {listed} (paired, 95%)"


def _print_faithfulness(found: "pd.DataFrame", models: Sequence[str]) -> None:
    import numpy as np

    from bcos_eval.faithfulness import METRICS
    from bcos_eval.localisation import select

    for model in models:
        rows = select(found, model=model)
        print(f"\nfaithfulness, {model}, {rows['image'].nunique()} images, means (compares methods, not models)")
        methods = list(dict.fromkeys(rows["method"]))
        width = max(map(len, methods))
        for name, metric in METRICS.items():
            print(f"  {name} ({'higher' if metric.higher_is_better else 'lower'} is better: {metric.says})")
            table = select(rows, metric=name).pivot(index="image", columns="method", values="score")
            table = table.reindex(columns=methods).where(np.isfinite)
            nowhere = [m for m in methods if not np.isfinite(np.asarray(table[m], float)).any()]
            shared = table.drop(columns=nowhere).dropna()  # methods are compared on the same images
            if len(shared) < len(table):
                print(f"    on {len(shared)} of {len(table)} images, those where it is defined for every method below")
            means = shared.mean() if len(shared) else {}
            for method in sorted(means.keys(), key=means.__getitem__, reverse=metric.higher_is_better):
                print(f"    {method:<{width}}  {means[method]:+.3f}")
            if nowhere:
                print(f"    {', '.join(nowhere)}: not defined for any image")
