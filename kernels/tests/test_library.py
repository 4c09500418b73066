"""What the build report says is what runs."""

import pathlib
import re
import sysconfig

import bcos_kernels
import pytest
import torch
from bcos_kernels import BuildReport, build_report

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
FOLDER = pathlib.Path(bcos_kernels.__file__).parent
HAS_CPU_LIBRARY = (FOLDER / f"_C{SUFFIX}").exists()
HAS_CUDA_LIBRARY = (FOLDER / f"_C_cuda{SUFFIX}").exists()


@pytest.mark.skipif(not HAS_CPU_LIBRARY, reason="nothing is compiled here")
def test_compiled_library_serves_the_cpu():
    report = build_report()
    assert report.cpu in {"C++", "CUDA on the CPU"}
    assert report.cxx_standard >= 201703
    assert re.search(r"\d+\.\d+", report.compiler)
    assert re.match(r"\d+\.\d+", report.built_for_torch)


@pytest.mark.skipif(not (HAS_CUDA_LIBRARY and torch.version.cuda), reason="no CUDA kernels are compiled here")
def test_compiled_library_serves_the_gpu():
    assert build_report().cuda == "CUDA"
    assert build_report().cuda_architectures


@pytest.mark.skipif(HAS_CPU_LIBRARY, reason="a library is compiled here")
def test_without_a_library_the_twin_serves():
    assert build_report() == BuildReport("PyTorch", "PyTorch", "", 0, "", "")
    assert "nothing compiled" in str(build_report())


def test_report_is_one_line():
    report = BuildReport("C++", "CUDA", "g++ 12.2.0", 201703, "2.11.0", "8.0;9.0")
    assert str(report) == "CPU: C++, CUDA: CUDA for sm 8.0;9.0 (g++ 12.2.0, C++ 201703, built for torch 2.11.0)"
