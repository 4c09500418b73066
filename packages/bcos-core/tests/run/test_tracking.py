"""Runs in one MLflow store: a SQLite file in a project of its own, made once for the module."""

import dataclasses
import json
import os
import re
import shutil
import sqlite3
import subprocess
import time

import pytest
from bcos_core.nn import BcosLinear
from bcos_core.run.checkpoint import load_model, save_model
from bcos_core.run.error import InputError

pytest.importorskip("mlflow")
pytest.importorskip("psutil")

from bcos_core.run.tracking import (
    TrackedRun,
    fetch_artifact,
    fetch_config,
    find_run,
    project_root,
    run_folder,
    tracking_uri,
)


@dataclasses.dataclass(frozen=True)
class Optim:
    lr: float = 0.1


@dataclasses.dataclass(frozen=True)
class Config:
    model: str = "tiny"
    seed: int = 0
    norm: str | None = None
    optim: Optim = dataclasses.field(default_factory=Optim)


def git(folder, *arguments):
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def create(seed=0, fold=0, experiment="core/test", **options):
    return TrackedRun.create(
        experiment, arm="tiny", config=Config(seed=seed, **options), seed=seed, fold=fold, tags={"data": "abc"}
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project's root, with git and a store; the working directory is a folder in it."""
    root = tmp_path_factory.mktemp("project")
    (root / "uv.lock").write_text("lock")
    (root / "work").mkdir()
    git(root, "init", "-q")
    git(root, "add", "uv.lock")
    git(root, "commit", "-q", "-m", "first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root / "work")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield root


@pytest.fixture(scope="module")
def client(project):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{project / 'mlflow.db'}")


@pytest.fixture(scope="module")
def first(project, client):
    """A run that went well: the id, and what the store holds."""
    with create(seed=3, fold=2) as run:
        run.log_metrics({"train/loss": 1.5, "val/accuracy": 0.5}, epoch=0)
        run.log_metrics({"train/loss": 0.5, "val/accuracy": 0.75}, epoch=1)
        picture = project / "picture.txt"
        picture.write_text("pixels")
        run.log_artifact(picture, "explanations")
        path = run.folder / "model.safetensors"
        save_model(path, BcosLinear(2, 2), {"model": "tiny"})
        run.log_model(path, "tiny", {"b": 2.0})
    return client.get_run(run.id)


# ---- where ----


class TestProjectRoot:
    @pytest.mark.parametrize("marker", ["uv.lock", ".git"])
    def test_nearest_marked_folder(self, tmp_path, marker):
        inner = tmp_path / "a" / "b"
        inner.mkdir(parents=True)
        (tmp_path / "uv.lock").touch()
        assert project_root(inner) == tmp_path
        (tmp_path / "a" / marker).mkdir()
        assert project_root(inner) == tmp_path / "a"
        assert project_root(tmp_path) == tmp_path

    def test_start_where_nothing_is_marked(self, tmp_path):
        if any((p / m).exists() for p in tmp_path.parents for m in (".git", "uv.lock")):
            pytest.skip("the temporary folder lies in a project")
        assert project_root(tmp_path) == tmp_path

    def test_working_directory_by_default(self, tmp_path, monkeypatch):
        (tmp_path / "uv.lock").touch()
        (tmp_path / "a").mkdir()
        monkeypatch.chdir(tmp_path / "a")
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert project_root() == tmp_path
        assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
        assert run_folder("0f") == tmp_path / "runs" / "0f"

    def test_environment_names_another_store(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
        assert tracking_uri() == "http://localhost:5000"


# ---- what a run holds ----


def test_everything_lies_in_the_projects_root(project, first):
    assert {"mlflow.db", "mlartifacts", "runs"} <= set(os.listdir(project))
    assert os.listdir(project / "work") == []
    assert first.info.artifact_uri.startswith((project / "mlartifacts" / "core-test").as_uri())
    assert (project / "runs" / first.info.run_id / "config.json").exists()


def test_child_under_its_arm(client, first):
    parent = client.get_run(first.data.tags["mlflow.parentRunId"])
    assert len(parent.data.tags["is_arm"]) == 16
    assert parent.info.status == "FINISHED"
    assert parent.info.experiment_id == first.info.experiment_id
    assert client.get_experiment(first.info.experiment_id).name == "core/test"
    assert re.fullmatch("tiny [0-9a-f]{6}", parent.data.tags["arm"])
    assert first.data.tags["arm"] == parent.data.tags["arm"] == parent.info.run_name
    assert "is_arm" not in first.data.tags


def test_parameters_are_the_whole_configuration(first):
    assert first.data.params == {"model": "tiny", "seed": "3", "norm": "None", "optim.lr": "0.1"}


def test_metrics_by_epoch(client, first):
    history = client.get_metric_history(first.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(0, 1.5), (1, 0.5)]
    assert first.data.metrics["val/accuracy"] == 0.75


def test_tags(project, first):
    tags = first.data.tags
    assert (tags["seed"], tags["fold"], tags["data"]) == ("3", "2", "abc")
    assert first.info.run_name == f"{tags['arm']} seed 3 fold 2"
    assert tags["git_commit"] == tags["mlflow.source.git.commit"] == git(project, "rev-parse", "HEAD")
    from importlib import metadata

    assert tags["version.torch"] == metadata.version("torch")
    assert "version.python" in tags


def test_artifacts(first):
    assert fetch_artifact(first.info.run_id, "explanations/picture.txt").read_text() == "pixels"
    config = json.loads(fetch_artifact(first.info.run_id, "config.json").read_text())
    assert config == {"model": "tiny", "seed": 3, "norm": None, "optim": {"lr": 0.1}}
    state, description = load_model(fetch_artifact(first.info.run_id, "model/model.safetensors"))
    assert description == {"model": "tiny"}
    assert state["weight"].shape == (2, 2)


def test_registered_model(client, first):
    (model,) = client.search_logged_models([first.info.experiment_id])
    assert model.name == "tiny"
    assert model.source_run_id == first.info.run_id
    assert str(model.status) in ("READY", "LoggedModelStatus.READY")
    assert model.params == {"b": "2.0"}


def test_missing_artifact(first):
    for path in ("none.txt", "explanations/none.txt", "none/none.txt"):
        with pytest.raises(InputError, match=f"run {first.info.run_id} has no {path}: it did not finish"):
            fetch_artifact(first.info.run_id, path)


# ---- arms, status, resuming ----


def test_seeds_share_their_arm_and_options_do_not(client, first):
    same, other = create(seed=4), create(seed=3, optim=Optim(0.2))
    arms = [client.get_run(run.id).data.tags["mlflow.parentRunId"] for run in (same, other)]
    assert arms[0] == first.data.tags["mlflow.parentRunId"]
    assert arms[1] != arms[0]
    assert client.get_run(arms[1]).data.tags["arm"] != first.data.tags["arm"]


def test_changes_are_marked(project, client):
    (project / "uv.lock").write_text("changed")
    try:
        assert client.get_run(create().id).data.tags["git_commit"] == git(project, "rev-parse", "HEAD") + "+changes"
    finally:
        (project / "uv.lock").write_text("lock")


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(2), "FAILED")],
    ids=repr,
)
def test_status(client, first, error, status):
    run = create()
    assert client.get_run(run.id).info.status == "RUNNING"
    if error is None:
        with run:
            pass
    else:
        with pytest.raises(type(error)), run:
            raise error
    found = client.get_run(run.id)
    assert found.info.status == status
    assert found.info.end_time is not None


def test_resume(client, first):
    run = create(seed=8)
    run.log_metrics({"train/loss": 3.0}, epoch=0)
    with pytest.raises(RuntimeError), run:
        raise RuntimeError
    (run.folder / "state").write_text("kept")
    with TrackedRun.resume(run.id[:8]) as again:
        assert again.id == run.id
        assert again.folder == run.folder
        assert (again.folder / "state").read_text() == "kept"
        assert client.get_run(run.id).info.status == "RUNNING"
        again.log_metrics({"train/loss": 2.0}, epoch=1)
    found = client.get_run(run.id)
    assert found.info.status == "FINISHED"
    assert found.data.params["seed"] == "8"
    assert [m.step for m in client.get_metric_history(run.id, "train/loss")] == [0, 1]


def test_more_parameters_than_one_call_takes(client, first):
    kind = dataclasses.make_dataclass("Many", [(f"p{i}", int, i) for i in range(230)], frozen=True)
    run = TrackedRun.create("core/test", arm="many", config=kind(), seed=0)
    assert client.get_run(run.id).data.params == {f"p{i}": str(i) for i in range(230)}


# ---- finding ----


def test_find_run(first):
    for run_id in (first.info.run_id, first.info.run_id[:12]):
        record = find_run(run_id)
        assert record.id == first.info.run_id
        assert record.name == first.info.run_name
        assert record.status == "FINISHED"
        assert record.tags["seed"] == "3"
        assert record.metrics["train/loss"] == 0.5


def test_configuration_of_another_kind_of_run(first):
    @dataclasses.dataclass(frozen=True)
    class Other:
        depth: int = 1

    run_id = first.info.run_id
    assert fetch_config(run_id, Config) == Config(seed=3)
    with pytest.raises(InputError, match=f"run {run_id}: its configuration is of another command or version"):
        fetch_config(run_id, Other)


def test_missing_run(first):
    latest = create().id
    with pytest.raises(InputError) as error:
        find_run("zzzz")
    assert str(error.value) == f'run "zzzz": no such run in {tracking_uri()}; the latest is {latest}'
    with pytest.raises(InputError, match="no such run"):
        find_run("0" * 32)
    with pytest.raises(InputError, match="no such run"):
        TrackedRun.resume("")


def test_misspelt_run(first):
    run_id = first.info.run_id
    wrong = run_id[:15] + ("0" if run_id[15] != "0" else "1") + run_id[16:]
    with pytest.raises(InputError, match=f'no such run .* did you mean "{run_id}"'):
        find_run(wrong)


def test_a_beginning_too_short_or_shared(first, monkeypatch):
    with pytest.raises(InputError, match="no such run"):
        find_run(first.info.run_id[:3])
    from mlflow import MlflowClient

    search = MlflowClient.search_runs

    def twins(self, *arguments, **options):
        """The same runs, and copies whose ids differ in the last digit."""
        import copy

        found = list(search(self, *arguments, **options))
        for run in list(found):
            twin = copy.deepcopy(run)
            twin.info._run_id = run.info.run_id[:-1] + ("0" if run.info.run_id[-1] != "0" else "1")
            found.append(twin)
        return found

    monkeypatch.setattr(MlflowClient, "search_runs", twins)
    with pytest.raises(InputError, match="more than one run begins so"):
        find_run(first.info.run_id[:10])
    assert find_run(first.info.run_id).id == first.info.run_id


# ---- stores that do not work ----


def quickly(call, *arguments, **options):
    """The message of the InputError that has to come within two seconds."""
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        call(*arguments, **options)
    assert time.monotonic() - start < 2
    return str(error.value)


@pytest.fixture
def store(project, first, tmp_path, monkeypatch):
    """The path of another store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    return tmp_path / "other.db"


def test_a_file_that_is_no_database(store):
    store.write_bytes(b"this is no database " * 100)
    for call in (create, lambda: find_run("abcd")):
        assert quickly(call) == f"MLflow store {store} cannot be used: file is not a database"
    assert store.read_bytes() == b"this is no database " * 100


def test_a_folder_that_does_not_exist(store, monkeypatch):
    path = store.parent / "none" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    assert quickly(create) == f"MLflow store {path}: its folder does not exist"
    assert not path.parent.exists()


def test_a_folder_in_its_place(store):
    store.mkdir()
    assert "cannot be used: unable to open database file" in quickly(create)


def test_nothing_there_yet(store):
    message = quickly(find_run, "abcd")
    assert message == f"no MLflow store at {store}: there is no run yet"
    assert not store.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable(store):
    store.parent.chmod(0o500)
    try:
        assert "cannot be used" in quickly(create)
    finally:
        store.parent.chmod(0o700)


def test_a_database_of_another_version(project, store):
    """MLflow's own complaint, in one line."""
    shutil.copy(project / "mlflow.db", store)
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    connection.close()
    message = quickly(create)
    assert message.startswith(f"MLflow store sqlite:///{store}: ")
    assert "\n" not in message


def test_a_database_without_runs_of_ours(project, store, client):
    shutil.copy(project / "mlflow.db", store)
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE runs SET lifecycle_stage = 'deleted'")
    connection.close()
    assert quickly(find_run, "abcd").endswith("no such run in " + tracking_uri() + "; there is none yet")


def test_an_error_of_ours_is_not_dressed_up(first, monkeypatch):
    import bcos_core.run.tracking as tracking

    def broken(*_):
        raise TypeError("a bug")

    monkeypatch.setattr(tracking, "_experiment", broken)
    with pytest.raises(TypeError, match="a bug"):
        create()
