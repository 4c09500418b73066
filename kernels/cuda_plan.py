"""Decides, without importing torch, whether the build compiles the .cu files and with which nvcc.

BCOS_KERNELS_CUDA: "auto" (default: only where an NVIDIA driver is visible; a failure is a warning),
"1" (always; a failure is an error), "0" (never), "on-cpu" (no nvcc: the CUDA kernels, run thread by thread by the
CPU in place of its own, for the tests).
"""

import importlib.util
import os
import pathlib
import re
import runpy
import shutil
import subprocess

MODE = os.environ.get("BCOS_KERNELS_CUDA", "auto").lower() or "auto"
ANY_ARCHS = "7.5;8.0;9.0"  # 8.6 and 8.9 run the code of 8.0


def torch_cuda() -> str | None:
    """'13.2' for a CUDA build of torch, None for a CPU build or no torch."""
    spec = importlib.util.find_spec("torch")
    if not spec or not spec.origin:
        return None
    return runpy.run_path(str(pathlib.Path(spec.origin).with_name("version.py")))["cuda"]


def driver_visible() -> bool:
    """Whether this machine has an NVIDIA driver (Linux, or Windows' own for its Linux)."""
    return any(os.path.exists(p) for p in ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg"))


def default_archs() -> str:
    """Those of this machine's GPUs; where none answers, one for each generation, and PTX for later ones."""
    try:
        query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True).stdout
    except OSError:
        answer = ""
    found = sorted(set(re.findall(r"^\s*(\d+\.\d)\s*$", answer, re.MULTILINE)), key=float)
    if found:
        return ";".join(found)
    # a driver compiles PTX only of its own CUDA release or an older one: machine code for all that this nvcc knows
    has_blackwell = tuple(map(int, (torch_cuda() or "0.0").split("."))) >= (12, 8)
    return f"{ANY_ARCHS};10.0;12.0+PTX" if has_blackwell else f"{ANY_ARCHS}+PTX"


def wanted() -> bool:
    """Whether BCOS_KERNELS_CUDA, the torch at hand and this machine ask for CUDA kernels."""
    if MODE not in ("auto", "0", "1", "on-cpu"):
        raise SystemExit(f"BCOS_KERNELS_CUDA: expected auto, 0, 1 or on-cpu, got {MODE!r}")
    if MODE in ("0", "on-cpu"):
        return False
    if torch_cuda() is None:
        if MODE == "auto":
            return False
        raise SystemExit("BCOS_KERNELS_CUDA=1, but this torch is a CPU-only build (or there is no torch)")
    return MODE == "1" or driver_visible()


def _ask(nvcc: str) -> tuple[str, str] | None:
    """(toolkit folder, '13.2') of an nvcc, which may be a link or a wrapper script; None if it does not answer."""
    try:
        version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
        dryrun = subprocess.run([nvcc, "-dryrun", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
    except OSError:
        return None
    release, top = re.search(r"release (\d+\.\d+)", version), re.search(r"TOP=(.+)", dryrun)
    return (os.path.realpath(top.group(1).strip()), release.group(1)) if release and top else None


def wheel_home() -> str | None:
    """site-packages/nvidia/cu13, where the nvcc wheels put their toolkit."""
    major = (torch_cuda() or "").split(".")[0]
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        home = pathlib.Path(root) / f"cu{major}"
        if (home / "bin" / "nvcc").exists():
            return str(home)
    return None


def system_home(exact: bool = True) -> str | None:
    """The toolkit of CUDA_HOME or PATH: of torch's own release or, when exact is false, of its major version."""
    want = torch_cuda()
    if want is None:
        return None
    root = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [os.path.join(root, "bin", "nvcc")] if root else [shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"]
    for nvcc in filter(None, candidates):
        answer = _ask(nvcc)
        if not answer:
            continue
        home, release = answer
        if release == want or (not exact and release.split(".")[0] == want.split(".")[0]):
            return home
    return None


def nvcc_requirements() -> list[str]:
    """The wheels that together make a toolkit of torch's own release, where they are needed."""
    if not wanted() or system_home() or wheel_home():
        return []
    release = torch_cuda()
    return [f"nvidia-{part}=={release}.*" for part in ("cuda-nvcc", "nvvm", "cuda-crt", "cuda-cccl", "cuda-runtime")]
