"""Loads the compiled kernels, where there are any, and reports what is live."""

import importlib
import pathlib
import sysconfig
from dataclasses import dataclass

import torch

# these declare the schemas: before the libraries that implement them
from . import batch_norm as _batch_norm  # noqa: F401
from . import ops as _ops  # noqa: F401

_SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
_FOLDER = pathlib.Path(__file__).parent


@dataclass(frozen=True)
class BuildReport:
    """What the installed kernels were built with, and which implementation each device runs."""

    cpu: str
    """"C++" or "PyTorch" (the twin); "CUDA on the CPU" in the build that tests those kernels without a GPU."""
    cuda: str
    """"CUDA" or "PyTorch" (the twin)."""
    compiler: str
    cxx_standard: int
    built_for_torch: str
    cuda_architectures: str

    def __str__(self) -> str:
        """One line, as `bcos-vision --version` prints it."""
        if not self.compiler:
            return "CPU: PyTorch, CUDA: PyTorch (nothing compiled)"
        arch = f" for sm {self.cuda_architectures}" if self.cuda == "CUDA" else ""
        return (
            f"CPU: {self.cpu}, CUDA: {self.cuda}{arch} "
            f"({self.compiler}, C++ {self.cxx_standard}, built for torch {self.built_for_torch})"
        )


def _load() -> object | None:
    if not (_FOLDER / f"_C{_SUFFIX}").exists():
        return None
    module = importlib.import_module(f"{__package__}._C")  # its import registers the CPU kernels
    cuda = _FOLDER / f"_C_cuda{_SUFFIX}"
    if torch.version.cuda and cuda.exists():
        torch.ops.load_library(cuda)
    return module


_C = _load()


def build_report() -> BuildReport:
    """What is compiled and live in this process.

    Example:
        >>> build_report().cpu in ("C++", "PyTorch")
        True
    """

    def compiled(device: str) -> bool:
        return torch._C._dispatch_has_kernel_for_dispatch_key("bcos_kernels::conv2d", device)

    return BuildReport(
        cpu=getattr(_C, "cpu", "C++") if compiled("CPU") else "PyTorch",
        cuda="CUDA" if compiled("CUDA") else "PyTorch",
        compiler=getattr(_C, "compiler", ""),
        cxx_standard=getattr(_C, "cxx_standard", 0),
        built_for_torch=getattr(_C, "built_for_torch", ""),
        cuda_architectures=getattr(_C, "cuda_archs", ""),
    )
