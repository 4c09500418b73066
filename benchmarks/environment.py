"""Where numbers come from: without it a table is worth nothing."""

import datetime
import os
import pathlib
import platform
import subprocess
from dataclasses import dataclass

import torch
from bcos_kernels import build_report

REPOSITORY = pathlib.Path(__file__).parents[1]


@dataclass(frozen=True)
class Environment:
    """The machine and the software, without names or paths of the host."""

    date: str
    commit: str
    device: str
    cpu: str
    cores: int
    threads: int
    capability: str
    """The instruction set PyTorch uses."""
    load: float
    """Processes that wanted a core in the minute before: more than 0.5 or so, and the times are not to be trusted."""
    python: str
    torch: str
    cuda: str
    cudnn: str
    kernels: str


def environment(device: str) -> Environment:
    cuda = device == "cuda"
    return Environment(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=commit(),
        device=torch.cuda.get_device_name() if cuda else cpu_name(),
        cpu=cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        threads=torch.get_num_threads(),
        capability=torch.backends.cpu.get_cpu_capability(),
        load=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=str(torch.version.cuda) if cuda else "",
        cudnn=str(torch.backends.cudnn.version()) if cuda else "",
        kernels=str(build_report()),
    )


def cpu_name() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The revision, marked where files differ from it; "unknown" outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            ", with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
