"""The commands as a person meets them: results on standard output, a mistake in one line, code 2."""

import csv
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from bcos_core.run.tracking import find_run
from bcos_ode import cli
from bcos_ode.dynamics import DynamicsConfig, fresh_starts, load_dynamics
from bcos_ode.dynamics.metrics import trajectory_nrmse
from bcos_ode.explanation import ledger
from bcos_ode.model import VariableModel
from bcos_ode.solve import solve_each
from bcos_ode.systems import SYSTEMS


def run(capsys, *arguments):
    capsys.readouterr()
    cli.main(list(arguments))
    return capsys.readouterr().out


def rows_of(text):
    """Numbers of a printed table, by the word that begins its line."""
    found = {}
    for line in text.splitlines():
        if match := re.match(r"(\S[\S ]*?)\s{2,}([-\d].*)", line):
            found[match[1]] = match[2].split()
    return found


# ---- training ----


def test_training_prints_scores_beside_references(trained):
    folder, found = trained
    run_id, out = found["dynamics"]
    head, *_ = out.splitlines()
    titles = re.split(r"\s{2,}", head.strip())
    assert titles == ["field error", "RMSE / test std", "to horizon", "outside", "ledger"]
    table = rows_of(out)
    assert list(table) == ["bcos", "sparse regression", "true equations"]
    assert table["true equations"][0] == "0"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        record = find_run(run_id)
    shown = [record.metrics[f"test/{name}"] for name in ("field_error", "nrmse_within", "nrmse", "nrmse_outside")]
    assert table["bcos"][:4] == [f"{value:.3g}" for value in shown]
    assert "the sparse regression reads:\n    x' = " in out
    assert re.search(r"accounts add up to the derivatives and to the way gone: \d\.\de-1[3-9]", out)
    assert f"bcos-ode explain --run {run_id[:8]}" in out
    assert f"pictures: runs/{run_id}/solutions.png" in out
    assert (folder / "runs" / run_id / "solutions.png").exists()


def test_other_tasks_print_theirs(trained):
    folder, found = trained
    assert rows_of(found["plain"][1]).keys() == {"mlp", "sparse regression", "true equations"}
    assert "accounts add up" not in found["plain"][1]
    table = rows_of(found["table"][1])
    assert list(table) == ["bcos", "linear", "mean"]
    assert re.split(r"\s{2,}", found["table"][1].splitlines()[0].strip()) == ["RMSE", "RMSE / training std", "R²"]
    assert found["own"][1].splitlines()[0].strip() == "RMSE / training std"  # one trajectory: a forecast
    assert re.search(r"test accuracy \d+\.\d\d%", found["digits"][1])
    for name, picture in (("table", "contributions.png"), ("digits", "explanations.png")):
        assert "contributions add up to the " in found[name][1]
        assert (folder / "runs" / found[name][0] / picture).exists()


def test_many_variables_are_printed_in_part_and_kept_whole(capsys, trained, runs):
    folder, found = trained
    run_id, out = found["many"]
    lines = out[out.index("the sparse regression reads:") :].splitlines()
    assert [line.strip().partition("'")[0] for line in lines[1:13]] == [f"concentration {k}" for k in range(12)]
    assert lines[13:15] == ["    and 2 more equations", f"    all of it: runs/{run_id}/equations.txt"]
    assert all(len(re.findall(r" [+-]\d", line)) <= 8 for line in lines[1:13])
    whole = (folder / "runs" / run_id / "equations.txt").read_text()
    assert len(whole.splitlines()) == 14
    assert len(out) < min(6000, len(whole))
    assert "all of it" not in found["dynamics"][1]

    said = run(capsys, "explain", "--run", runs["many"], "--out", "many")
    assert "the largest 6 of 15:\n  dconcentration 0/dt: " in said
    assert said.count("9 others together") == 2 * 12
    assert "  and 2 other variables\n" in said
    (line,) = re.findall(r"^  concentration 3 (\S+): (.*)$", said, re.MULTILINE)
    terms = [float(term.split()[-1]) for term in line[1].split(", ")]
    assert sum(terms) == pytest.approx(float(line[0]), abs=2e-3 * sum(map(abs, terms)))
    with np.load("many/account.npz") as account:
        assert account["contributions"].shape[1:] == (14, 15)


def printed(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        run(capsys, "train", *arguments, "--print_config")
    assert not stop.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (("lorenz", "--network.width", "7"), ("data: lorenz", "width: 7", "horizon: 15")),
        (("--seed", "1", "lorenz"), ("data: lorenz", "seed: 1")),  # wherever it stands
        (("--network.width=7", "diabetes"), ("data: diabetes", "width: 7", "lags: 2")),
        (("--data", "robertson"), ("data: robertson", "model: degree")),
        (("--data=digits", "--epochs", "3"), ("data: digits", "epochs: 3")),
        ((), ("data: lotka-volterra",)),
        (("--data", "csv:mine.csv", "--windows.lengths", "[]"), ("data: csv:mine.csv", "lengths: []")),
    ],
)
def test_preset_and_data_choose_the_options(capsys, arguments, lines):
    out = printed(capsys, *arguments)
    for line in lines:
        assert line in out


@pytest.mark.parametrize(
    ("name", "text"),
    [("options.yaml", "data: digits\nepochs: 3\n"), ("options.json", '{"data": "digits", "epochs": 3}')],
)
def test_a_file_of_options_does_so_too(capsys, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    for arguments in (("--config", str(tmp_path / name)), (f"--config={tmp_path / name}", "--seed", "4")):
        out = printed(capsys, *arguments)
        assert "epochs: 3" in out
        assert "variant: bcos" in out


# ---- scoring again ----


def test_evaluate_scores_the_same(capsys, runs):
    record = find_run(runs["dynamics"])
    out = run(capsys, "evaluate", "--run", runs["dynamics"][:8], "--out", "again")
    assert out.endswith("saved again/metrics.json\n")
    with open("again/metrics.json") as file:
        saved = json.load(file)
    assert list(saved) == ["bcos", "sparse regression", "true equations"]
    for name, value in saved["bcos"].items():
        assert value == record.metrics[f"test/{name}"], name
    assert rows_of(out)["bcos"][0] == f"{saved['bcos']['field_error']:.3g}"


def test_evaluate_scores_longer_elsewhere_and_by_another_solver(capsys, runs):
    options = ("--horizon=6", "--starts=3", "--start_seed=5", "--method=lsoda", "--rtol=1e-4", "--atol=1e-5")
    run(capsys, "evaluate", "--run", runs["dynamics"], "--out", "elsewhere", *options)
    with open("elsewhere/metrics.json") as file:
        elsewhere = json.load(file)["bcos"]
    config = DynamicsConfig(num_trajectories=5, span=3.0, horizon=6.0)
    data = fresh_starts(load_dynamics(config), 3, 5)
    field = VariableModel.load(find_model(runs["dynamics"]))
    solved = solve_each(field, data.starts, data.times, method="lsoda", rtol=1e-4, atol=1e-5)
    assert elsewhere["num_evaluations"] == solved.num_evaluations
    assert elsewhere["nrmse"] == trajectory_nrmse(solved.states, data.truth)


@pytest.mark.parametrize(("name", "row", "metric"), [("table", "bcos", "rmse"), ("digits", "bcos", "accuracy")])
def test_evaluate_of_other_tasks(capsys, runs, name, row, metric):
    out = run(capsys, "evaluate", "--run", runs[name])
    with open(f"runs/{runs[name]}/evaluation/metrics.json") as file:
        value = json.load(file)[row][metric]
    assert value == find_run(runs[name]).metrics[f"test/{metric}"]
    assert rows_of(out)[row][0] == f"{value:.3g}"


# ---- explaining ----


def test_explain_accounts_for_a_field(capsys, runs):
    out = run(capsys, "explain", "--run", runs["dynamics"], "--out", "why", "--start", "1,2.5", "--time", "0.8")
    model = VariableModel.load(find_model(runs["dynamics"]))
    data = load_dynamics(DynamicsConfig(num_trajectories=5, span=3.0, horizon=4.0))
    states = torch.from_numpy(data.truth).flatten(0, 1)
    expected = ledger(model, states, "J", order=2)  # of the equations
    with open("why/ledger.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["view", "x", "y", "equation", "x", "y", "1", "derivative"]
    assert len(rows) == 3 * 2 * len(states)  # views J and W and the equations, of two derivatives
    first = [row for row in rows if row[0] == "J" and row[3] == "dx/dt"]
    found = np.array([[float(cell) for cell in row[4:]] for row in first])
    np.testing.assert_allclose(found[:, :3], expected.contributions[:, 0], rtol=1e-12)
    np.testing.assert_allclose(found[:, :3].sum(1), found[:, 3], rtol=1e-10, atol=1e-12)

    account = np.load("why/account.npz")
    np.testing.assert_array_equal(account["states"][0], [1, 2.5])
    assert account["times"][-1] == pytest.approx(0.8)
    came = account["states"][-1] - account["states"][0]
    np.testing.assert_allclose(account["contributions"][-1].sum(-1), came, atol=1e-12)
    assert f"{came[0]:+.4g}" in out
    assert "the equations' own ledger" in out
    assert "saved why/ledger.csv, account.npz and pictures" in out


def find_model(run_id):
    from bcos_core.run.tracking import fetch_artifact

    return fetch_artifact(run_id, "model/model.safetensors")


def test_explain_of_a_stiff_field_has_no_account_unless_a_short_one(capsys, runs):
    out = run(capsys, "explain", "--run", runs["stiff"], "--out", "stiff")
    assert "no account along a trajectory: it is stiff" in out
    assert {path.name for path in pathlib.Path("stiff").iterdir()} == {
        "ledger.csv",
        "ledger.png",
        "phase.png",
        "products.png",
    }
    out = run(capsys, "explain", "--run", runs["stiff"], "--out", "stiff", "--time", "1e-6")
    assert "from t = 0 to 1e-06, contributions to how far each variable went (view J):" in out
    assert pathlib.Path("stiff/account.npz").exists()


def test_explain_says_where_contributions_cancel_and_what_to_try(capsys, runs):
    out = run(capsys, "explain", "--run", runs["own"], "--out", "own")
    (before, after) = re.findall(
        r"contributions to dx/dt are (\S+) times the derivative in sum, most of them cancel; where equations have "
        r"products of 2 variables, --order 2 divides each among its factors \((\S+) times\)",
        out,
    )[0]
    with open("own/ledger.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["view"] == "J"]
    # the header has x twice, as a state and as a channel: a dictionary keeps the channel
    x, one, derivative = (np.array([float(row[name]) for row in rows]) for name in ("x", "1", "derivative"))
    assert float(before) == pytest.approx((abs(x) + abs(one)).sum() / abs(derivative).sum(), rel=0.02)
    assert float(before) > 4
    half = abs(x / 2) + abs(derivative - x / 2)
    assert float(after) == pytest.approx(half.sum() / abs(derivative).sum(), rel=0.02)
    assert "cancel" not in run(capsys, "explain", "--run", runs["own"], "--out", "own", "--order", "2")
    assert "cancel" not in run(
        capsys, "explain", "--run", runs["dynamics"], "--out", "known"
    )  # equations say the order


def test_explain_of_the_other_view(capsys, runs):
    out = run(capsys, "explain", "--run", runs["dynamics"], "--view", "W", "--method", "rk4", "--out", "other")
    assert "(view W)" in out
    assert "they add up: largest error" in out


@pytest.mark.parametrize(
    ("name", "what", "file"), [("table", "predictions", "contributions.csv"), ("digits", "logits", "explanations.png")]
)
def test_explain_of_other_tasks(capsys, runs, name, what, file):
    out = run(capsys, "explain", "--run", runs[name], "--out", f"why-{name}")
    (error,) = re.findall(rf"contributions add up to the {what}: largest error (\S+)", out)
    assert float(error) < 1e-5
    assert f"saved why-{name}/{file}" in out


# ---- systems ----


def test_systems_are_listed_with_their_equations(capsys):
    out = run(capsys, "systems")
    for name, system in SYSTEMS.items():
        assert f"\n{name}: {system.title}\n" in out
    assert "    x' = α x - β x y\n    y' = γ x y - δ y\n" in out
    assert "hare-lynx" in out
    one = run(capsys, "systems", "lorenz")
    assert "lorenz: " in one
    assert "brusselator" not in one


# ---- mistakes ----


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("trian",), 'bcos-ode: error: unknown command "trian"; did you mean "train"?'),
        (("train", "lorens"), 'unknown preset "lorens"; did you mean "lorenz"?'),
        (("train", "lorenz", "surplus"), "unexpected argument surplus"),
        (("train", "--dta", "lorenz"), "unknown option --dta; did you mean --data?"),
        (("train", "--network.widht", "8"), "unknown option --network.widht; did you mean --network.width?"),
        (("train", "--data", "digts"), 'unknown data "digts"; did you mean "digits"?'),
        (("train", "--data", "csv:none.csv"), "none.csv: no readable table"),
        (("train", "--config", "nowhere.yaml"), "--config: File does not exist"),
        (("train", "--network.model", "bcso"), 'got "bcso"; did you mean "bcos"?'),
        (("train", "--network.b", "0.5"), "--network.b: expected a finite number >= 1, got 0.5"),
        (("train", "--fit.lr", "0"), "--fit.lr: expected a positive number, got 0.0"),
        (("train", "--windows.lengths", "[0]"), "--windows.lengths: expected at least 1 each, got [0]"),
        (("train", "--windows.method", "rk5"), 'got "rk5"; did you mean "rk4"?'),
        (("train", "--solver.atol", "-1"), "--solver.atol: expected a positive number, got -1.0"),
        (("train", "--noise", "-1"), "--noise: expected a finite number >= 0, got -1.0"),
        (("train", "--data", "hare-lynx", "--horizon", "3"), "--horizon: belongs to simulated systems"),
        (("train", "diabetes", "--horizon", "3"), "--lags, --horizon: they belong to a series"),
        (("train", "--data", "folder:"), "no such folder; expected folder:PATH"),
        (("train", "digits", "--channels", "12"), "--channels: expected a multiple of 8, got 12"),
        (("train", "--resume", ""), 'run "": no such run'),
        (("train", "--resume", "0123", "--seed", "3"), "--resume takes the run's own configuration"),
        (("train", "--resume=0123", "--seed=3"), "--resume takes the run's own configuration"),
        (("train", "digits", "--resume", "0123"), "--resume takes the run's own configuration"),
        (("evaluate",), "required: run"),
        (("explain",), "required: run"),
        (("evaluate", "--run", "0123abcd"), 'run "0123abcd": no such run'),
        (("explain", "--run", "0123abcd"), 'run "0123abcd": no such run'),
        (("systems", "lorens"), 'unknown system "lorens"; did you mean "lorenz"?'),
    ],
)
def test_mistakes_get_one_line(project, mistake, arguments, line):
    assert line in mistake(*arguments)
    assert {p.name for p in project.iterdir()} == {"uv.lock", "mlflow.db"}  # nothing half written


@pytest.mark.parametrize(
    ("command", "name", "options", "line"),
    [
        ("evaluate", "dynamics", ["--horizon", "-1"], "--horizon: expected a positive number, got -1.0"),
        ("evaluate", "dynamics", ["--horizon", "0.01"], "--horizon: expected at least one step"),
        ("evaluate", "dynamics", ["--method", "radua"], "--solver.method: expected one of dop853"),
        ("evaluate", "dynamics", ["--rtol", "0"], "--solver.rtol: expected a positive number, got 0.0"),
        ("evaluate", "dynamics", ["--starts", "0"], "expected at least 1"),
        ("evaluate", "dynamics", ["--start_seed", "3"], "--start_seed: belongs to fresh starts"),
        ("evaluate", "table", ["--horizon=3"], "--horizon: belongs to runs over dynamics; this one is a regression"),
        ("evaluate", "digits", ["--starts", "3"], "--starts: belongs to runs over dynamics; this one is a classif"),
        ("evaluate", "dynamics", ["--out", "uv.lock"], "uv.lock: cannot write there"),
        ("explain", "dynamics", ["--start", "1"], '--start: expected 2 finite numbers (x,y), got "1"'),
        ("explain", "dynamics", ["--start", "1,x"], '--start: expected 2 finite numbers (x,y), got "1,x"'),
        ("explain", "dynamics", ["--start", "1,inf"], "--start: expected 2 finite numbers"),
        ("explain", "dynamics", ["--time", "0"], "--time: expected a positive number, got 0.0"),
        ("explain", "dynamics", ["--method", "dopri55"], 'unknown method "dopri55"; did you mean "dopri5"?'),
        ("explain", "dynamics", ["--view", "V"], "invalid choice: 'V'"),
        ("explain", "plain", [], 'a network of model "mlp" has no exact ledger'),
        ("explain", "table", ["--time", "3"], "--time: belongs to runs over dynamics; this one is a regression"),
        ("explain", "digits", ["--view", "W"], "--view: belongs to runs over dynamics; this one is a classification"),
        ("explain", "foreign", [], "is none of bcos-ode train"),
        ("evaluate", "unfinished", [], "it did not finish"),
    ],
)
def test_mistakes_about_a_run_get_one_line(runs, mistake, command, name, options, line):
    assert line in mistake(command, "--run", runs[name], *options)


@pytest.mark.parametrize("name", ["foreign", "dynamics", "digits"])
def test_only_interrupted_classifiers_are_resumed(runs, mistake, name):
    expected = "is finished" if name == "digits" else "is no classifier's"
    assert expected in mistake("train", "--resume", runs[name])


@pytest.mark.parametrize("command", ["evaluate", "explain"])
def test_data_that_has_changed_is_refused(runs, mistake, command, monkeypatch):
    """What was held out then may not be now."""
    table, before = pathlib.Path("table.csv"), pathlib.Path("table.csv").read_text()
    try:
        table.write_text(f"{before}1,1,5\n")
        assert "table.csv has changed since the run" in mistake(command, "--run", runs["table"], "--out", "changed")
    finally:
        table.write_text(before)
    monkeypatch.setattr("bcos_ode.dynamics.data.fingerprint", lambda *_: "another")
    assert "lotka-volterra has changed" in mistake(command, "--run", runs["dynamics"], "--out", "changed")
    monkeypatch.setattr("bcos_ode.classification.images.fingerprint", lambda *_: "another")
    assert "digits has changed" in mistake(command, "--run", runs["digits"], "--out", "changed")


@pytest.mark.parametrize("arguments", [(), ("train",), ("train", "digits"), ("evaluate",), ("explain",), ("systems",)])
def test_help_needs_no_heavy_library(arguments):
    code = (
        "import sys\nfrom bcos_ode.cli import main\n"
        "try: main([*sys.argv[1:], '--help'])\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'mlflow', 'torchvision', 'torchdiffeq', 'matplotlib', 'sklearn', 'scipy'} & {*sys.modules}\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: bcos-ode" in done.stdout


def test_version_says_which_kernels_are_live(capsys):
    assert "kernels: CPU: " in run(capsys, "--version")
