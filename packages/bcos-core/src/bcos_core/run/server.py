"""One MLflow server for runs that several processes write at once, started where it is needed.

SQLite takes one writer at a time; the server is that writer. It is started by the first who asks, found by the others
through a file, and ends by itself when the last of them has gone, however they went.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

from .error import InputError
from .tracking import project_root, tracking_uri

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Of a process started by ``python -m``: a user's file tokenize.py in the folder at hand is not the module tokenize."""

_keepers: list["subprocess.Popen[bytes]"] = []  # they outlive their users by a moment, and nobody waits for them
_START_SECONDS = 120.0
_LINGER_SECONDS = 5.0
_RECORD = "server.json"


@contextlib.contextmanager
def tracking_server() -> Iterator[str]:
    """The address that several processes may log to at once.

    A store that is a server or a database server already is given as it is.

    Raises:
        InputError: If the server does not come up.
    """
    uri = tracking_uri()
    if not uri.startswith("sqlite:"):
        yield uri
        return
    folder = project_root() / "runs" / ".server"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("NO_PROXY", "no_proxy"):  # it is here, whatever stands between here and elsewhere
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    # opened for both: over NFS a shared lock needs reading, an exclusive one writing
    with open(folder / "users", "a+") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # the server lives while anybody holds this
        with open(folder / "start", "a+") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            address = _running(folder, uri) or _start(folder, uri)
        yield address


def _running(folder: pathlib.Path, uri: str) -> str | None:
    try:
        found = json.loads((folder / _RECORD).read_text())
    except (OSError, json.JSONDecodeError):
        return None
    if found["host"] != socket.gethostname():
        raise InputError(
            f"the store {uri} is written through a server on {found['host']}: give every machine one server's address "
            f"in MLFLOW_TRACKING_URI (if nothing runs there any more, remove {folder / _RECORD})"
        )
    return found["address"] if found["store"] == uri and _answers(found["address"]) else None


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def _start(folder: pathlib.Path, uri: str) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", folder / "server.log"
    with open(log, "w") as output:
        keeper = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder), uri, str(port)],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **SAFE_PATH},
            start_new_session=True,  # Ctrl-C at the terminal is not for it
        )
    _keepers.append(keeper)
    began = time.monotonic()
    while not _answers(address):
        if keeper.poll() is not None or time.monotonic() - began > _START_SECONDS:
            last = log.read_text().strip().splitlines()[-1:] or ["no output"]
            raise InputError(f"the MLflow server did not start: {last[0]} (see {log})")
        time.sleep(0.2)
    record = {"address": address, "store": uri, "host": socket.gethostname()}
    (folder / _RECORD).write_text(json.dumps(record))
    return address


def _keep(folder: pathlib.Path, uri: str, port: str) -> None:
    """Run the server until nobody uses it."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    artifacts = (project_root() / "mlartifacts").as_uri()
    server = subprocess.Popen(
        [*command, "--port", port, "--workers", "1", "--default-artifact-root", artifacts, "--no-serve-artifacts"],
        cwd=folder,  # where uvicorn looks for modules first
        # job runners are for MLflow's services to language models, and cost seconds and memory
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # and take the server along
    with open(folder / "users", "a+") as users:
        try:
            time.sleep(_LINGER_SECONDS)
            while server.poll() is None:
                try:
                    # held until the server is gone: who comes now waits, and then starts another
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(_LINGER_SECONDS)
        finally:
            (folder / _RECORD).unlink(missing_ok=True)
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


if __name__ == "__main__":
    _keep(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3])
