"""A study that needs no data to be planned, and a project whose MLflow store is there already."""

import shutil

import pytest
from bcos_eval.design import Design
from bcos_eval.study import Study


@pytest.fixture
def study():
    """Two arms, three folds: six units."""

    def make(**changes):
        fields = {
            "name": "small",
            "package": "vision",
            "arms": {"a": {"seed": 0}, "b": {"seed": 0}},
            "design": Design(folds=3),
            "metric": "accuracy",
            "control": "a",
            "rope": 0.005,
        }
        return Study(**{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A MLflow database with its tables and no runs."""
    from bcos_core.run import tracking

    folder = tmp_path_factory.mktemp("store")
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    tracking._client().search_experiments()
    patch.undo()
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path, monkeypatch, empty_store):
    """An empty project folder, with a store of its own, as the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "uv.lock").touch()
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path
