"""Inputs of a layer in several copies, so that no call finds its input in a cache."""

import math
import os
import pathlib
from dataclasses import dataclass

import torch
from torch import Tensor

from .cases import Case
from .peers import Layer

MAX_COPIES = 16
SHARE_OF_MEMORY = 0.25
"""Of the device's memory at most, for all copies."""


@dataclass(frozen=True)
class Buffers:
    """Copies of input and output gradient; one weight and one B for all."""

    x: list[Tensor]
    weight: Tensor
    b: float | Tensor
    grads: dict[int, list[Tensor]]
    """By number of output channels: a plain layer answers with all its MaxOut filters."""

    @property
    def copies(self) -> int:
        return len(self.x)

    @property
    def wanted(self) -> list[Tensor]:
        """What has a gradient, but for the input."""
        return [self.weight, self.b] if isinstance(self.b, Tensor) else [self.weight]

    def forward(self, layer: Layer, call: int) -> Tensor:
        return layer(self.x[call % self.copies], self.weight, self.b)

    def backward(self, y: Tensor, call: int, grad: Tensor | None = None) -> tuple[Tensor, ...]:
        """Gradients of input and weight, and of a trainable B where the layer has used it."""
        grad = self.grads[y.shape[1]][call % self.copies] if grad is None else grad
        return torch.autograd.grad(y, [self.x[call % self.copies], *self.wanted], grad, allow_unused=True)

    def run(self, layer: Layer, mode: str, call: int) -> None:
        """One forward, or one forward and backward."""
        if mode == "forward":
            with torch.no_grad():
                self.forward(layer, call)
        else:
            self.backward(self.forward(layer, call), call)


def make_buffers(case: Case, device: str, dtype: torch.dtype) -> Buffers:
    generator = torch.Generator(device).manual_seed(0)

    def normal(shape: tuple[int, ...]) -> Tensor:
        values = torch.randn(shape, generator=generator, device=device, dtype=dtype)
        return values if case.linear or case.contiguous else values.contiguous(memory_format=torch.channels_last)

    y_shapes = {c: (case.batch, c, *case.y_shape[2:]) for c in {case.out_channels, case.weight_shape[0]}}
    one_set = (math.prod(case.x_shape) + sum(map(math.prod, y_shapes.values()))) * dtype.itemsize
    copies = number_of_copies(one_set, last_level_cache(device), memory(device))
    x = normal(case.x_shape)
    grads = {channels: normal(shape) for channels, shape in y_shapes.items()}
    return Buffers(
        [x.clone().requires_grad_() for _ in range(copies)],
        normal(case.weight_shape).requires_grad_(),
        torch.tensor(case.b, device=device, requires_grad=True) if case.trainable_b else case.b,
        {channels: [grad.clone() for _ in range(copies)] for channels, grad in grads.items()},
    )


def number_of_copies(one_set: int, cache: int, memory: int) -> int:
    """Copies of ``one_set`` bytes that fill twice the cache, two at least where memory allows."""
    copies = min(MAX_COPIES, max(2, math.ceil(2 * cache / one_set)))
    return max(1, min(copies, int(SHARE_OF_MEMORY * memory / one_set)))


def last_level_cache(device: str) -> int:
    """Size in bytes; of a CPU that does not tell, 32 MiB."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).L2_cache_size
    sizes = [int(p.read_text().strip().removesuffix("K")) << 10 for p in _CACHES.glob("index*/size")]
    return max(sizes, default=32 << 20)


_CACHES = pathlib.Path("/sys/devices/system/cpu/cpu0/cache")


def memory(device: str) -> int:
    """Bytes of memory that are free on a GPU, installed beside a CPU."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
