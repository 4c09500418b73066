"""The build's decisions: compiler, CUDA or not, which nvcc."""

import importlib.util
import os
import pathlib
import stat
import subprocess
import sys

import pytest

KERNELS = pathlib.Path(__file__).parents[1]


@pytest.fixture
def load(monkeypatch):
    """A build module, executed afresh under the environment given (it is no part of the package)."""

    def execute(name, **environment):
        for variable in ("BCOS_KERNELS_BUILD", "BCOS_KERNELS_CUDA", "CXX", "CUDA_HOME", "CUDA_PATH"):
            monkeypatch.delenv(variable, raising=False)
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        spec = importlib.util.spec_from_file_location(name, KERNELS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return execute


def program(folder, name, script=""):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def toolkit(folder, release):
    """A toolkit whose nvcc answers the two questions that the plan asks."""
    nvcc = f'case "$1" in --version) echo "release {release}, V{release}.1";; *) echo "#$ TOP={folder}" >&2;; esac'
    program(folder, "bin/nvcc", nvcc)
    return str(folder)


# ---- cxx_plan ----


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", True)])
def test_build_switch(load, value, expected):
    assert load("cxx_plan", BCOS_KERNELS_BUILD=value).build_wanted() is expected


def test_build_switch_rejects_other_words(load):
    with pytest.raises(SystemExit, match="BCOS_KERNELS_BUILD: expected 0 or 1, got 'maybe'"):
        load("cxx_plan", BCOS_KERNELS_BUILD="maybe").build_wanted()


def test_no_compiler_gives_one_message_with_the_remedies(load, tmp_path):
    plan = load("cxx_plan", PATH=str(tmp_path))
    with pytest.raises(SystemExit) as error:
        plan.require_compiler()
    for part in ("no C++ compiler", "apt-get install g++", "dnf install gcc-c++", "xcode-select --install"):
        assert part in str(error.value)
    assert "BCOS_KERNELS_BUILD=0" in str(error.value)


def test_missing_cxx_is_named(load, tmp_path):
    program(tmp_path, "c++")
    with pytest.raises(SystemExit, match="looked for CXX=/opt/none/g"):
        load("cxx_plan", PATH=str(tmp_path), CXX="/opt/none/g++ -m64").require_compiler()


@pytest.mark.parametrize("name", ["g++", "clang++"])
def test_the_only_compiler_is_used(load, tmp_path, name):
    program(tmp_path, name)
    plan = load("cxx_plan", PATH=str(tmp_path), CXX="")
    assert plan.require_compiler() == name
    assert os.environ["CXX"] == name  # what torch's builder reads


def test_cxx_with_a_launcher(load, tmp_path):
    program(tmp_path, "ccache")
    assert load("cxx_plan", PATH=str(tmp_path), CXX="ccache g++").require_compiler() == "ccache g++"


def test_setup_stops_with_the_message_alone(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("CXX", "BCOS_KERNELS_BUILD")}
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=KERNELS,
        env=environment | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    if "No module named 'setuptools'" in done.stderr:
        pytest.skip("setuptools is not installed here")
    assert done.returncode == 1
    assert done.stderr.startswith("bcos-kernels: no C++ compiler found")
    assert "Traceback" not in done.stderr


# ---- cuda_plan ----


@pytest.mark.parametrize(
    ("mode", "torch_cuda", "driver", "expected"),
    [
        ("auto", "13.2", True, True),
        ("auto", "13.2", False, False),
        ("auto", None, True, False),
        ("", "13.2", True, True),
        ("1", "13.2", False, True),
        ("0", "13.2", True, False),
        ("on-cpu", "13.2", True, False),
    ],
)
def test_when_cuda_is_built(load, monkeypatch, mode, torch_cuda, driver, expected):
    plan = load("cuda_plan", BCOS_KERNELS_CUDA=mode)
    monkeypatch.setattr(plan, "torch_cuda", lambda: torch_cuda)
    monkeypatch.setattr(plan, "driver_visible", lambda: driver)
    assert plan.wanted() is expected


@pytest.mark.parametrize(
    ("answer", "release", "expected"),
    [
        ("echo 9.0", "13.2", "9.0"),
        ("echo 12.0; echo 7.5; echo 12.0", "13.2", "7.5;12.0"),
        ("echo No devices were found; exit 6", "13.2", "7.5;8.0;9.0;10.0;12.0+PTX"),
        ("echo '[N/A]'", "12.6", "7.5;8.0;9.0+PTX"),
        (None, "12.8", "7.5;8.0;9.0;10.0;12.0+PTX"),
    ],
)
def test_architectures(load, monkeypatch, tmp_path, answer, release, expected):
    if answer:
        program(tmp_path, "nvidia-smi", answer)
    plan = load("cuda_plan", PATH=str(tmp_path))
    monkeypatch.setattr(plan, "torch_cuda", lambda: release)
    assert plan.default_archs() == expected


def test_cuda_demanded_of_a_cpu_torch(load, monkeypatch):
    plan = load("cuda_plan", BCOS_KERNELS_CUDA="1")
    monkeypatch.setattr(plan, "torch_cuda", lambda: None)
    with pytest.raises(SystemExit, match="CPU-only build"):
        plan.wanted()


def test_cuda_switch_rejects_other_words(load):
    with pytest.raises(SystemExit, match="expected auto, 0, 1 or on-cpu, got 'yes'"):
        load("cuda_plan", BCOS_KERNELS_CUDA="yes").wanted()


@pytest.mark.parametrize(("release", "exact", "found"), [("13.2", True, True), ("13.0", True, False)])
def test_toolkit_of_cuda_home(load, monkeypatch, tmp_path, release, exact, found):
    home = toolkit(tmp_path / "cuda", release)
    plan = load("cuda_plan", CUDA_HOME=home)
    monkeypatch.setattr(plan, "torch_cuda", lambda: "13.2")
    assert plan.system_home(exact=exact) == (home if found else None)
    assert plan.system_home(exact=False) == home  # the same major version is good enough when nothing else is there


def test_toolkit_of_another_major_version_is_no_use(load, monkeypatch, tmp_path):
    plan = load("cuda_plan", CUDA_HOME=toolkit(tmp_path / "cuda", "12.9"))
    monkeypatch.setattr(plan, "torch_cuda", lambda: "13.2")
    assert plan.system_home(exact=False) is None


def test_nvcc_wheels_match_torch(load, monkeypatch, tmp_path):
    plan = load("cuda_plan", BCOS_KERNELS_CUDA="1", CUDA_HOME=str(tmp_path))
    monkeypatch.setattr(plan, "torch_cuda", lambda: "13.2")
    monkeypatch.setattr(plan, "wheel_home", lambda: None)
    parts = ("cuda-nvcc", "nvvm", "cuda-crt", "cuda-cccl", "cuda-runtime")
    assert plan.nvcc_requirements() == [f"nvidia-{part}==13.2.*" for part in parts]
    monkeypatch.setattr(plan, "wheel_home", lambda: "somewhere")
    assert plan.nvcc_requirements() == []


def test_no_nvcc_wheels_without_cuda(load):
    assert load("cuda_plan", BCOS_KERNELS_CUDA="0").nvcc_requirements() == []
