"""What a run over dynamics can be, and what it is called."""

import dataclasses
import pathlib
import subprocess
import sys

import pytest
from bcos_core.run.split import SplitConfig
from bcos_ode.config import NetworkConfig, absolute
from bcos_ode.dynamics.config import DynamicsConfig, SolverConfig, WindowsConfig


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DynamicsConfig(num_trajectories=0), "--num_trajectories: expected at least 1, got 0"),
        (lambda: DynamicsConfig(data_seed=-1), "--data_seed: expected at least 0, got -1"),
        (lambda: DynamicsConfig(noise=float("nan")), "--noise: expected a finite number >= 0, got nan"),
        (lambda: DynamicsConfig(span=0.0), "--span: expected a positive number, got 0.0"),
        (lambda: DynamicsConfig(horizon=float("inf")), "--horizon: expected a positive number, got inf"),
        (
            lambda: DynamicsConfig(smoothing="none"),
            '--smoothing: expected one of auto, interpolate, smooth, got "none"',
        ),
        (lambda: DynamicsConfig(split=SplitConfig()), "--split.val: nothing is selected here, expected 0, got 0.1"),
        (lambda: DynamicsConfig(split=SplitConfig(val=0, folds=1)), "--split.folds: expected 0 or at least 2, got 1"),
        (lambda: WindowsConfig(lengths=[5, 0]), r"--windows.lengths: expected at least 1 each, got \[5, 0\]"),
        (lambda: WindowsConfig(steps=0), "--windows.steps: expected at least 1, got 0"),
        (lambda: WindowsConfig(method="rk5"), '--windows.method: expected one of rk4, .*fehlberg2, got "rk5"'),
        (lambda: WindowsConfig(adjoint=True), '--windows.adjoint: belongs to an adaptive method .*, not to "rk4"'),
        (lambda: WindowsConfig(method="dopri5", compile=True), "--windows.compile: belongs to a fixed-step method"),
        (lambda: WindowsConfig(method="dopri5", substeps=3), "--windows.substeps: belongs to a fixed-step method"),
        (lambda: WindowsConfig(lengths=[], steps=5), r"--windows.steps: belongs to windows, and .*lengths is \[\]"),
        (lambda: WindowsConfig(lengths=[], method="dopri5"), "--windows.method: belongs to windows"),
        (lambda: WindowsConfig(lengths=[], compile=True), "--windows.compile: belongs to windows"),
        (lambda: SolverConfig(method="rk4"), '--solver.method: expected one of dop853, .*lsoda, got "rk4"'),
        (lambda: SolverConfig(rtol=0.0), "--solver.rtol: expected a positive number, got 0.0"),
        (lambda: SolverConfig(atol=-1e-6), "--solver.atol: expected a positive number, got -1e-06"),
    ],
)
def test_what_no_run_can_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_arms_are_called_by_what_is_unusual():
    assert DynamicsConfig().arm == "lotka-volterra bcos B=2 3x32"
    degree = DynamicsConfig(data="brusselator", network=NetworkConfig(model="degree"))
    assert degree.arm == "brusselator degree 1x32"  # the degree is the system's
    config = DynamicsConfig(
        data="csv:/some/where/pelts.csv",
        noise=0.05,
        network=NetworkConfig(model="degree", degree=3, depth=2, width=8, encoding="inverse"),
        windows=WindowsConfig(lengths=[]),
    )
    assert config.arm == "csv:pelts.csv degree p=3 2x8 inverse noise 0.05 no windows"


def test_runs_that_differ_in_seed_alone_are_one_arm():
    assert dataclasses.replace(DynamicsConfig(), seed=3).arm == DynamicsConfig().arm


def test_a_file_is_the_same_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("csv:a.csv") == f"csv:{pathlib.Path('a.csv').resolve()}"
    assert absolute("lorenz") == "lorenz"
    assert absolute("series:hare-lynx") == "series:hare-lynx"


def test_configurations_need_no_torch():
    code = (
        "import sys, bcos_ode.recipes; print([m for m in ('torch', 'sklearn', 'scipy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
