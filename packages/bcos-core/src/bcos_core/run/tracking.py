"""MLflow, and nothing of it elsewhere: where runs are kept, how they are opened, found and filled.

One experiment for each package and task; a parent run for each arm (a configuration without its seed), a child run for
each seed and fold. The default store is a SQLite file in the project's root, which ``mlflow ui`` shows when it is
started there; ``MLFLOW_TRACKING_URI`` names another.
"""

import contextlib
import difflib
import fcntl
import getpass
import logging
import os
import pathlib
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import config as configuration
from .error import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")

_MAX_BATCH = 100  # parameters MLflow takes in one call
_SYSTEM_METRICS_SECONDS = 2  # the first run lasts half a minute: MLflow's ten would draw three points


def project_root(start: pathlib.Path | None = None) -> pathlib.Path:
    """The nearest folder, from ``start`` upwards, that holds ``uv.lock`` or ``.git``; ``start`` itself if none does.

    Runs are kept here: ``mlflow.db``, ``mlartifacts/`` and ``runs/``.
    """
    start = (start or pathlib.Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "uv.lock").exists() or (folder / ".git").exists():
            return folder
    return start


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or the SQLite file in the project's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_root() / 'mlflow.db'}"


def run_folder(run_id: str) -> pathlib.Path:
    """Where a run keeps what it needs to go on: its configuration and its last state."""
    return project_root() / "runs" / run_id


@dataclass(frozen=True)
class RunRecord:
    """What the store knows of a run."""

    id: str
    name: str
    status: str
    tags: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True)
class RunPlace:
    """Where a run is kept, if not under its package's own experiment: as a unit of a study, say."""

    experiment: str
    """"study/NAME", say."""
    arm: str
    """Readable name of what is compared."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Further tags."""


class TrackedRun:
    """An open run: a context that ends it as finished, failed or killed.

    Attributes:
        id: MLflow's run id.
        folder: The run's own folder, :func:`run_folder`.
    """

    def __init__(self, client: "MlflowClient", run_id: str, *, resumed: bool) -> None:
        self._client = client
        self._resumed = resumed
        self.id = run_id
        self.folder = run_folder(run_id)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot write there ({error.strerror})") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however it ends
        except OSError:
            os.close(self._lock)
            raise InputError(f"run {run_id} is at work in another process") from None
        for unfinished in self.folder.glob(".*.part"):  # of a process that was killed while it wrote
            unfinished.unlink(missing_ok=True)

    @classmethod
    def create(
        cls,
        experiment: str,
        *,
        arm: str,
        config: Any,
        seed: int,
        fold: int = 0,
        varies: Collection[str] = ("seed",),
        tags: Mapping[str, str] | None = None,
    ) -> "TrackedRun":
        """Open a child run under its arm's parent, with the whole configuration as parameters.

        Args:
            experiment: Package and task, "vision/digits".
            arm: Readable name of the configuration; its fingerprint without what varies within an arm is added.
            config: A configuration dataclass.
            seed: The run's seed.
            fold: The run's fold, 0 without cross-validation.
            varies: Dotted names of the options that runs of one arm differ in.
            tags: Further tags (the data's fingerprint, say).

        Raises:
            InputError: If the store cannot be reached or written.
        """
        parameters = configuration.flatten(config)
        fixed = {name: value for name, value in parameters.items() if name not in varies}
        arm = f"{arm} {configuration.fingerprint(repr(sorted(fixed.items())))[:6]}"
        with _store_errors():
            client = _client()
            experiment_id = _experiment(client, experiment)
            own = {"arm": arm, "seed": str(seed), "fold": str(fold), **_circumstances(), **(tags or {})}
            own["mlflow.parentRunId"] = _arm_parent(client, experiment_id, arm)
            run = client.create_run(experiment_id, run_name=f"{arm} seed {seed} fold {fold}", tags=own)
            try:
                opened = cls(client, run.info.run_id, resumed=False)
                from mlflow.entities import Param

                entries = [Param(name, str(value)) for name, value in parameters.items()]
                for start in range(0, len(entries), _MAX_BATCH):
                    client.log_batch(opened.id, params=entries[start : start + _MAX_BATCH])
                configuration.save_config(config, opened.folder / "config.json")
                opened.log_artifact(opened.folder / "config.json")
            except BaseException:
                client.delete_run(run.info.run_id)  # nothing half made
                raise
        return opened

    @classmethod
    def resume(cls, run_id: str) -> "TrackedRun":
        """Open an earlier run again.

        Raises:
            InputError: If the run does not exist, or the store cannot be written.
        """
        record = find_run(run_id)
        with _store_errors():
            client = _client()
            opened = cls(client, record.id, resumed=True)
            client.update_run(record.id, status="RUNNING")
        return opened

    def __enter__(self) -> "TrackedRun":
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(
            self.id,
            sampling_interval=_SYSTEM_METRICS_SECONDS,
            resume_logging=self._resumed,
            tracking_uri=tracking_uri(),
        )
        self._monitor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._monitor.finish()
        status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        try:
            with _store_errors():
                self._client.set_terminated(self.id, status)
        except InputError:
            if kind is None:  # else what went wrong first is what the user has to know
                raise
        finally:
            os.close(self._lock)

    def log_metrics(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Log values at an epoch, names as "val/accuracy"."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with _store_errors():
            self._client.log_batch(self.id, metrics=[Metric(name, float(v), now, epoch) for name, v in metrics.items()])

    def metric_history(self, prefix: str) -> dict[str, dict[int, float]]:
        """What was logged under names that begin so: name -> epoch -> value (of several for one epoch, the last).

        Raises:
            InputError: If the store cannot be read.
        """
        with _store_errors():
            names = sorted(n for n in self._client.get_run(self.id).data.metrics if n.startswith(prefix))
            return {n: {m.step: m.value for m in self._client.get_metric_history(self.id, n)} for n in names}

    def log_artifact(self, path: pathlib.Path, folder: str | None = None) -> None:
        """Copy a file to the run's artifacts."""
        with _store_errors():
            self._client.log_artifact(self.id, str(path), folder)

    def log_model(self, path: pathlib.Path, name: str, params: Mapping[str, Any]) -> None:
        """Register a model file as the run's model, and keep it among the run's artifacts as ``model/``.

        It stays what it is, a safetensors file: MLflow's own flavours would pickle it.
        """
        from mlflow.entities import LoggedModelOutput

        self.log_artifact(path, "model")
        with _store_errors():
            run = self._client.get_run(self.id)
            model = self._client.create_logged_model(
                run.info.experiment_id,
                name=name,
                source_run_id=self.id,
                params={k: str(v) for k, v in params.items()},
                model_type="bcos",
            )
            with tempfile.TemporaryDirectory() as folder:  # MLflow logs models as folders
                shutil.copy(path, folder)
                self._client.log_model_artifacts(model.model_id, folder)
            self._client.finalize_logged_model(model.model_id, "READY")
            self._client.log_outputs(self.id, models=[LoggedModelOutput(model.model_id, step=0)])


def find_run(run_id: str) -> RunRecord:
    """Look a run up by its id, or by the beginning of it if only one run begins so.

    Raises:
        InputError: If no run, or more than one, answers; or the store cannot be read.
    """
    with _store_errors():
        client = _client(must_exist=True)
        experiments = [e.experiment_id for e in client.search_experiments()]
        recent = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1000)
        children = {r.info.run_id: r for r in recent if "mlflow.parentRunId" in r.data.tags}
        if re.fullmatch("[0-9a-f]{32}", run_id) and run_id not in children:
            with contextlib.suppress(Exception):  # an old one, or none: said below
                old = client.get_run(run_id)
                if "mlflow.parentRunId" in old.data.tags:  # an arm cannot be resumed
                    children[run_id] = old
    found = [r for i, r in children.items() if i == run_id or (len(run_id) >= 4 and i.startswith(run_id))]
    if len(found) != 1:
        near = difflib.get_close_matches(run_id, children, n=1, cutoff=0.8)
        latest = f"the latest is {next(iter(children))}" if children else "there is none yet"
        hint = f'did you mean "{near[0]}"?' if near else latest
        what = "more than one run begins so" if found else "no such run"
        raise InputError(f'run "{run_id}": {what} in {tracking_uri()}; {hint}')
    (run,) = found
    return _record(run)


def read_run(run_id: str) -> RunRecord:
    """A run by its whole id.

    Raises:
        InputError: If there is none, or the store cannot be read.
    """
    with _store_errors():
        return _record(_client(must_exist=True).get_run(run_id))


def find_tagged(experiment: str, tags: Mapping[str, str]) -> RunRecord | None:
    """The newest child run of an experiment that has these tags; None where there is none.

    Raises:
        InputError: If the store cannot be read.
    """
    with _store_errors():
        client = _client()
        if (found := client.get_experiment_by_name(experiment)) is None:
            return None
        wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        for run in client.search_runs([found.experiment_id], wanted, max_results=1):
            return _record(run)
    return None


def prepare_experiment(name: str) -> str:
    """Make an experiment, and the store, where they are not there yet; returns the experiment's id.

    In a local store its artifacts lie in the project's root, whoever writes them later, through whatever server.

    Raises:
        InputError: If the store cannot be reached or written.
    """
    with _store_errors():
        return _experiment(_client(), name)


def log_summary(experiment: str, name: str, folder: pathlib.Path, metrics: Mapping[str, float]) -> str:
    """Keep a folder and a few numbers as the one summary run of an experiment (a study's report); returns its id.

    What an earlier summary of that name held is replaced.

    Raises:
        InputError: If the store cannot be reached or written.
    """
    with _store_errors():
        client = _client()
        experiment_id = _experiment(client, experiment)
        mark = configuration.fingerprint(name)
        for run in client.search_runs([experiment_id], f"tags.is_summary = '{mark}'"):
            client.delete_run(run.info.run_id)
        run = client.create_run(experiment_id, run_name=name, tags={"is_summary": mark, **_circumstances()})
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
        for start in range(0, len(entries), _MAX_BATCH):
            client.log_batch(run.info.run_id, metrics=entries[start : start + _MAX_BATCH])
        client.log_artifacts(run.info.run_id, str(folder))
        client.set_terminated(run.info.run_id)
        return run.info.run_id


def fetch_artifact(run_id: str, path: str) -> pathlib.Path:
    """A local copy of a run's artifact.

    Raises:
        InputError: If the run has no such artifact.
    """
    with _store_errors():
        client = _client(must_exist=True)
        folder, _, name = path.rpartition("/")
        if name not in {pathlib.PurePosixPath(a.path).name for a in client.list_artifacts(run_id, folder or None)}:
            raise InputError(f"run {run_id} has no {path}: it did not finish; resume it")
        return pathlib.Path(client.download_artifacts(run_id, path))


def fetch_config(run_id: str, kind: type[T]) -> T:
    """A run's configuration, from its folder if that is here.

    Raises:
        InputError: If it has none, or one that ``kind`` does not take: of another kind of run, or of an older version.
    """
    here = run_folder(run_id) / "config.json"
    values = configuration.load_dict(here if here.exists() else fetch_artifact(run_id, "config.json"))
    try:
        return configuration.from_dict(kind, values)
    except InputError as error:
        raise InputError(f"run {run_id}: its configuration is of another command or version ({error})") from None


def _record(run: "Run") -> RunRecord:
    info, data = run.info, run.data
    return RunRecord(info.run_id, info.run_name or "", info.status, dict(data.tags), dict(data.metrics))


def _client(*, must_exist: bool = False) -> "MlflowClient":
    uri = tracking_uri()
    if uri.startswith("sqlite:///"):
        _check_sqlite(pathlib.Path(uri.removeprefix("sqlite:///")), must_exist)
    elif uri.startswith(("http://", "https://")):
        _check_server(uri)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a tool for private data does not call home
    import mlflow

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # prints the traceback of an error that it raises as well, and that is reported here
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    client = mlflow.MlflowClient(uri)
    if uri.startswith("sqlite:///") and not must_exist:
        _create_tables(client, pathlib.Path(uri.removeprefix("sqlite:///")))
    return client


@contextlib.contextmanager
def _one_process(what: str) -> Iterator[None]:
    """Of this machine's processes, only one is in such a block for the same thing."""
    name = f"bcos-{os.getuid()}-{configuration.fingerprint(what)}.lock"  # not in the project: it would stay there
    with open(pathlib.Path(tempfile.gettempdir()) / name, "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _create_tables(client: "MlflowClient", path: pathlib.Path) -> None:
    """Make a new store's tables; of several processes that find none, one makes them and the others wait."""
    with _one_process(str(path)):
        if not path.exists() or not path.stat().st_size:
            client.search_experiments(max_results=1)


def _check_sqlite(path: pathlib.Path, must_exist: bool) -> None:
    """Say at once what MLflow would say after many retries."""
    if must_exist and not path.exists():
        raise InputError(f"no MLflow store at {path}: there is no run yet")
    if not path.parent.is_dir():
        raise InputError(f"MLflow store {path}: its folder does not exist")
    is_new = not path.exists()
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
            if not must_exist:
                connection.execute("BEGIN IMMEDIATE")
                connection.rollback()
            connection.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        if is_new:
            path.unlink(missing_ok=True)
        raise InputError(f"MLflow store {path} cannot be used: {error}") from None


def _check_server(uri: str) -> None:
    """Say at once what MLflow would say after minutes of retries."""
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()
    except urllib.error.HTTPError:
        pass  # it answers; whether it lets us in is MLflow's to say
    except OSError as error:
        raise InputError(f"MLflow server {uri} cannot be reached: {getattr(error, 'reason', error)}") from None


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # MLflow, SQLAlchemy and requests each have their own; what they share is that the store did not answer
        names = {c.__name__ for c in type(error).__mro__}
        if names & {"MlflowException", "SQLAlchemyError", "RequestException", "OSError"}:
            line = _reason(error)
            raise InputError(f"MLflow store {tracking_uri()}: {line}") from error
        raise


def _reason(error: BaseException) -> str:
    """The line that says why: the database's own, where there was one, or the first."""
    cause: BaseException | None = error
    while cause is not None:
        if (said := getattr(cause, "orig", None)) is not None:  # SQLAlchemy's name for what the database said
            return str(said)
        cause = cause.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _experiment(client: "MlflowClient", name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    # a SQLite store would put artifacts under whatever folder the command was started in
    local = tracking_uri().startswith("sqlite:")
    folder = re.sub(r"[^\w.-]+", "-", name)
    location = (project_root() / "mlartifacts" / folder).as_uri() if local else None
    try:
        # the kind chooses the pages that MLflow shows: runs, curves and models, not prompts and traces
        return client.create_experiment(name, location, tags={"mlflow.experimentKind": "custom_model_development"})
    except Exception:
        if (found := client.get_experiment_by_name(name)) is None:  # else another process was quicker
            raise
        return found.experiment_id


def _arm_parent(client: "MlflowClient", experiment_id: str, arm: str) -> str:
    # by fingerprint: a filter cannot hold every name that a folder can have
    mark = configuration.fingerprint(arm)
    with _one_process(tracking_uri()):  # of two that begin an arm, one makes its parent
        for run in client.search_runs([experiment_id], f"tags.is_arm = '{mark}'", max_results=1):
            return run.info.run_id
        parent = client.create_run(experiment_id, run_name=arm, tags={"arm": arm, "is_arm": mark})
        client.set_terminated(parent.info.run_id)
        return parent.info.run_id


def _circumstances() -> dict[str, str]:
    """Tags that say with what a run was made."""
    packages = ("torch", "numpy", "lightning", "mlflow", "bcos-core", "bcos-kernels")
    versions = {f"version.{name}": version for name in packages if (version := _version(name))}
    tags = {
        "version.python": platform.python_version(),
        **versions,
        "mlflow.source.name": pathlib.Path(sys.argv[0]).name,
        "mlflow.source.type": "LOCAL",
    }
    with contextlib.suppress(KeyError, OSError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    if commit := _git("rev-parse", "HEAD"):
        dirty = "+changes" if _git("status", "--porcelain", "--untracked-files=no") else ""
        tags["git_commit"] = tags["mlflow.source.git.commit"] = commit + dirty
    return tags


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(project_root()), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
