"""``localise --study`` on a study whose runs are untrained networks: what is scored, kept and reported."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from bcos_core import explain
from bcos_core.run.config import save_config
from bcos_core.run.error import InputError
from bcos_eval import conclusion
from bcos_eval.attribution import METHODS
from bcos_eval.cli import main
from bcos_eval.commands.planning import new_queue
from bcos_eval.crossval import score_table
from bcos_eval.design import Design
from bcos_eval.localisation import Prediction, Rules, contest, tile
from bcos_eval.localisation import study as localisation_study
from bcos_eval.localisation.study import localise_units
from bcos_eval.study import Study, study_folder
from bcos_vision import create_model
from bcos_vision.config import SplitConfig, TrainConfig
from bcos_vision.data import load_data, to_unit_range
from bcos_vision.models import TrainedClassifier
from PIL import Image

ARMS = ("bcos", "baseline")
FOLDS = 3


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Runs called ARM-FOLD; every answer counts as right, as no network here has learnt anything."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for arm in ARMS:
        torch.manual_seed(0)
        model = create_model("resnet20", num_classes=10, variant=arm, in_channels=1)
        TrainedClassifier(model, tuple("0123456789"), (8, 8), "digits").save(folder / f"{arm}.safetensors")
    for fold in range(FOLDS):
        config = TrainConfig(data="digits", split=SplitConfig(folds=FOLDS, fold=fold, val=0))
        save_config(config, folder / f"{fold}.json")

    def fetch(run_id, path):
        arm, fold = run_id.split("-")
        return folder / (f"{fold}.json" if path == "config.json" else f"{arm}.safetensors")

    def all_right(model, images, **_options):
        return Prediction(np.ones(len(images), bool), np.ones(len(images)), np.zeros(len(images)))

    monkeypatch.setattr(localisation_study, "fetch_artifact", fetch)
    monkeypatch.setattr(contest, "predict", all_right)


@pytest.fixture
def queue(project):
    values = {arm: {"variant": arm} for arm in ARMS}
    data = {"name": "digits", "fingerprint": "", "num_images": 1797}
    plan = Study("small", "vision", values, Design(folds=FOLDS), "accuracy", "bcos", 0.005, data=data)
    return new_queue(plan, None)[0]


def finish(queue, number):
    """Have the next units done."""
    for _ in range(number):
        attempt = queue.claim()
        unit = attempt.unit
        result = {"num_train": 1198, "num_test": 599, "seconds": 1.0, "run_id": f"{unit.arm}-{unit.fold}"}
        queue.complete(attempt, result | {"metrics": {"accuracy": 0.9 + 0.01 * unit.fold, "completeness_error": 1e-6}})


@pytest.fixture
def adapter(monkeypatch):
    class Pictures:
        """Has no predictions of what never ran, and draws nothing."""

        program, secondary, says = "bcos-vision", ("completeness_error",), {}

        def predictions(self, run_id):
            return None

        def draw_explanations(self, runs, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(path)
            return "nothing"

    monkeypatch.setattr(conclusion, "load_adapter", lambda package: Pictures())


def test_scores_are_of_the_folds_own_test_images(runs, queue):
    finish(queue, 2)
    found = localise_units(queue.states(), list(ARMS), Rules(side=2, number=2, seed=3), ["bcos", "gradient"])
    assert found.frame.columns.tolist() == ["run_id", "localisation", "gradient_localisation"]
    assert found.frame["run_id"].tolist() == ["bcos-0", "baseline-0"]
    data = load_data("digits", SplitConfig(folds=FOLDS, fold=0, val=0))
    labels = data.test.labels.numpy()
    grids = contest.draw_grids(labels, labels >= 0, side=2, number=2, seed=3, source=data.fingerprint)
    (fold,) = found.played["folds"]
    assert fold == {"repeat": 0, "fold": 0, "seed": 0, "grids": 2, "grids_hash": grids.hash}
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=10, variant="bcos", in_channels=1).eval()
    shares = []
    for indices, classes in zip(grids.indices, grids.classes, strict=True):
        mosaic = tile(to_unit_range(data.test[indices][0]), 2)
        for cell, target in enumerate(classes):
            positive = explain(model, mosaic, torch.tensor([target])).contribution_map[0].clamp(min=0).double()
            column, row = divmod(cell, 2)
            own = positive[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            shares.append(float(own.sum() / positive.sum()))
    assert found.frame["localisation"][0] == pytest.approx(np.mean(shares), rel=1e-4)


def test_a_study_without_a_whole_fold_is_refused(runs, queue):
    finish(queue, 1)
    with pytest.raises(InputError, match="no fold is finished by every arm"):
        localise_units(queue.states(), list(ARMS), Rules(side=2), ["bcos"])


def test_an_unfinished_study_and_then_the_whole_one(runs, queue, adapter, capsys):
    folder = study_folder("small")
    finish(queue, 5)
    command = ["localise", "--study", "small", "--grid", "2", "--grids", "2"]
    main(command)
    said = capsys.readouterr().out
    assert "localisation is left out" not in said
    assert said.startswith("localisation (higher is better)")
    assert said.rstrip().endswith("bcos-eval compare small --metric accuracy")
    for option in (["--out", "x"], ["--count", "7"]):
        with pytest.raises(SystemExit):
            main([*command, *option])
        assert f"{option[0]}: does not go with --study" in capsys.readouterr().err
    assert "localisation" in (folder / "report" / "report.html").read_text()
    assert pd.read_csv(folder / "localisation.csv")["run_id"].tolist() == [
        f"{arm}-{f}" for f in range(2) for arm in ARMS
    ]
    kept = json.loads((folder / "localisation.json").read_text())
    assert [fold["fold"] for fold in kept.pop("folds")] == [0, 1]
    rules = {"side": 2, "number": 2, "threshold": 0.5, "smooth": 1, "cell_size": None, "seed": 0}
    assert kept == {**rules, "methods": ["bcos"]}
    main(["compare", "small", "--metric", "localisation"])
    capsys.readouterr()

    finish(queue, 1)  # a fold more is whole, and not measured
    table = conclusion._with_localisation(score_table(queue.plan, queue.states()), folder)
    assert "localisation is left out, units were done since" in capsys.readouterr().out
    assert "localisation" not in table.metrics


def test_quick_methods_of_a_whole_study(runs, queue, monkeypatch, capsys):
    monkeypatch.setattr(conclusion, "conclude", lambda queue, console, shown: None)
    finish(queue, 2 * FOLDS)
    main(["localise", "--study", "small", "--grid", "2", "--grids", "1", "--methods", "quick"])
    table = conclusion._with_localisation(score_table(queue.plan, queue.states()), study_folder("small"))
    quick = [name for name, method in METHODS.items() if method.is_quick and name != "bcos"]
    assert table.metrics[2:] == ("localisation", *(f"{name}_localisation" for name in quick))
    assert table.frame[list(table.metrics)].notna().all(axis=None)
    assert capsys.readouterr().out == ""
