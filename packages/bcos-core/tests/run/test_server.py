"""One server for many writers: found by the second, gone after the last."""

import json
import time
import urllib.request
from dataclasses import dataclass

import pytest

pytest.importorskip("mlflow")

from bcos_core.run.error import InputError
from bcos_core.run.server import tracking_server
from bcos_core.run.tracking import TrackedRun, find_tagged, prepare_experiment, tracking_uri


@dataclass(frozen=True)
class Config:
    seed: int = 0


def answers(address):
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


def test_server_is_shared_and_ends_with_its_last_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "uv.lock").touch()
    for name in ("attr", "tokenize"):  # the folder at hand is the user's, and not where the server's modules come from
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user')")
    prepare_experiment("study/x")
    with tracking_server() as address:
        with tracking_server() as same:
            assert same == address
        assert answers(address)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with tracking_server() as given:
            assert given == address  # a store that is a server already
        (tmp_path / "note.txt").write_text("kept")
        with TrackedRun.create("study/x", arm="a", config=Config(), seed=0, tags={"unit": "u"}) as run:
            run.log_artifact(tmp_path / "note.txt")
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
    # what went through the server lies in the project's own store, where commands without a server find it
    record = find_tagged("study/x", {"unit": "u"})
    assert record is not None
    assert record.status == "FINISHED"
    assert [p.read_text() for p in (tmp_path / "mlartifacts").rglob("note.txt")] == ["kept"]
    deadline = time.monotonic() + 60
    while answers(address) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not answers(address)
    assert not (tmp_path / "runs/.server/server.json").exists()


def test_server_of_another_machine_is_not_doubled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "uv.lock").touch()
    (tmp_path / "runs/.server").mkdir(parents=True)
    record = {"address": "http://127.0.0.1:9", "store": tracking_uri(), "host": "elsewhere"}
    (tmp_path / "runs/.server/server.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="through a server on elsewhere: give every machine"), tracking_server():
        pass
