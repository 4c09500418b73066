"""`pytest` runs the tests and skips the speed tests; `pytest --benchmark` runs the speed tests alone."""

import importlib.util
import os
import shutil

import pytest

HAVE_BENCHMARK = importlib.util.find_spec("pytest_benchmark") is not None
HAVE_XDIST = importlib.util.find_spec("xdist") is not None
MOST_PROCESSES = 8  # each has torch in memory


def pytest_addoption(parser):
    parser.getgroup("benchmark").addoption(
        "--benchmark",
        action="store_true",
        dest="bcos_benchmark",
        help="Run the speed tests only (pytest-benchmark); without it they are skipped.",
    )


@pytest.hookimpl(tryfirst=True)  # pytest-benchmark reads its options in its own, trylast, hook
def pytest_configure(config):
    opt = config.option
    if not HAVE_BENCHMARK:
        if opt.bcos_benchmark:
            raise pytest.UsageError("--benchmark needs pytest-benchmark")
    elif opt.bcos_benchmark:
        opt.benchmark_only, opt.benchmark_skip, opt.benchmark_disable = True, False, False
    elif not (opt.benchmark_only or opt.benchmark_enable):
        opt.benchmark_skip = True


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, in its own, reads how many processes there are to be
def pytest_cmdline_main(config):
    """The whole suite runs a process for each core, files together as long as that keeps all busy; what is named on the
    command line runs in this one.
    """
    if hasattr(config, "workerinput"):  # one of those processes: it must not start any
        return
    opt = config.option
    whole = config.args_source == pytest.Config.ArgsSource.TESTPATHS
    alone = opt.bcos_benchmark or opt.collectonly or opt.usepdb
    if HAVE_XDIST and whole and not alone and opt.numprocesses is None and opt.dist == "no":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        opt.numprocesses, opt.dist = min(cores, MOST_PROCESSES), "worksteal"
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes; threads of several get in each other's way


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Files of short tests last, so that no process is left alone with a long one: the core's, and examples."""

    def is_short(item):
        return "bcos-core" in item.path.parts or "tests" not in item.path.parts

    items.sort(key=is_short)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path):
    """Test modules have no examples in docstrings; as a module of examples, one that fails to import would be skipped
    and its tests with it: the second import finds the unfinished module in sys.modules, without any.
    """
    found = yield
    if not file_path.name.startswith(("test_", "bench_")):  # a source file named on the command line keeps its examples
        return found
    return [collector for collector in found if type(collector) is pytest.Module]


if not HAVE_BENCHMARK:  # a machine with torch and pytest only

    @pytest.fixture
    def benchmark():
        pytest.skip("pytest-benchmark is not installed")


# ---- One MLflow store for all tests that train: making one takes seconds ----


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
