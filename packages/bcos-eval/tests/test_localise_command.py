"""``bcos-eval localise``: what it writes and says, and one line for each mistake."""

import csv
import dataclasses
import pathlib

import numpy as np
import pandas as pd
import pytest
import torch
from bcos_eval.cli import main
from bcos_eval.commands import localise
from bcos_eval.localisation import Contest, Rules
from bcos_vision import create_model
from bcos_vision.commands.model_option import ModelChoice
from bcos_vision.config import SplitConfig, TrainConfig
from bcos_vision.data import ArrayImages, load_data
from bcos_vision.models import TrainedClassifier
from bcos_vision.models.classifier import ImageClassifier
from PIL import Image
from torch import nn

CLASSES = ("a", "b", "c", "d")
LEVELS = (51, 102, 153, 204)


class Template(nn.Module):
    """Counts the pixels of each class's brightness: what it looks at is known, and it takes any size."""

    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(LEVELS).view(1, 4, 1, 1) / 255)

    def forward(self, x):
        near = (1 - 5 * (x - self.levels).abs()).clamp(min=0)
        return 20 * near.mean((2, 3)) - 4


def _template(variant="bcos", loss="bce"):
    model = ImageClassifier(nn.Identity(), Template(), in_channels=1, num_classes=4, description={"variant": variant})
    return TrainedClassifier(model.eval(), CLASSES, (8, 8), "elsewhere", loss=loss)


@pytest.fixture(scope="module")
def levels(tmp_path_factory):
    """Images of four classes, each of a brightness of its own, but for noise."""
    root, rng = tmp_path_factory.mktemp("levels"), np.random.default_rng(0)
    for name, level in zip(CLASSES, LEVELS, strict=True):
        (root / name).mkdir()
        for i in range(6):
            pixels = np.uint8(level + rng.integers(-5, 6, (8, 8)))
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return f"folder:{root}"


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, classes in (("ten", tuple("0123456789")), ("four", CLASSES)):
        torch.manual_seed(0)
        model = create_model("resnet20", num_classes=len(classes), in_channels=1)
        TrainedClassifier(model, classes, (8, 8), "digits").save(folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def templates(monkeypatch):
    """Names stand for template networks: "bcos" and "plain"."""

    def choose(options, *, name_column):
        trained = _template(options.model_file, "cross_entropy" if options.model_file == "plain" else "bce")
        return ModelChoice(trained, pathlib.Path(), None, named=True)

    monkeypatch.setattr(localise, "choose_model", choose)


def test_scores_summary_figure_and_table(templates, levels, tmp_path, capsys):
    out = tmp_path / "out"
    given = ["--model_file", "one=bcos", "--model_file", "two=plain", "--data", levels, "--grid", "2"]
    given += ["--methods", "bcos,saliency,input_x_gradient", "--game", "grid,difull", "--out", str(out)]
    main(["localise", *given, "--faithfulness", "--count", "2"])
    said = capsys.readouterr().out
    assert "24 test images, 24 classified correctly with a probability of at least 0.5 by all 2 models" in said
    scores = pd.read_csv(out / "scores.csv")
    header = ["game", "model", "method", "grid", "cell", "class", "score", "confidence", "seconds"]
    assert list(scores.columns[:9]) == header
    assert len(scores) == 2 * 2 * 3 * 6 * 4  # games, models, methods, grids, cells
    assert scores["score"].between(0, 1).all()
    assert scores["confidence"].between(0.5, 1).all()
    places = [part[["grid", "cell", "class"]].to_numpy() for _, part in scores.groupby(["game", "model", "method"])]
    assert all((place == places[0]).all() for place in places)
    split = scores[scores["game"] == "difull"]
    assert (split["score"] == 1).all()  # it sees its cell alone, and says so
    for name in ("summary.csv", "localisation.png", "localisation-difull.png", "faithfulness.csv"):
        assert (out / name).stat().st_size > 100
    with (out / "summary.csv").open() as file:
        assert len({row["grids_hash"] for row in csv.DictReader(file)}) == 1
    assert "bcos, input_x_gradient gave the same maps" in said  # nothing in it is held constant
    assert said.count("its own contributions, ") == 1  # of "one", the only B-cos network, in the grid game
    assert "max_sensitivity (lower is better" in said
    assert "bcos on one: does not add up" in said  # its logits have a constant, of which no pixel is the cause
    assert scores.loc[scores["method"] == "saliency", "residual"].isna().all()


def _choice(data, config=None):
    return ModelChoice(dataclasses.replace(_template(), data=data), pathlib.Path(), config, named=True)


@pytest.mark.parametrize(
    ("parts", "data", "warned"),
    [
        ((), "folder:ROOT", ["file"]),
        (("train", "val"), "folder:ROOT", []),
        ((), "digits", ["file", "other"]),
        ((), "cifar10", []),
    ],
)
def test_a_file_that_may_have_seen_the_images_is_named(parts, data, warned, tmp_path, capsys):
    for part in parts:
        (tmp_path / part).mkdir()
    data = data.replace("ROOT", str(tmp_path))
    models = {"file": _choice(data), "other": _choice("digits"), "run": _choice(data, TrainConfig(data=data))}
    localise._warn_of_assumed_split(models, data)
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {', '.join(warned)}: a model file does not say how" if warned else "")
    assert bool(said) == bool(warned)


def test_images_that_train_are_not_scored(levels, tmp_path, monkeypatch, capsys):
    config = TrainConfig(data=levels, split=SplitConfig(test=0, val=0))
    choice = dataclasses.replace(_choice(levels, config), fingerprint=load_data(levels, config.split).fingerprint)
    monkeypatch.setattr(localise, "choose_model", lambda options, name_column: choice)
    with pytest.raises(SystemExit):
        main(["localise", "--run", "one=1", "--out", str(tmp_path)])
    assert "no image of it is held out" in capsys.readouterr().err


def test_what_was_scored_is_kept_when_a_method_breaks(templates, levels, tmp_path, monkeypatch):
    play = Contest.play

    def breaks(self, game, model, method):
        if method == "saliency":
            raise RuntimeError("out of luck")
        return play(self, game, model, method)

    monkeypatch.setattr(Contest, "play", breaks)
    given = ["--model_file", "one=bcos", "--data", levels, "--grid", "2", "--methods", "bcos,gradient,saliency"]
    with pytest.raises(RuntimeError, match="out of luck"):
        main(["localise", *given, "--out", str(tmp_path)])
    kept = pd.read_csv(tmp_path / "scores.csv")
    assert kept["method"].unique().tolist() == ["bcos", "gradient"]
    assert len(kept) == 2 * 6 * 4


def test_official_rule_needs_more_classes_than_cells(templates, levels, tmp_path, capsys):
    given = ["--model_file", "one=bcos", "--data", levels, "--grid", "2", "--official", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(["localise", *given])
    assert "too few for any grid" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gaps", "says"),
    [
        ({"a": 0.2, "b": 0.3}, "beat every post-hoc method played on it; the nearest is a 0.300, difference +0.200"),
        # a method that is behind on average, but not surely, is no match though another is nearer
        ({"a": 0.1, "wild": 0.15}, "are not shown to beat wild 0.350, difference +0.150"),
        ({"a": 0.2, "wild": 0.1, "b": -0.2}, "are beaten by b 0.700, difference -0.200"),
        ({"twin": -0.2, "a": 0.2}, "beat every post-hoc method played on it; the nearest is a"),
        ({"twin": 0.0}, "nothing to compare its own contributions with"),
    ],
)
def test_verdict_is_over_every_method(gaps, says):
    scores = [_row("bcos", grid, 0.5) for grid in range(40)]
    for method, gap in gaps.items():
        # "wild" swings by 2 from grid to grid: an error of the mean of 0.3
        swing = 2 if method == "wild" else 0.01
        scores += [_row(method, grid, 0.5 - gap + swing * (-1) ** grid) for grid in range(40)]
    frame = pd.DataFrame(scores)
    rows = [{"model": "net", "method": m, "mean": float(part["score"].mean())} for m, part in frame.groupby("method")]
    assert says in localise._verdict(frame, rows, "net", [("bcos", "twin")], 0)


def _row(method, grid, score):
    return {"game": "grid", "model": "net", "method": method, "grid": grid, "cell": 0, "class": 0, "score": score}


def test_faithfulness_compares_methods_on_the_same_images(capsys):
    nan = float("nan")
    scores = {"a": [0.0, 0.0, 1.2], "b": [0.3, 0.3, nan], "c": [nan, nan, nan]}
    rows = [
        {"model": "net", "method": method, "image": image, "metric": "random_logit", "score": score}
        for method, values in scores.items()
        for image, score in enumerate(values)
    ]
    localise._print_faithfulness(pd.DataFrame(rows), ["net"])
    said = capsys.readouterr().out
    assert "on 2 of 3 images, those where it is defined for every method below" in said
    assert said.index("a  +0.000") < said.index("b  +0.300")  # over all of its images a would come last: 0.4
    assert "c: not defined for any image" in said


def test_boxes_have_no_grids_and_difull_needs_no_maps_of_models(templates, levels, tmp_path, monkeypatch):
    whole = load_data(levels, SplitConfig(test=1, val=0))
    boxes = dict.fromkeys(range(len(whole.test)), (0, 0, 3, 7))
    monkeypatch.setattr(localise, "_load", lambda models, name: dataclasses.replace(whole, boxes=boxes))
    given = ["localise", "--model_file", "one=bcos", "--data", levels, "--grid", "2", "--methods", "bcos,gradient"]
    main([*given, "--game", "energy,grid", "--out", str(tmp_path)])
    summary = pd.read_csv(tmp_path / "summary.csv", keep_default_na=False)
    assert [(row["game"], bool(row["grids_hash"])) for _, row in summary.iterrows()] == [
        ("energy", False),
        ("grid", True),
    ] * 2
    monkeypatch.setattr(Contest, "same", lambda *_: pytest.fail("maps of the model itself"))
    main([*given, "--game", "difull", "--out", str(tmp_path)])


def test_a_method_that_cannot_is_in_no_group(levels):
    data = load_data(levels, SplitConfig(test=1, val=0))
    contest = Contest({"net": _template()}, data.test, Rules(side=2))
    contest.draw()
    # a template has no feature maps of more than one position for Grad-CAM
    assert contest.same("net", ["bcos", "gradcam", "input_x_gradient"]) == [("bcos", "input_x_gradient")]


def test_energy_game_on_boxes():
    images = torch.full((8, 1, 8, 8), 51, dtype=torch.uint8)
    labels = torch.arange(8) % 4
    images += (labels * 51).byte().view(-1, 1, 1, 1)
    boxes = dict.fromkeys(range(6), (0, 0, 3, 7))
    contest = Contest({"net": _template()}, ArrayImages(images, labels), Rules(count=5), boxes=boxes)
    found = contest.play("energy", "net", "saliency")
    assert len(found) == 5
    assert set(found["grid"]) <= set(range(6))
    assert found["chance"].to_numpy() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "give at least one of --run NAME=RUN_ID and --model_file NAME=FILE"),
        (["--model_file", "FOLDER/ten.safetensors"], '--model_file: expected NAME=FILE, got "'),
        (["--model_file", "a=FOLDER/none.safetensors"], "none.safetensors"),
        (["TEN", "--methods", "saliancy"], 'unknown method "saliancy"; did you mean "saliency"?'),
        (["TEN", "--game", "boxes"], '--game: expected grid, energy, difull, separated by commas, got "boxes"'),
        (["TEN", "--game", "energy"], "--game energy: the data has no boxes"),
        (["TEN", "--grid", "4"], "--grid 4: 16 cells need as many classes, and the data has 10: at most --grid 3"),
        (["TEN", "--confidence", "0.99999"], "0 images of 0 classes are classified correctly and confidently enough"),
        (["TEN", "--count", "5"], "--count: belongs to --game energy and --faithfulness; --grids says how many grids"),
        (["TEN", "--game", "energy", "--grids", "5"], "--grids: belongs to --game grid and difull"),
        (["TEN", "--smooth", "2"], "--smooth: expected an odd number, got 2"),
        (["TEN", "--confidence", "50"], "--confidence: expected a probability from 0 to below 1, got 50"),
        (["TEN", "--grid", "1"], "--grid: expected at least 2, got 1"),
        (["TEN", "--model_file", "b=FOLDER/four.safetensors"], "a and b know different classes (10: 0, ...; 4: a"),
        (["TEN", "TEN"], "give every model a name of its own"),
        (["TEN", "--data", "digit"], 'did you mean "digits"'),
        (["--model_file", "b=FOLDER/four.safetensors"], 'the model does not know its class "0"'),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(arguments, line, untrained, tmp_path, capsys):
    given = []
    for argument in arguments:
        given += ["--model_file", f"a={untrained}/ten.safetensors"] if argument == "TEN" else [argument]
    given = [argument.replace("FOLDER", str(untrained)) for argument in given]
    with pytest.raises(SystemExit) as exit_:
        main(["localise", *given, "--out", str(tmp_path / "out")])
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
