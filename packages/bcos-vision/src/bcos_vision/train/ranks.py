"""The processes that train one network together: how many, and which of them this is."""

import os
from dataclasses import dataclass

import torch
from bcos_core.run.error import InputError

from bcos_vision.config import TrainConfig


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. Rank zero alone speaks, keeps and scores."""

    rank: int
    size: int
    devices: int
    """Of them on each node."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def find_ranks(config: TrainConfig) -> Ranks:
    """Count the processes of a run, and find this one's place in the environment that its launcher made.

    Raises:
        InputError: If there are not so many devices, or a launcher has started another number of processes.
    """
    device = device_of(config)
    devices = config.devices or (torch.cuda.device_count() if device == "cuda" else 0)
    if not devices:
        raise InputError("--devices 0: takes every GPU, and there is none; give the number of processes")
    if device == "cuda" and devices > torch.cuda.device_count():
        raise InputError(f"--devices: expected at most the {torch.cuda.device_count()} GPUs here, got {devices}")
    size = devices * config.nodes
    started = os.environ.get("WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in os.environ else None
    if started is not None and int(started) != size:
        raise InputError(
            f"--devices {config.devices} --nodes {config.nodes}: torchrun has started {started} process(es), not {size}"
        )
    if size == 1:  # a lone process may sit in a job of many
        return Ranks(0, 1, 1)
    if config.nodes > 1 and not os.environ.keys() & {"RANK", "SLURM_PROCID"}:
        raise InputError(f"--nodes {config.nodes}: neither torchrun nor SLURM has started this process")
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return Ranks(next((int(os.environ[name]) for name in names if name in os.environ), 0), size, devices)


def device_of(config: TrainConfig) -> str:
    """``cuda`` or ``cpu``.

    Raises:
        InputError: If the device or its arithmetic is not to be had.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here; --device auto takes what there is")
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    if config.precision == "float16" and device == "cpu":
        raise InputError("--precision float16: for GPUs only; a CPU takes bfloat16")
    return device
