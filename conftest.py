"""`pytest` runs the tests and skips the speed tests; `pytest --benchmark` runs the speed tests alone."""

import importlib.util
import shutil

import pytest

HAVE_BENCHMARK = importlib.util.find_spec("pytest_benchmark") is not None


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
