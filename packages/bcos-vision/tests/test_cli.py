"""The command as a person meets it: results on standard output, a mistake in one line on standard error, code 2."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
from bcos_vision import cli
from bcos_vision.config import TrainConfig
from PIL import Image


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
        (("train", "--resume", ""), 'run "": no such run'),
        (("evaluate",), "give one of --run RUN_ID and --model_file FILE"),
        (("explain", "picture.png"), "give one of --run RUN_ID and --model_file FILE"),
        (("explain", "--run", "0123abcd"), "images"),
        (("models", "--all"), "unknown option --all"),
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


def test_models_lists_every_model(capsys):
    run("models")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 5 * 3
    assert any(line.split()[:2] == ["resnet20", "bcos"] for line in lines)


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
    run("explain", "--run", run_id, "picture.png", "--target", "ant", "--out", "ant.png")
    assert "ant: logit" in capsys.readouterr().out
    assert png_width(project / "ant.png") > 500
    run("explain", "--model_file", f"runs/{run_id}/model.safetensors", "picture.png", "--out", "more")
    assert (project / "more" / "picture-explained.png").exists()
    capsys.readouterr()

    (project / "text.png").write_text("no image")
    assert "text.png: not an image" in mistake("explain", "--run", run_id, "picture.png", "text.png", "--out", "none")
    assert not (project / "none").exists()
    (project / "other").mkdir()
    shutil.copy(picture, project / "other" / "picture.jpg")
    assert "two images would both be written to" in mistake(
        "explain", "--run", run_id, "picture.png", "other/picture.jpg"
    )
    assert "text.png: cannot write there" in mistake(
        "explain", "--run", run_id, "picture.png", "--out", "text.png/x.png"
    )
    assert "text.png: cannot write there" in mistake("evaluate", "--run", run_id, "--out", "text.png")
    run("evaluate", "--run", run_id, "--data", f"folder:{image_folder / 'train'}", "--out", "whole")
    assert ": 60 images" in capsys.readouterr().out  # all of it, not the share a training would hold out
    assert 'unknown class "wasp"' in mistake("explain", "--run", run_id, "picture.png", "--target", "wasp")
    assert "digits has 10 classes" in mistake("evaluate", "--run", run_id, "--data", "digits")
    assert "no readable safetensors" in mistake("evaluate", "--model_file", "picture.png", "--data", "digits")
    assert "is finished" in mistake("train", "--resume", run_id)


def test_every_option_of_the_command_line_is_a_field_of_the_configuration():
    promised = {"data", "model", "variant", "b", "max_out", "epochs", "batch_size", "seed"}
    assert promised <= {f.name for f in dataclasses.fields(TrainConfig)}
