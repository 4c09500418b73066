"""The whole way: workers, one of them killed, a server, tests, a report; and what is refused before any of it."""

import pathlib
import threading
import time

import psutil
import pytest
from bcos_core.run.config import load_dict
from bcos_eval.cli import main

SMALL = ["--epochs", "1", "--num_explained", "4", "--split.val", "0"]


def kill_a_unit_at_work(killed):
    """Kill -9 the first worker that has a training under way."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(pathlib.Path("studies/killed/logs").glob("*-r0-*.log")):
            break
        time.sleep(0.1)
    for child in psutil.Process().children():
        if child.status() != psutil.STATUS_ZOMBIE and "bcos_eval.cli" in child.cmdline() and not killed:
            child.kill()
            killed.append(child.pid)


def test_study_with_a_killed_worker_has_every_unit_once(project, capsys):
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_unit_at_work, args=(killed,))
    killer.start()
    main(["crossval", "digits", "--arm", "bcos", "--arm", "baseline", "--folds", "2", "--name", "killed", *SMALL])
    killer.join()
    printed = capsys.readouterr()
    assert killed
    assert "started again, its unit goes on" in printed.err
    assert "baseline - bcos" in printed.out
    assert "4 runs of" in printed.out

    from bcos_core.run.tracking import _client

    client = _client()
    (experiment,) = [e for e in client.search_experiments() if e.name == "study/killed"]
    runs = [r for r in client.search_runs([experiment.experiment_id]) if "unit" in r.data.tags]
    assert sorted(r.data.tags["unit"] for r in runs) == [
        "baseline-r0-f0-s0",
        "baseline-r0-f1-s0",
        "bcos-r0-f0-s0",
        "bcos-r0-f1-s0",
    ]
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert len({r.data.tags["mlflow.parentRunId"] for r in runs}) == 2
    by_fold = {(r.data.tags["arm_name"], r.data.tags["fold"]): r.data.params["seed"] for r in runs}
    assert by_fold["bcos", "0"] == by_fold["baseline", "0"] != by_fold["bcos", "1"]
    (summary,) = [r for r in client.search_runs([experiment.experiment_id]) if "is_summary" in r.data.tags]
    assert "report.html" in {a.path for a in client.list_artifacts(summary.info.run_id)}
    page = (project / "studies/killed/report/report.html").read_text()
    assert "completeness error" in page.lower()

    main(["compare", "killed", "--metric", "loss"])
    assert "loss (lower is better)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["crossval", "digits", "--arm", "bcos", "--arm", "baseline", "--name", "killed", *SMALL])
    assert 'there is a study "killed" already; --resume killed goes on' in capsys.readouterr().err
    main(["crossval", "--resume", "killed"])  # nothing is left to do: the report is written again
    assert "report: studies/killed/report/report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "bcos"], "a comparison needs at least two arms, got 1"),
        (["--arm", "bcos", "--arm", "bcos"], 'two arms are called "bcos"'),
        (["--arm", "bcos", "--arm", "bkos"], "expected one of bcos, baseline, standard, or NAME:OPTION=VALUE"),
        (["--arm", "bcos", "--arm", "x:bb=2"], 'unknown option "bb"'),
        (["--arm", "bcos", "--arm", "x:b=0.5"], "--b: expected a finite number >= 1, got 0.5"),
        (["--arm", "bcos", "--arm", "x:seed=2"], '"seed" is the study\'s to set'),
        (["--arm", "bcos", "--arm", "baseline", "--folds", "1"], "one fold and one seed are one value"),
        (["--arm", "bcos", "--arm", "baseline", "--folds", "1", "--repeats", "2"], "with --folds 1 there are none"),
        (["--arm", "bcos", "--arm", "baseline", "--split.folds", "3"], "the study sets it, from --folds"),
        (["--arm", "bcos", "--arm", "baseline", "--control", "plain"], 'no arm "plain"; there are bcos, baseline'),
        (["--arm", "bcos", "--arm", "baseline", "--contrast", "bcos"], 'expected ARM,CONTROL, got "bcos"'),
        (["--arm", "bcos", "--arm", "baseline", "--workers", "-1"], "--workers: expected at least 0, got -1"),
        (["--arm", "bcos", "--arm", "baseline", "--metric", "acuracy"], 'unknown metric "acuracy"'),
        (["--arm", "bcos", "--arm", "baseline", "--split.test", "0.3"], "with folds each is the test once"),
        (["--arm", "bcos", "--arm", "baseline", "--trials", "3"], "belong to --space"),
        (["--arm", "bcos", "--arm", "baseline", "--devices", "2"], "each training has a worker of its own"),
        (["--arm", "bcos", "--arm", "x:b=1.5", "--space", "b=1..2"], "the arms differ in b"),
        (["--arm", "bcos", "--arm", "baseline", "--alpha", "5"], "--alpha: expected a level between 0 and 1, got 5.0"),
        (["--arm", "bcos", "--arm", "baseline", "--retry"], "--retry: belongs to --resume"),
        (["--resume", "nothing"], 'no study "nothing": no queue at'),
        (["--arm", "bcos", "--arm", "baseline", "--folds", "175"], "arm bcos: 175 folds: class 8 has only 174 samples"),
        (["--arm", "bcos", "--arm", "x:data=folder:y"], 'another "data" than the first arm'),
        (["--arm", "bcos", "--arm", "baseline", "--space", "bb=1..2"], 'unknown option "bb"'),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(project, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main(["crossval", *words])
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("bcos-eval crossval: error: ")
    assert message in error


def test_a_store_that_cannot_be_reached_is_said_at_once(project, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(SystemExit) as ended:
        main(["crossval", "digits", "--arm", "bcos", "--arm", "baseline", "--name", "far", *SMALL])
    assert ended.value.code == 2
    assert "MLflow server http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err


def test_a_study_can_wait_for_workers_from_elsewhere(project, capsys):
    arms = ["--arm", "bcos", "--arm", "baseline:optim.lr=0.01", "--folds", "2"]
    main(["crossval", "digits", *arms, "--name", "later", "--workers", "0", *SMALL])
    assert "later waits for workers: bcos-eval worker later" in capsys.readouterr().out
    plan = load_dict(project / "studies/later/study.json")
    assert plan["arms"]["baseline"]["variant"] == "baseline"  # a known name keeps its meaning beside options
    assert plan["arms"]["baseline"]["optim"]["lr"] == 0.01
    with pytest.raises(SystemExit):
        main(["report", "later"])
    assert "no unit of later is done: none has run" in capsys.readouterr().err
