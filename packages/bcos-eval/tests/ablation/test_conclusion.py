"""An ablation's answer from units that never ran: what is played, left out, kept and said."""

import json

import numpy as np
import pandas as pd
import pytest
from bcos_core.run.config import to_dict
from bcos_core.run.error import InputError
from bcos_core.run.tracking import RunRecord, find_tagged
from bcos_eval import conclusion
from bcos_eval.ablation import conclusion as ablation_conclusion
from bcos_eval.ablation import exponents
from bcos_eval.ablation.conclusion import Ablation, conclude_ablation
from bcos_eval.commands.planning import new_queue
from bcos_eval.design import Design
from bcos_eval.localisation import study as localisation_study
from bcos_eval.localisation.study import UnitScores
from bcos_eval.study import Study, study_folder
from bcos_vision.config import ExponentConfig, TrainConfig
from rich.console import Console

ARMS = {
    "B 2": TrainConfig(),
    "B 1": TrainConfig(b=1),
    "B by layer": TrainConfig(exponent=ExponentConfig(learn="layer")),
}
WEAK = {"norm none": TrainConfig(norm="none")}
ACCURACY = {"B 2": 0.9, "B 1": 0.95, "B by layer": 0.92, "norm none": 0.2}
POINTS = {"B 2": 0.6, "B 1": 0.2, "B by layer": 0.5}
FOLDS = 3
CONSOLE = Console(stderr=True)


class Adapter:
    """Has no predictions of what never ran, and draws nothing."""

    program, secondary, says = "bcos-vision", ("completeness_error",), {}

    def predictions(self, run_id):
        return None

    def draw_explanations(self, runs, path):
        return None


def score(run_id):
    arm, fold = run_id.split("#")
    return POINTS[arm] + 0.01 * int(fold) * len(arm)


@pytest.fixture
def played(monkeypatch):
    """What the game was asked for; scores are made up."""
    calls = []

    def play(states, arms, rules, methods):
        assert {s.unit.arm for s in states} == set(arms)  # whoever is left out has no run in the game
        assert methods == ["bcos"]
        calls.append((list(arms), rules))
        ids = [s.result["run_id"] for s in states if s.state == "done"]
        frame = pd.DataFrame({"run_id": ids, "localisation": [score(run_id) for run_id in ids]})
        asked = {"side": rules.side, "number": rules.number, "threshold": rules.threshold, "smooth": rules.smooth}
        folds = [{"repeat": 0, "fold": i, "seed": 0, "grids": 11 + i, "grids_hash": ""} for i in range(FOLDS)]
        return UnitScores(frame, {**asked, "methods": methods, "folds": folds})

    def read(run_id):
        logged = {"b/mean": 1.5, "b/min": 1.25, "b/max": 1.75} if run_id.startswith("B by") else {}
        return RunRecord(run_id, "", "FINISHED", {}, logged)

    monkeypatch.setattr(localisation_study, "localise_units", play)
    monkeypatch.setattr(exponents, "read_run", read)
    monkeypatch.setattr(conclusion, "load_adapter", lambda package: Adapter())
    return calls


def finished(arms, what="b"):
    """The queue of a study whose units are all done."""
    values = {name: to_dict(config) for name, config in arms.items()}
    data = {"name": "digits", "fingerprint": "", "num_images": 1797}
    plan = Study("small", "vision", values, Design(folds=FOLDS), "accuracy", "B 2", 0.005, data=data)
    queue = new_queue(plan, None)[0]
    Ablation(what).save("small")
    while (attempt := queue.claim()) is not None:
        unit = attempt.unit
        metrics = {"accuracy": ACCURACY[unit.arm] + 0.01 * unit.fold**2, "completeness_error": 1e-6 * (1 + unit.fold)}
        result = {"num_train": 1198, "num_test": 599, "seconds": 2.0 + unit.fold, "run_id": f"{unit.arm}#{unit.fold}"}
        queue.complete(attempt, result | {"metrics": metrics})
    return queue


def test_one_table_and_one_picture(project, played, capsys):
    queue = finished(ARMS)
    conclude_ablation(queue, Ablation.load("small"), console=CONSOLE)
    folder = study_folder("small")
    frame = pd.read_csv(folder / "ablation.csv").set_index("arm")
    assert frame.index.tolist() == list(ARMS)
    assert frame.loc["B by layer", ["b_mean", "b_min", "b_max"]].tolist() == [1.5, 1.25, 1.75]
    for arm in ARMS:
        values = np.array([score(f"{arm}#{fold}") for fold in range(FOLDS)])
        assert frame["localisation"][arm] == pytest.approx(values.mean())
        assert frame["localisation_sd"][arm] == pytest.approx(values.std(ddof=1))
        assert frame["accuracy"][arm] == pytest.approx(ACCURACY[arm] + 0.01 * 5 / 3)
        assert frame["completeness_error"][arm] == pytest.approx(2e-6)
        assert frame["seconds"][arm] == pytest.approx(3.0)
    said = capsys.readouterr().out
    assert "localisation: 11 to 13 grids of 3x3 a unit" in said
    assert "no B was logged" not in said
    assert 'against "B 2", adjusted over the contrasts' in said
    page = (folder / "ablation.md").read_text()
    assert "| B by layer | 1.50 \\[1.25, 1.75\\] | 93.67% ± 2.08 pp |" in page
    assert (folder / "tradeoff.png").stat().st_size > 1000
    assert "localisation" in (folder / "report" / "report.html").read_text()
    record = find_tagged("study/small", {"mlflow.runName": "ablation"})
    assert record is not None


def test_what_was_played_is_not_played_again_but_by_other_rules(project, played):
    queue = finished(ARMS)
    for changes in ({}, {}, {"confidence": 0.25}, {"confidence": 0.25}, {"weak": 1.0}, {"weak": 1.0}):
        ablation_conclusion._localise(queue.plan, queue.states(), Ablation("b", **changes), CONSOLE)
    # at confidence 0.5 again, and by all but the arms below the control, of which there are none
    assert [(len(arms), rules.threshold) for arms, rules in played] == [(3, 0.5), (3, 0.25), (3, 0.5)]
    scores = study_folder("small") / "localisation.csv"
    pd.read_csv(scores)[:-3].to_csv(scores, index=False)  # units were done since
    ablation_conclusion._localise(queue.plan, queue.states(), Ablation("b"), CONSOLE)
    assert len(played) == 4


def test_an_arm_that_knows_too_little_does_not_play(project, played, capsys):
    queue = finished({**ARMS, **WEAK}, "design")
    conclude_ablation(queue, Ablation("design"), console=CONSOLE)
    assert [arms for arms, _ in played] == [list(ARMS)]
    said = capsys.readouterr().out
    assert "localisation is left out of norm none: accuracy 21.67%, below 0.5 of the control's" in said
    assert "localisation is left out, units were done since" not in said
    folder = study_folder("small")
    frame = pd.read_csv(folder / "ablation.csv").set_index("arm")
    assert frame["localisation"].notna().tolist() == [True, True, True, False]
    assert frame["accuracy"].notna().all()
    assert json.loads((folder / "localisation.json").read_text())["left_out"].keys() == {"norm none"}
    assert "localisation" in (folder / "report" / "report.html").read_text()
    assert (folder / "tradeoff.png").stat().st_size > 1000

    POINTS["norm none"] = 0.1
    try:
        conclude_ablation(queue, Ablation("design", weak=0.1), console=CONSOLE)
    finally:
        del POINTS["norm none"]
    assert pd.read_csv(folder / "ablation.csv")["localisation"].notna().all()


def test_too_few_grids_end_localisation_not_the_study(project, played, monkeypatch, capsys):
    def refuses(*_):
        raise InputError("--grid 3: 0 images are left; lower --confidence or --grid")

    monkeypatch.setattr(localisation_study, "localise_units", refuses)
    conclude_ablation(finished(ARMS), Ablation("b"), console=CONSOLE)
    said = capsys.readouterr().out
    assert "localisation is not measured: --grid 3: 0 images are left; lower --confidence or --grid" in said
    assert "bcos-eval ablate --resume small" in said
    assert "the weakest arm that plays is B 2, accuracy 91.67%" in said
    folder = study_folder("small")
    frame = pd.read_csv(folder / "ablation.csv")
    assert "localisation" not in frame
    assert frame["accuracy"].notna().all()
    assert (folder / "tradeoff.png").stat().st_size > 1000


def test_only_an_ablation_is_taken_up_as_one(project):
    with pytest.raises(InputError, match=r'"nothing" is no ablation, it has no ablation\.json; there is no such study'):
        Ablation.load("nothing")
    finished(ARMS)
    assert Ablation.load("small") == Ablation("b")
    (study_folder("small") / "ablation.json").unlink()
    with pytest.raises(InputError, match=r"no ablation\.json; bcos-eval crossval --resume small"):
        Ablation.load("small")
