"""The command as a person meets it: results on standard output, a mistake in one line on standard error, code 2."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys

import bcos_core
import numpy as np
import pytest
import torch
from bcos_vision import cli, create_model, list_models
from bcos_vision.config import TrainConfig
from bcos_vision.data import read_image
from bcos_vision.models import TrainedClassifier, aliases
from PIL import Image
from safetensors.torch import save_file


def run(*arguments):
    cli.main(list(arguments))


def png_width(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.width


@pytest.fixture
def mistake(capsys):
    """Run a command that must fail; returns its one line."""

    def run_and_read(*arguments):
        with pytest.raises(SystemExit) as stopped:
            run(*arguments)
        captured = capsys.readouterr()
        assert stopped.value.code == 2
        assert captured.err.count("\n") == 1, captured.err
        assert not captured.out.strip()
        return captured.err

    return run_and_read


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("trian",), 'bcos-vision: error: unknown command "trian"; did you mean "train"?'),
        (("train", "digit"), 'unknown preset "digit"; did you mean "digits"?'),
        (("train", "--dta", "digits"), "unknown option --dta; did you mean --data?"),
        (("train", "--optim.lrr", "1"), "unknown option --optim.lrr; did you mean --optim.lr?"),
        (("train", "digits", "surplus"), "unexpected argument surplus"),
        (("train", "--data", "digts"), 'unknown data "digts"; did you mean "digits"?'),
        (("train", "--data", "folder:"), 'data folder "": no such folder (--data folder:PATH)'),
        (("train", "folder"), 'data folder "": no such folder (--data folder:PATH)'),
        (("train", "--model", "resnet22"), 'unknown model "resnet22"; did you mean "resnet'),
        (("train", "--norm", "batchnorm"), 'unknown norm "batchnorm"; did you mean "batch"?'),
        (("train", "--variant", "basline"), 'got "basline"; did you mean "baseline"?'),
        (("train", "--b", "0.99"), "--b: expected a finite number >= 1, got 0.99"),
        (("train", "--b", "nan"), "--b: expected a float, got nan"),
        (("train", "--epochs", "few"), "--epochs: expected a int, got few"),
        (("train", "--split.test", "1"), "--split.test: expected a share in [0, 1), got 1.0"),
        (("train", "--config", "nowhere.yaml"), "--config: File does not exist"),
        (("train", "--resume", "0123", "--epochs", "3"), "--resume takes the run's own configuration"),
        (("train", "digits", "--resume", "0123"), "--resume takes the run's own configuration"),
        (("train", "--resume", ""), 'run "": no such run'),
        (("evaluate",), "give one of --run RUN_ID and --model_file FILE"),
        (("explain", "picture.png"), "give one of --run RUN_ID and --model_file FILE"),
        (("explain", "--run", "0123abcd"), "images"),
        (("explain", "p.png", "--run", "0", "--format", "jpg"), '--format: expected png, npz or png,npz, got "jpg"'),
        (("explain", "p.png", "--run", "0", "--batch_size", "0"), "--batch_size: expected at least 1, got 0"),
        (("explain", "p.png", "--run", "0", "--classes", "1", "--compare", "1", "2"), "give one of them"),
        (("explain", "p.png", "--run", "0", "--model", "resnet20"), "--model: belongs to --model_file"),
        (("explain", "p.png", "--run", "0", "--class_names", "x"), "--class_names: belongs to --model"),
        (("evaluate", "--model_file", "none.pth", "--model", "resnet20", "--data", "digits"), "none.pth: no such file"),
        (("evaluate", "--model_file", "x", "--model", "resnet22"), 'unknown model "resnet22"'),
        (("evaluate", "--run", "0", "--num_explained", "-1"), "--num_explained: expected at least 0, got -1"),
        (("models", "--all"), "unknown option --all"),
        (("models", "--filter", "rasnet"), 'no model is called anything like "rasnet"'),
    ],
)
def test_mistakes_get_one_line(project, mistake, arguments, line):
    assert line in mistake(*arguments)
    assert {p.name for p in project.iterdir()} == {"uv.lock", "mlflow.db"}  # nothing half written


def test_no_store_and_no_run(project, mistake):
    assert 'run "0123abcd": no such run' in mistake("train", "--resume", "0123abcd")
    (project / "mlflow.db").unlink()
    assert "there is no run yet" in mistake("explain", "--run", "0123abcd", "picture.png")


def test_a_store_that_cannot_be_written(project, mistake, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'nowhere' / 'mlflow.db'}")
    assert "its folder does not exist" in mistake("train", "--epochs", "1")
    (project / "text.db").write_text("no database, and long enough that SQLite looks at its header " * 20)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'text.db'}")
    assert "file is not a database" in mistake("train", "--epochs", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in mistake("train", "--epochs", "1")
    assert not (project / "runs").exists()


@pytest.mark.parametrize("arguments", [(), ("train",), ("evaluate",), ("explain",), ("models",)])
def test_help_needs_no_heavy_library(arguments):
    code = (
        "import sys\nfrom bcos_vision.cli import main\n"
        "try: main([*sys.argv[1:], '--help'])\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'lightning', 'mlflow', 'torchvision', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: bcos-vision" in done.stdout


def test_print_config_shows_the_preset_with_the_options(capsys):
    with pytest.raises(SystemExit):
        run("train", "--b", "1.5", "--optim.lr", "0.5", "--print_config")
    printed = capsys.readouterr().out
    for line in ("data: digits", "b: 1.5", "lr: 0.5", "shift: 1"):
        assert line in printed


def test_data_chooses_the_preset_and_a_file_gives_options(project, image_folder, capsys):
    (project / "options.json").write_text(json.dumps({"data": f"folder:{image_folder}", "optim": {"lr": 0.25}}))
    with pytest.raises(SystemExit):
        run("train", "--config", "options.json", "--print_config")
    printed = capsys.readouterr().out
    for line in (f"data: folder:{image_folder}", "flip: true", "shift: 4", "lr: 0.25"):
        assert line in printed


def test_models_lists_the_models_of_a_variant(capsys):
    run("models", "--filter", "50", "--variant", "standard")
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "standard"
    names = [name for name in (*list_models(), *aliases()) if "50" in name]
    assert [line.split()[0] for line in lines] == names
    assert ["resnet50", "23.53", "M", "4087.2", "M", "224x224"] in [line.split() for line in lines]
    assert lines[-1].split() == ["resnet50_long", "resnet50"]


def test_version_says_which_kernels_are_live(capsys):
    run("--version")
    assert "kernels: CPU: " in capsys.readouterr().out


def test_train_evaluate_explain(project, image_folder, capsys, mistake):
    run("train", "--data", f"folder:{image_folder}", "--epochs", "1", "--batch_size", "16", "--augment.shift", "1")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("test accuracy ")
    assert "over 16 explained test images" in lines[1]
    assert (project / lines[2].removeprefix("explanations: ")).exists()
    run_id = lines[3].removeprefix("run id: ")
    assert run_id[:8] in lines[4]

    run("evaluate", "--run", run_id[:8], "--dtype", "float64", "--out", "scores")
    printed = capsys.readouterr().out
    assert "float64" in printed
    scores = json.loads((project / "scores" / "metrics.json").read_text())
    assert scores["completeness_error"] <= 1e-12
    assert png_width(project / "scores" / "confusion.png") > 300

    picture = project / "picture.png"
    shutil.copy(image_folder / "val" / "bee" / "000.png", picture)
    run("explain", "--run", run_id, "picture.png")
    printed = capsys.readouterr().out
    assert "= pixels " in printed
    assert png_width(project / "picture-explained.png") > 500
    run("explain", "--run", run_id, "picture.png", "--classes", "ant", "--out", "ant.png")
    assert "ant: logit" in capsys.readouterr().out
    assert png_width(project / "ant.png") > 500

    assert "text.png: cannot write there" in mistake(
        "explain", "--run", run_id, "picture.png", "--out", "ant.png/text.png/x.png"
    )
    (project / "text.png").write_text("no image")
    assert "text.png: not an image" in mistake("explain", "--run", run_id, "picture.png", "text.png", "--out", "none")
    assert not (project / "none").exists()
    assert "text.png: cannot write there" in mistake("evaluate", "--run", run_id, "--out", "text.png")
    run("evaluate", "--run", run_id, "--data", f"folder:{image_folder / 'train'}", "--out", "whole")
    assert ": 60 images" in capsys.readouterr().out  # all of it, not the share a training would hold out
    assert "digits has 1 channel(s)" in mistake("evaluate", "--run", run_id, "--data", "digits")
    assert "is finished" in mistake("train", "--resume", run_id)


def test_a_run_is_scored_on_what_it_held_out_and_on_nothing_else(project, writer, capsys, mistake):
    """However the path is written; and not at all once the split may be another."""
    writer(project / "flat", {"ant": 20, "bee": 20})
    run("train", "--data", "folder:flat", "--epochs", "1", "--device", "cpu")
    run_id = capsys.readouterr().out.split("run id: ")[1].split()[0]
    for data in ((), ("--data", "folder:flat"), ("--data", "folder:flat/"), ("--data", f"folder:{project / 'flat'}")):
        run("evaluate", "--run", run_id, *data)
        assert ": 8 images" in capsys.readouterr().out
    (project / "flat" / "ant" / "000.png").unlink()
    assert "has changed since the run" in mistake("evaluate", "--run", run_id)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A model of three classes, one more than the folder of images has, in another order."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "three.safetensors"
    TrainedClassifier(create_model("resnet20", num_classes=3), ("bee", "wasp", "ant"), (8, 8), "insects").save(path)
    return path


@pytest.fixture
def album(project, image_folder):
    """Folders in a folder, two images of the same name in different ones, and two that differ in their ending."""
    for place, name in (("a", "0.png"), ("b/c", "0.png"), ("b", "1.png"), ("b", "1.bmp")):
        (project / "album" / place).mkdir(parents=True, exist_ok=True)
        with Image.open(image_folder / "val" / ("ant" if place == "a" else "bee") / "000.png") as image:
            image.save(project / "album" / place / name)
    return project / "album"


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("float64", 1e-12)])
def test_a_folder_is_explained_into_a_folder_like_it(project, album, model_file, capsys, dtype, limit):
    (album / ".hidden").mkdir()
    shutil.copy(album / "a" / "0.png", album / ".hidden" / "0.png")
    arguments = ("explain", "album", "--model_file", str(model_file), "--format", "png,npz", "--batch_size", "3")
    run(*arguments, "--dtype", dtype, "--out", "album/found")
    printed = capsys.readouterr().out
    assert "4 images, 4 explanations" in printed
    stems = ("a/0", "b/1.bmp", "b/1.png", "b/c/0")
    made = {str(p.relative_to(album / "found")) for p in (album / "found").rglob("*") if p.is_file()}
    assert made == {"table.csv", *(f"{stem}-explained.{end}" for stem in stems for end in ("png", "npz"))}
    lines = table(album / "found" / "table.csv")
    assert [line["image"] for line in lines] == ["album/a/0.png", "album/b/1.bmp", "album/b/1.png", "album/b/c/0.png"]
    assert f"{max(float(line['completeness_error']) for line in lines):.1e}" in printed
    model = TrainedClassifier.load(model_file).model.to(getattr(torch, dtype))
    pixels = np.stack([np.asarray(Image.open(line["image"])) for line in lines]).transpose(0, 3, 1, 2)
    expected = bcos_core.explain(model, torch.tensor(pixels / 255, dtype=getattr(torch, dtype)))
    for i, (stem, line) in enumerate(zip(stems, lines, strict=True)):
        with np.load(album / "found" / f"{stem}-explained.npz") as found:
            assert found["contributions"].dtype == dtype
            np.testing.assert_allclose(found["contributions"], expected.contributions[i], rtol=1e-3, atol=1e-6)
            np.testing.assert_array_equal(found["image"], pixels[i])
            assert found["classes"][found["target"]] == line["predicted"] == line["explained"]
            logit = found["logits"][found["target"]]
            total = found["contributions"].sum(dtype=float) + found["remainder"]
            assert abs(total - logit) <= limit * max(1, abs(logit))
            assert float(line["logit"]) == logit
            assert float(line["probability"]) == pytest.approx(1 / (1 + np.exp(-float(logit))), rel=1e-5)
        with Image.open(album / "found" / f"{stem}-explained.png") as picture:
            assert picture.mode == "RGBA"
    run(*arguments, "--out", "album/found")  # its own pictures are not images to explain
    assert "4 images" in capsys.readouterr().out


def test_classes_by_name_and_number_and_all(project, album, model_file):
    run(
        "explain", "album/a/0.png", "album/b/1.png", "--model_file", str(model_file), "--classes", "ant,1", "--out", "x"
    )
    assert [line["explained"] for line in table(project / "x" / "table.csv")] == ["ant", "ant", "wasp", "wasp"]
    assert png_width(project / "x" / "a" / "0-explained" / "2-ant.png") > 500  # of a few files large pictures
    run("explain", "album", "--model_file", str(model_file), "--classes", "all", "--format", "npz", "--out", "y")
    assert len(table(project / "y" / "table.csv")) == 12
    assert {p.name for p in (project / "y" / "b" / "c" / "0-explained").iterdir()} == {
        "0-bee.npz",
        "1-wasp.npz",
        "2-ant.npz",
    }


def test_a_comparison_adds_up(project, album, model_file, capsys):
    run("explain", "album/a/0.png", "--model_file", str(model_file), "--compare", "ant", "bee", "--format", "png,npz")
    assert "ant - bee: logit" in capsys.readouterr().out
    assert png_width(project / "0-explained.png") > 1000
    with np.load(project / "0-explained.npz") as found:
        assert [found["classes"][k] for k in found["target"]] == ["ant", "bee"]
        difference = found["logits"][2] - found["logits"][0]
        assert found["contributions"].sum(dtype=float) + found["remainder"] == pytest.approx(difference, abs=1e-5)
        np.testing.assert_array_equal(
            found["contributions"], found["contributions_first"] - found["contributions_second"]
        )


def test_damaged_images_stop_everything_or_are_left_out(project, album, model_file, capsys, mistake):
    whole = (album / "b" / "1.bmp").read_bytes()
    (album / "b" / "1.bmp").write_bytes(whole[: len(whole) // 2])
    (album / "b" / "2.jpg").write_text("no image")
    arguments = ("explain", "album", "--model_file", str(model_file))
    assert "1.bmp: a damaged image" in mistake(*arguments)
    assert not (project / "explanations").exists()
    run(*arguments, "--skip_corrupt")
    captured = capsys.readouterr()
    assert "3 images, 3 explanations" in captured.out
    assert "2 left out" in captured.out
    assert [line.split(":")[1].strip() for line in captured.err.splitlines()] == ["album/b/1.bmp", "album/b/2.jpg"]
    assert len(table(project / "explanations" / "table.csv")) == 3
    assert "none of the 1 images can be read" in mistake(
        "explain", "album/b/2.jpg", "--model_file", str(model_file), "--skip_corrupt"
    )


def test_mistakes_about_pictures_and_classes(project, album, model_file, mistake):
    (project / "empty").mkdir()
    for arguments, line in (
        (("album", "--compare", "ant", "ant"), '--compare: expected two classes, got "ant" twice'),
        (("album", "--compare", "ant", "2"), '--compare: expected two classes, got "ant" twice'),
        (("album", "--classes", "ant,wsap"), 'unknown class "wsap"; did you mean "wasp"?'),
        (("album", "--classes", "3"), 'unknown class "3"'),
        (("empty",), "empty: no images in it"),
        (("nowhere",), "nowhere: no such file"),
        (("album", "--out", "album"), "--out: album is the folder of the images"),
        (("album", "--out", "x.png"), "--out: expected a folder, got x.png"),
        (("album/a/0.png", "--out", "x.jpg"), "--out: expected a folder, or for one image a .png, got x.jpg"),
        (("album/a/0.png", "--classes", "all", "--out", "x.png"), "--out: expected a folder, got x.png"),
        (("album", "--out", "album/b/1.bmp"), "--out: expected a folder, or for one image a .png, got album/b/1.bmp"),
        (("album", "--out", "uv.lock"), "uv.lock: cannot write there"),
    ):
        assert line in mistake("explain", *arguments, "--model_file", str(model_file))
    assert {p.name for p in project.iterdir()} == {"uv.lock", "mlflow.db", "album", "empty"}
    assert "no readable safetensors" in mistake("explain", "album", "--model_file", "album/a/0.png")
    assert "0.png: no readable checkpoint" in mistake(
        "explain", "album", "--model_file", "album/a/0.png", "--model", "resnet20"
    )
    save_file({"weight": torch.zeros(2)}, project / "bare.safetensors")
    assert "without the description" in mistake("explain", "album", "--model_file", "bare.safetensors")


def test_classes_of_a_folder_are_matched_by_name(project, image_folder, model_file, capsys, mistake, writer):
    run("evaluate", "--model_file", str(model_file), "--data", f"folder:{image_folder}", "--out", "scores")
    printed = capsys.readouterr().out
    assert "16 images, 2 of the model's 3 classes" in printed
    paths = sorted((image_folder / "val").glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        guess = TrainedClassifier.load(model_file).model(torch.tensor(pixels).float() / 255).argmax(1).numpy()
    truth = np.array([("bee", "wasp", "ant").index(path.parent.name) for path in paths])
    assert json.loads((project / "scores" / "metrics.json").read_text())["accuracy"] == (guess == truth).mean()
    lines = table(project / "scores" / "per_class.csv")
    assert [(line["class"], line["images"]) for line in lines] == [("bee", "8"), ("ant", "8")]
    assert [float(line["recall"]) for line in lines] == [(guess[truth == k] == k).mean() for k in (0, 2)]
    run("evaluate", "--model_file", str(model_file), "--data", f"folder:{image_folder}")
    capsys.readouterr()
    folder = model_file.parent / "evaluation-stripes"  # other data's scores stay where they are
    assert json.loads((folder / "metrics.json").read_text())["accuracy"] == (guess == truth).mean()
    writer(project / "more", {"ant": 2, "hornet": 2})
    assert 'the model does not know its class "hornet"; it knows 3 (bee, wasp, ...)' in mistake(
        "evaluate", "--model_file", str(model_file), "--data", "folder:more"
    )
    assert "--data: needed with --model_file" in mistake("evaluate", "--model_file", str(model_file))


def test_public_checkpoints_learn_their_classes_from_a_file(project, image_folder, model_file, capsys, mistake):
    """The network by its name, the number of classes from its weights, the names from a table."""
    (project / "names.csv").write_text('folder,name\nbee,"a bee, or so"\nwasp,a wasp\nant,an ant\n')
    public = ("--model_file", str(model_file), "--model", "resnet20", "--class_names", "names.csv")
    data = ("--data", f"folder:{image_folder}", "--out", "scores")
    run("evaluate", *public, *data)
    assert "2 of the model's 3 classes" in capsys.readouterr().out
    run("explain", str(image_folder / "val" / "ant" / "000.png"), *public, "--classes", "a bee, or so")
    assert "a bee, or so: logit" in capsys.readouterr().out
    assert "--class_names FILE says what the model's are called" in mistake("evaluate", *public[:4], *data)
    (project / "two.txt").write_text("bee\nant\n")
    assert "two.txt: 2 names for the 3 classes" in mistake("evaluate", *public[:5], "two.txt", *data)
    assert "another architecture" in mistake("evaluate", *public[:3], "resnet32", *data)


def test_logits_of_a_softmax_are_shown_as_one(project, image_folder, capsys):
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=2, variant="standard").eval()
    TrainedClassifier(model, ("ant", "bee"), (32, 32), "insects").save(project / "plain.safetensors")
    path = image_folder / "val" / "ant" / "000.png"
    public = ("--model_file", "plain.safetensors", "--model", "resnet20", "--variant", "standard")
    run("explain", str(path), *public, "--out", "found")
    x = read_image(path, 3, (32, 32))[None].float() / 255
    (line,) = table(project / "found" / "table.csv")
    assert float(line["probability"]) == pytest.approx(model(x).softmax(1).max().item(), rel=1e-4)


def test_every_option_of_the_command_line_is_a_field_of_the_configuration():
    promised = {"data", "model", "variant", "b", "max_out", "epochs", "batch_size", "seed"}
    assert promised <= {f.name for f in dataclasses.fields(TrainConfig)}
