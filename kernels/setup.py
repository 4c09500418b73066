"""Builds the compiled kernels; README.md has the switches. Without uv: python setup.py build_ext --inplace."""

import glob
import os
import sys
import warnings

from setuptools import setup

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cuda_plan
import cxx_plan

CSRC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "csrc")
ON_CPU = os.path.join(os.path.dirname(CSRC), "tests", "cuda_on_cpu")  # what reads CUDA there, see launch.h
HEADERS = sorted(os.path.relpath(header) for header in glob.glob(os.path.join(CSRC, "**", "*.h"), recursive=True))
CPU_SOURCES = sorted(glob.glob(os.path.join(CSRC, "cpu", "*.cpp")))
CUDA_SOURCES = sorted(glob.glob(os.path.join(CSRC, "cuda", "*.cu")))
# -fopenmp-simd: only the vectorisation hints, no OpenMP runtime; g++ and clang both know it
# hidden: nothing in these libraries is called by name from outside
# no-math-errno, no-trapping-math: a square root and a comparison are one instruction, nobody reads errno or the flags
# contract: a multiplication and an addition are one operation where the instruction set has it
# no-strict-aliasing: two numbers of half precision are one word of a product
CXX_FLAGS = ["-O3", "-g0", "-fopenmp-simd", "-fvisibility=hidden", "-fno-strict-aliasing"]
# no-tree-pre: g++'s partial redundancy elimination turns selections into branches, which do not vectorise
CXX_FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fno-tree-pre"]
# for the tests: kernels/README.md
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
SANITIZE = os.environ.get("BCOS_KERNELS_SANITIZE") == "1"
if SANITIZE:
    CXX_FLAGS += ["-O1", "-g", "-fno-omit-frame-pointer", *SANITIZERS]


def plan():
    """The arguments of setup() that decide what is compiled."""
    cxx_plan.require_compiler()
    cuda = cuda_plan.wanted()
    home = (cuda_plan.system_home() or cuda_plan.wheel_home() or cuda_plan.system_home(exact=False)) if cuda else None
    if cuda and not home:
        message = f"no nvcc for CUDA {cuda_plan.torch_cuda()} found"
        if cuda_plan.MODE != "auto":
            raise SystemExit(
                f"BCOS_KERNELS_CUDA=1, but {message}: install that CUDA toolkit and set CUDA_HOME, "
                "or set BCOS_KERNELS_CUDA=0"
            )
        warnings.warn(f"{message}: building the CPU kernels only", stacklevel=1)
    if home:
        os.environ["CUDA_HOME"] = home  # read once, when cpp_extension is imported
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", cuda_plan.default_archs())

    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

    archs = os.environ.get("TORCH_CUDA_ARCH_LIST", "") if home else ""
    include_dirs, sources = [CSRC], CPU_SOURCES
    macros = [("BCOS_TORCH_VERSION", f'"{torch.__version__}"'), ("BCOS_CUDA_ARCHS", f'"{archs}"')]
    if cuda_plan.MODE == "on-cpu":
        include_dirs, sources = [CSRC, ON_CPU], read_as_cpp(CUDA_SOURCES)
        macros.append(("BCOS_CUDA_ON_CPU", "1"))
        CXX_FLAGS.append("-Wno-unknown-pragmas")  # hints to nvcc
    extensions = [
        CppExtension(
            "bcos_kernels._C",
            [os.path.relpath(source) for source in sources] + ["csrc/info.cpp"],
            include_dirs=include_dirs,
            depends=HEADERS,
            define_macros=macros,
            extra_compile_args={"cxx": CXX_FLAGS},
            extra_link_args=SANITIZERS if SANITIZE else [],
        )
    ]
    if home:
        extensions.append(cuda_extension(CUDAExtension, home))

    class Build(BuildExtension):
        def build_extension(self, ext):
            try:
                super().build_extension(ext)
            except Exception as error:
                if not ext.optional:
                    raise
                warnings.warn(f"{ext.name} not built: {error}", stacklevel=1)

    return {"ext_modules": extensions, "cmdclass": {"build_ext": Build}}


def read_as_cpp(sources):
    """Files that include the given ones, with names a C++ compiler takes as its own."""
    folder = os.path.join("build", "cuda-as-cpp")
    os.makedirs(folder, exist_ok=True)
    results = []
    for source in sources:
        name = os.path.splitext(os.path.basename(source))[0]
        results.append(os.path.join(folder, f"{name}_on_cpu.cpp"))
        with open(results[-1], "w") as file:
            file.write(f'#include "{source}"\n')
    return results


def cuda_extension(make, home):
    extension = make(
        "bcos_kernels._C_cuda",
        [os.path.relpath(source) for source in CUDA_SOURCES],
        include_dirs=[CSRC],
        depends=HEADERS,
        optional=cuda_plan.MODE == "auto",
        extra_compile_args={"cxx": CXX_FLAGS, "nvcc": ["-O3", "-Xcompiler", "-fvisibility=hidden"]},
    )
    runtime = sorted(glob.glob(os.path.join(home, "lib", "libcudart.so.*")))
    if runtime and not os.path.exists(os.path.join(home, "lib64", "libcudart.so")):
        # the wheels carry libcudart.so.13 only: name that file, no development link needed
        extension.libraries = [library for library in extension.libraries if library != "cudart"]
        folder, name = os.path.split(runtime[-1])
        extension.extra_link_args = [*(extension.extra_link_args or []), f"-L{folder}", f"-l:{name}"]
    return extension


if __name__ == "__main__":  # setuptools' PEP 517 hooks run this file under that name too
    setup(**plan() if cxx_plan.build_wanted() else {})
