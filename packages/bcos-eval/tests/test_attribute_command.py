import csv
import shlex

import numpy as np
import pytest
import torch
from bcos_core import explain
from bcos_core.run.error import InputError
from bcos_eval.attribution import METHODS, Method
from bcos_eval.cli import main
from bcos_eval.commands import attribute, localise
from bcos_vision import create_model
from bcos_vision.data import load_data, to_unit_range
from bcos_vision.models import TrainedClassifier
from PIL import Image


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=10, variant="bcos", in_channels=1)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    TrainedClassifier(model.eval(), tuple("0123456789"), (8, 8), "digits").save(path)
    return str(path)


@pytest.fixture
def run(model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: main(["attribute", "--model_file", model_file, *arguments])


def test_data(run, model_file, tmp_path, capsys):
    run("--data", "digits", "--count", "10", "--methods", "bcos,gradient,guided_backprop", "--out", "found")
    printed = capsys.readouterr().out
    assert "saved found/gallery.png, table.csv and attributions.npz" in printed
    hint = shlex.split(printed.split("next: bcos-eval localise ")[1].split("   (scores where")[0])
    assert hint == ["--model_file", f"bcos={model_file}", "--methods", "bcos,gradient,guided_backprop"]
    assert list(localise._named([hint[1]], "model_file")) == ["bcos"]
    arrays = np.load(tmp_path / "found" / "attributions.npz")
    # the first is the first test image, the last the last
    images, labels = load_data("digits").test[[0, 359]]
    assert np.array_equal(arrays["images"][[0, -1]], images.numpy())
    model = TrainedClassifier.load(model_file).model
    expected = explain(model, to_unit_range(torch.from_numpy(arrays["images"])))
    assert arrays["target"].tolist() == expected.target.tolist()
    np.testing.assert_allclose(arrays["bcos"], expected.contribution_map, rtol=1e-4, atol=1e-9)
    with (tmp_path / "found" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["bcos", "gradient", "guided_backprop"] * 10
    assert rows[-1]["image"] == f"digits 359 ({int(labels[1])})"
    assert [row["target"] for row in rows[::3]] == [str(k) for k in arrays["target"]]
    assert [row["coincides_with"] for row in rows[:3]] == ["", "guided_backprop", "gradient"]
    np.testing.assert_allclose([float(row["residual"]) for row in rows[::3]], expected.completeness_error, atol=1e-6)
    assert rows[1]["residual"] == ""
    assert all(float(row["seconds"]) > 0 for row in rows)
    with Image.open(tmp_path / "found" / "gallery.png") as picture:
        assert min(picture.size) > 600


def test_files_and_one_target(run, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(14):  # more than are drawn
        Image.fromarray(np.full((20, 30, 3), 10 * k, np.uint8)).save(folder / f"{k:02}.png")
    run("pictures", "--methods", "saliency,rise", "--target", "7", "--seed", "3")
    arrays = np.load(tmp_path / "attributions" / "attributions.npz")
    assert arrays["saliency"].shape == arrays["rise"].shape == (14, 8, 8)
    assert arrays["target"].tolist() == [7] * 14
    assert arrays["names"][1] == "pictures/01.png"


def test_a_method_that_cannot_work_is_left_out(run, tmp_path, capsys, monkeypatch):
    def refuses(subject, images, target):
        raise InputError("saliency: not on this network")

    monkeypatch.setitem(METHODS._entries, "saliency", Method("saliency", "", "a pass", refuses))
    run("--data", "digits", "--count", "2", "--methods", "quick", "--baseline", "zero", "--out", "found")
    assert "left out: saliency: saliency: not on this network" in capsys.readouterr().out
    assert set(METHODS) - {"saliency"} > set(np.load(tmp_path / "found" / "attributions.npz")) & set(METHODS) > {"bcos"}
    with pytest.raises(SystemExit):
        run("--data", "digits", "--count", "2", "--methods", "saliency")
    assert "no method worked: saliency: not on this network" in capsys.readouterr().err


def test_what_no_named_method_can_compare_with_is_refused_before_pictures_are_read(run, monkeypatch, capsys):
    monkeypatch.setattr(attribute, "_read", lambda *_: pytest.fail("read"))
    with pytest.raises(SystemExit):
        run("--data", "digits", "--methods", "deeplift,rise", "--baseline", "zero")
    assert 'baseline: "zero" is of the encoded input' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give image files, or --data NAME"),
        (("a.png", "--data", "digits"), "give image files, or --data NAME"),
        (("--data", "digits", "--count", "0"), "--count: expected at least 1, got 0"),
        (("a.png",), "a.png: no such file"),
        (("a.png", "--count", "6"), "--count: belongs to --data; of files all are taken"),
        (("--data", "digits", "--variant=bcos"), "--variant: belongs to --model; other models know their own"),
        (("--data", "digits", "--methods", "bcos,limes"), 'unknown method "limes"; did you mean "lime"?'),
        (("--data", "digits", "--target", "eight"), 'unknown class "eight"'),
        (("--data", "digits", "--methods", "bcos", "--baseline", "grey"), "--baseline: none of bcos compares with one"),
        (("--data", "digits", "--methods", "rise", "--baseline", "zero"), 'baseline: "zero" is of the encoded input'),
    ],
)
def test_mistakes(run, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
