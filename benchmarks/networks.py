"""Measures a network's training step, B-cos against the same network with plain layers."""

from functools import partial

import bcos_vision
import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import NetworkCase
from .memory import kept_bytes, peak_bytes
from .precision import DTYPES, products
from .row import Row, reason
from .timing import clock, interleave, summarise

VARIANTS = ("baseline", "bcos")
MODE = "training step"
MIB = 2**20


class TrainingStep:
    """Forward, cross-entropy, backward and SGD on one batch of random images; half precision through autocast."""

    def __init__(self, case: NetworkCase, variant: str, device: str, dtype: str, copies: int = 2) -> None:
        generator = torch.Generator(device).manual_seed(0)
        shape = (case.batch, 3, case.size, case.size)
        self.images = [
            torch.rand(shape, generator=generator, device=device).contiguous(memory_format=torch.channels_last)
            for _ in range(copies)
        ]
        self.labels = torch.randint(case.num_classes, (case.batch,), generator=generator, device=device)
        torch.manual_seed(0)
        self.model = bcos_vision.create_model(case.name, num_classes=case.num_classes, variant=variant).to(device)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.autocast = torch.autocast(device, DTYPES[dtype], enabled=DTYPES[dtype] != torch.float32)

    def loss(self, call: int) -> Tensor:
        with self.autocast:
            return F.cross_entropy(self.model(self.images[call % len(self.images)]), self.labels)

    def run(self, call: int) -> None:
        self.loss(call).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()  # last, so that a step frees all it has allocated

    def kept_bytes(self) -> int:
        state = [*self.model.parameters(), *self.model.buffers()]
        return kept_bytes(partial(self.loss, 0), state)


def measure_network(case: NetworkCase, device: str, dtype: str, budget: float) -> list[Row]:
    """A row for each variant; the ratio is to the baseline."""
    rows = {v: Row(case.name, "network", False, device, dtype, MODE, case.batch, v) for v in VARIANTS}
    runs = {}
    with products(dtype):
        for variant, row in rows.items():
            try:
                step = TrainingStep(case, variant, device, dtype)
                step.run(0)  # makes the optimiser's state, which is no cost of a step
                row.peak_mib = peak_bytes(partial(step.run, 1), device) / MIB
                row.kept_mib = step.kept_bytes() / MIB
                row.copies = len(step.images)
            except (RuntimeError, ValueError, TypeError) as error:
                row.status, row.note = "failed", reason(error)
            else:
                runs[variant] = step.run
        times = interleave(runs, clock(device), budget) if "baseline" in runs else {}
    for variant, seconds in times.items():
        row, summary = rows[variant], summarise(seconds, times["baseline"])
        row.rounds, row.ratio = summary.rounds, summary.ratio
        row.median_ms, row.p10_ms, row.p90_ms = summary.median_ms, summary.p10_ms, summary.p90_ms
        row.images_per_s = case.batch / summary.median_ms * 1e3
    return list(rows.values())
