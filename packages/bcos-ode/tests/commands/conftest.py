"""One store with a small run of each task, trained by the command."""

import contextlib
import io
import shutil

import numpy as np
import pytest
from bcos_core.run.tracking import RunPlace, TrackedRun, project_root
from bcos_ode import cli
from bcos_ode.classification import ClassificationConfig

SMALL = ("--fit.adam_steps", "30", "--fit.lbfgs_steps", "40", "--network.width", "8", "--network.depth", "1")
TRAININGS = {
    "dynamics": (
        *("train", "lotka-volterra", *SMALL, "--num_trajectories=5", "--span=3", "--horizon=4"),
        *("--windows.lengths=[3]", "--windows.steps=5", "--solver.rtol=1e-6"),
    ),
    "plain": (
        *("train", "--network.model=mlp", *SMALL, "--num_trajectories=5", "--span=2", "--windows.lengths=[]"),
        *("--horizon=2", "--solver.rtol=1e-6"),
    ),
    "stiff": (
        *("train", "robertson", "--num_trajectories=2", "--span=0.01", "--network.width=4"),
        *("--fit.adam_steps=5", "--fit.lbfgs_steps=5"),
    ),
    "own": ("train", "--data=csv:own.csv", *SMALL, "--windows.lengths=[]"),
    "many": (
        *("train", "--data=csv:many.csv", "--fit.adam_steps=5", "--fit.lbfgs_steps=0", "--windows.lengths=[]"),
        *("--smoothing=interpolate", "--split.test=0.05", "--solver.rtol=1e-3", "--solver.atol=1e-3"),
    ),
    "table": ("train", "--data=table:table.csv", "--targets=y", "--fit.adam_steps=20", "--network.width=8"),
    "digits": (
        *("train", "digits", "--channels=8", "--steps=1", "--epochs=1", "--batch_size=256", "--num_explained=20"),
        "--device=cpu",
    ),
}


def write_trajectory(path, times, columns):
    rows = zip(times, *columns.values(), strict=True)
    lines = [",".join(["t", *columns]), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="session")
def trained(tmp_path_factory, empty_store):
    """The project's folder, and of each training its run and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "uv.lock").touch()
    shutil.copy(empty_store, folder / "mlflow.db")
    rows = "".join(f"{k % 7},{k % 5},{(k % 7) - 2 * (k % 5) + 0.1 * (k % 3)}\n" for k in range(40))
    (folder / "table.csv").write_text(f"a,b,y\n{rows}")
    t = np.arange(40) * 0.1
    write_trajectory(folder / "own.csv", t, {"x": 2 + np.exp(-0.3 * t) * np.cos(2 * t)})
    t = np.arange(200) * 0.1  # more observations than monomials of 14 variables
    waves = {f"concentration {k}": np.sin((1 + 0.1 * k) * t + k) for k in range(14)}
    write_trajectory(folder / "many.csv", t, waves)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, arguments in TRAININGS.items():
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
                cli.main(arguments)
            (line,) = [line for line in out.getvalue().splitlines() if line.startswith("run id: ")]
            found[name] = line.removeprefix("run id: "), out.getvalue()
        run = TrackedRun.create("vision/digits", arm="another package's", config=ClassificationConfig(), seed=0)
        with run:
            pass
        found["foreign"] = run.id, ""
        unfinished = RunPlace("ode/digits", "unfinished")
        run = TrackedRun.create(
            unfinished.experiment,
            arm=unfinished.arm,
            config=ClassificationConfig(),
            seed=0,
            tags={"task": "classification", "data_fingerprint": "0"},
        )
        with run:
            pass
        found["unfinished"] = run.id, ""
        assert project_root() == folder
    return folder, found


@pytest.fixture
def runs(trained, monkeypatch):
    """Ids of the runs, in their project as the current folder."""
    folder, found = trained
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return {name: run_id for name, (run_id, _) in found.items()}


@pytest.fixture
def mistake(capsys):
    """Run a command that must fail; returns its one line."""

    def run_and_read(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main(list(arguments))
        captured = capsys.readouterr()
        assert stopped.value.code == 2
        assert captured.err.count("\n") == 1, captured.err
        assert not captured.out.strip()
        return captured.err

    return run_and_read
