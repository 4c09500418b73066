"""``bcos-eval ablate``: the whole way once; what it plans; what it refuses."""

import numpy as np
import pandas as pd
import pytest
from bcos_core.run.config import load_dict
from bcos_eval.ablation.conclusion import Ablation
from bcos_eval.cli import main
from bcos_eval.commands.ablate import _own_norm
from bcos_vision.config import TrainConfig

B = ["--what", "b"]
SMALL = ["--num_explained", "4", "--split.val", "0", "--folds", "1", "--seeds", "2"]


def test_the_whole_way(project, capsys):
    """Two arms, two seeds, an epoch: enough for images that both know; at confidence 0 every right one counts."""
    arms = [*B, "--fixed", "2", "--forms", "global", "--objectives", "none"]
    game = ["--grid", "2", "--grids", "1", "--confidence", "0"]
    training = ["--epochs", "1", "--optim.warmup_epochs", "0"]
    main(["ablate", "digits", *arms, *game, *training, *SMALL, "--name", "whole", "--workers", "1"])
    folder = project / "studies" / "whole"
    frame = pd.read_csv(folder / "ablation.csv").set_index("arm")
    assert frame.index.tolist() == ["B 2", "B global"]
    for metric in ("accuracy", "localisation"):
        assert frame[metric].between(0, 1).all()
    units = pd.read_csv(folder / "scores.csv")
    for arm, rows in units.groupby("arm"):
        for metric in ("accuracy", "localisation", "completeness_error", "seconds"):
            assert frame[metric][arm] == pytest.approx(rows[metric].mean())
            assert frame[f"{metric}_sd"][arm] == pytest.approx(np.std(rows[metric], ddof=1))
    assert (folder / "tradeoff.png").stat().st_size > 1000
    assert (folder / "report" / "report.html").exists()
    said = capsys.readouterr().out
    assert "localisation: 1 grid of 2x2 a unit" in said
    assert "saved in studies/whole: ablation.csv, ablation.md, tradeoff.png" in said
    assert Ablation.load("whole") == Ablation("b", grid=2, grids=1, confidence=0)


def test_arms_and_rules_are_planned(project, capsys):
    game = ["--confidence", "0.25", "--weak", "0.75"]
    factors = ["--factors", "exponent,loss", "--fixed", "1.5,1", "--exponent.lr", "0.1"]
    main(["ablate", "digits", *factors, *game, *SMALL, "--epochs", "7", "--name", "later", "--workers", "0"])
    assert "later waits for workers: bcos-eval worker later" in capsys.readouterr().out
    plan = load_dict(project / "studies/later/study.json")
    assert list(plan["arms"]) == ["bcos", "B 1.5", "B 1", "B global", "B by layer", "B by channel", "cross-entropy"]
    assert {arm["epochs"] for arm in plan["arms"].values()} == {7}
    assert [arm["b"] for arm in plan["arms"].values()] == [2, 1.5, 1, 2, 2, 2, 2]
    assert [arm["exponent"]["lr"] for arm in plan["arms"].values()] == [0.02, 0.02, 0.02, 0.1, 0.1, 0.1, 0.02]
    assert (plan["control"], plan["metric"], plan["rope"]) == ("bcos", "accuracy", 0.005)
    assert plan["design"] == {"folds": 1, "repeats": 1, "seeds": [0, 1]}
    assert Ablation.load("later") == Ablation("design", confidence=0.25, weak=0.75)

    main(["ablate", "--resume", "later", "--grid", "2", "--workers", "0"])  # rules may change, arms may not
    assert Ablation.load("later") == Ablation("design", grid=2, confidence=0.25, weak=0.75)
    with pytest.raises(SystemExit):
        main(["ablate", "--resume", "later", "--fixed", "1"])
    assert "--resume takes everything as planned; only --workers" in capsys.readouterr().err


def test_a_sweep_is_compared_with_the_usual_exponent(project, capsys):
    forms = ["--forms", "layer", "--objectives", "at_least,none", "--bounds", "1.75"]
    for name, more in (("usual", []), ("first", ["--fixed", "1.25,1.5"]), ("asked", ["--control", "B by layer"])):
        main(["ablate", *B, *forms, *more, *SMALL, "--name", name, "--workers", "0"])
    plans = {name: load_dict(project / f"studies/{name}/study.json") for name in ("usual", "first", "asked")}
    assert {name: plan["control"] for name, plan in plans.items()} == {
        "usual": "B 2",
        "first": "B 1.25",
        "asked": "B by layer",
    }
    assert list(plans["first"]["arms"]) == ["B 1.25", "B 1.5", "B by layer at least 1.75", "B by layer"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--what", "c"], '--what: unknown ablation "c". Known: b, design'),
        ([*B, "--fixed", "2,0.5"], '--fixed: expected numbers of at least 1, separated by commas, got "0.5"'),
        ([*B, "--fixed", "2,inf"], 'of at least 1, separated by commas, got "inf"'),
        ([*B, "--bounds", "0.9"], '--bounds: expected numbers of at least 1, separated by commas, got "0.9"'),
        ([*B, "--strengths=-1"], "--strengths: expected numbers of at least 0"),
        ([*B, "--strengths", "a"], '--strengths: expected numbers of at least 0, separated by commas, got "a"'),
        ([*B, "--forms", "layers"], 'unknown form "layers"; did you mean "layer"?'),
        ([*B, "--factors", "norm"], "--factors: belongs to --what design"),
        (["--bounds", "2"], "--bounds: belongs to --what b"),
        (["--factors", "norms"], 'unknown factor "norms"; did you mean "norm"?'),
        ([*B, "--b", "1"], "arm B global: --b: a learnt exponent starts above 1, where it can move; got 1.0"),
        (["--b", "0.5"], "--b: expected a finite number >= 1, got 0.5"),
        (["--factors", "norm", "--exponent.lr", "0.1"], "--exponent.lr: belongs to --factors exponent"),
        ([*B, "--exponent.lr", "-1"], "arm B global: --exponent.lr: expected a positive number, got -1.0"),
        (["--exponent.learn", "layer"], "--exponent.learn: the ablation sets it"),
        (["--variant", "baseline"], '--variant: what is changed in an ablation is a B-cos network, got "baseline"'),
        (["--control", "B 7"], 'no arm "B 7"; there are bcos, B 1'),
        ([*B, "--forms", ""], 'unknown form ""'),
        (["--folds", "1"], "one fold and one seed are one value"),
        (["--grid", "1"], "--grid: expected at least 2, got 1"),
        (["--confidence", "50"], "--confidence: expected a probability from 0 to below 1, got 50"),
        (["--weak", "2"], "--weak: expected a share from 0 to 1, got 2"),
        (["--package", "ode"], '--package: ablations are of vision, got "ode"'),
        (["--resume", "nothing"], '--resume: "nothing" is no ablation, it has no ablation.json'),
        (["--arm", "bcos"], "unknown option --arm"),
    ],
)  # fmt: skip
def test_what_is_no_ablation_is_refused_in_a_line(project, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main(["ablate", *words])
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("bcos-eval ablate: error: ")
    assert message in error


@pytest.mark.parametrize(("model", "norm"), [("resnet20", "batch_uncentered"), ("convnext_tiny", None)])
def test_the_norm_that_a_network_has_is_known(model, norm):
    assert _own_norm(TrainConfig(model=model)) == norm
