"""Measures a network's training step, B-cos against the same network with plain layers."""

from collections.abc import Callable
from functools import partial

import bcos_vision
import torch
import torch.nn.functional as F
from bcos_core.nn import InverseEncoding, Standardise
from bcos_vision.models.catalogue import IMAGENET_MEAN, IMAGENET_STD
from bcos_vision.models.variant import Layers, channels_last
from torch import Tensor, nn

from .cases import NetworkCase
from .memory import kept_bytes, peak_bytes
from .precision import DTYPES, products
from .row import Row, reason
from .timing import clock, interleave, summarise

VARIANTS = ("baseline", "bcos")
MODE = "training step"
MIB = 2**20


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut; the stride is in the 3x3, as torchvision has it."""

    def __init__(self, layers: Layers, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = 4 * channels
        self.body = nn.Sequential(
            layers.conv(in_channels, channels, 1),
            layers.norm(channels),
            layers.activation(),
            layers.conv(channels, channels, 3, stride),
            layers.norm(channels),
            layers.activation(),
            layers.conv(channels, out_channels, 1),
            layers.norm(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(layers.conv(in_channels, out_channels, 1, stride), layers.norm(out_channels))
        self.activation = layers.activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


def resnet50(variant: str, num_classes: int) -> nn.Module:
    """ResNet-50 (He et al., CVPR 2016, arXiv 1512.03385) from the zoo's layers, with the encoding of its variant."""
    layers = Layers(variant)
    encoding = InverseEncoding() if layers.is_bcos else Standardise(IMAGENET_MEAN, IMAGENET_STD)
    stem = [layers.conv(6 if layers.is_bcos else 3, 64, 7, 2), layers.norm(64), layers.activation()]
    blocks, in_channels = [], 64
    for stage, count in enumerate((3, 4, 6, 3)):
        channels = 64 * 2**stage
        for block in range(count):
            blocks.append(Bottleneck(layers, in_channels, channels, 2 if stage and not block else 1))
            in_channels = 4 * channels
    head = layers.head(in_channels, num_classes)
    return channels_last(nn.Sequential(encoding, *stem, nn.MaxPool2d(3, 2, 1), *blocks, head))


def resnet56(variant: str, num_classes: int) -> nn.Module:
    return bcos_vision.create_model("resnet56", num_classes=num_classes, variant=variant)


BUILDERS: dict[str, Callable[[str, int], nn.Module]] = {"resnet56": resnet56, "resnet50": resnet50}


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
        self.model = BUILDERS[case.name](variant, case.num_classes).to(device)
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
