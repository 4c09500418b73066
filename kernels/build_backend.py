"""PEP 517 backend: setuptools, plus nvcc wheels of torch's own CUDA release when the build wants CUDA."""

import glob
import shutil

import cuda_plan
import cxx_plan
from setuptools import build_meta as _base
from setuptools.build_meta import *  # noqa: F403


def get_requires_for_build_wheel(config_settings: dict | None = None) -> list[str]:  # noqa: ARG001
    """The nvcc wheels or nothing; setuptools' own hook would run setup.py once more."""
    if not cxx_plan.build_wanted():
        return []
    cxx_plan.require_compiler()  # before nvcc is downloaded
    return cuda_plan.nvcc_requirements()


get_requires_for_build_editable = get_requires_for_build_wheel


def build_wheel(
    wheel_directory: str, config_settings: dict | None = None, metadata_directory: str | None = None
) -> str:
    """Build as setuptools does, in a clean build folder."""
    for stale in glob.glob("build/lib*"):  # else a library of an earlier build goes into this wheel
        shutil.rmtree(stale)
    return _base.build_wheel(wheel_directory, config_settings, metadata_directory)
