import datetime

import numpy as np
import pandas as pd
import pytest
from bcos_eval.design import Design
from bcos_eval.report import Data, Picture, StudyReport, Timings, draw_pictures
from bcos_eval.scores import ScoreTable
from bcos_eval.stats import compare_arms
from PIL import Image

METRICS = ("accuracy", "loss")


@pytest.fixture
def make_table():
    """Scores of 5 folds; each arm's accuracy is ``gap`` above the one before."""

    def make(arms=("plain", "bcos"), *, gap=0.02, missing=0):
        rng = np.random.default_rng(0)
        rows = []
        for i, arm in enumerate(arms):
            for fold in range(5):
                accuracy = 0.9 + gap * i + rng.normal(0, 0.004)
                unit = {"arm": arm, "repeat": 0, "fold": fold, "seed": 0, "num_train": 800, "num_test": 200}
                rows.append(
                    {**unit, "seconds": 61.0 + fold, "run_id": "7f", "accuracy": accuracy, "loss": 1 - accuracy}
                )
        return ScoreTable(pd.DataFrame(rows[: len(rows) - missing]), Design())

    return make


@pytest.fixture
def make_study(make_table, tmp_path):
    """A study with a picture of its own; pictures of scores if asked."""

    def make(arms=("plain", "bcos"), *, metrics=METRICS, gap=0.02, missing=0, drawn=False, alpha=0.05, **fields):
        table = make_table(arms, gap=gap, missing=missing)
        shared = table.shared()
        comparisons = (
            [compare_arms(shared, metric, rope=0.005, alpha=alpha) for metric in metrics] if len(arms) > 1 else []
        )
        gallery = tmp_path / "source" / "gallery.png"
        gallery.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), "navy").save(gallery)
        given = {
            "title": "Digits",
            "question": "Is bcos better than plain on digits?",
            "made": datetime.date(2026, 11, 24),
            "arms": {arm: {"model": "resnet20", "b": 1 + i} for i, arm in enumerate(arms)},
            "data": Data("digits", "1f0c", {"images": 1000}, ("zero", "one")),
            "table": table,
            "comparisons": comparisons,
            "pictures": draw_pictures(comparisons, tmp_path / "source") if drawn else (),
            "galleries": (Picture(gallery, "What they see."),),
            "timings": Timings(training_seconds=630.0, run_seconds=800.0, wall_seconds=420.0, workers=2),
            "versions": {"torch": "2.15.0"},
            "commands": ("uv run bcos-eval crossval --data digits",),
            "tracking": "MLflow experiment digits",
        }
        return StudyReport(**{**given, **fields})

    return make
