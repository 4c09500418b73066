"""What a layer must move and compute at least, and what this machine can."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .buffers import last_level_cache
from .cases import Case
from .timing import clock


def multiply_adds(case: Case) -> int:
    """Of the linear map in one forward pass, all MaxOut filters included."""
    return math.prod(case.weight_shape) * math.prod(case.y_shape) // case.out_channels


@dataclass(frozen=True)
class Work:
    """The least a B-cos layer can do: its own tensors once in each pass, the linear map's arithmetic."""

    bytes: int
    flops: int


def work(case: Case, mode: str, itemsize: int) -> Work:
    """Forward reads x and w and writes y; backward reads x, w and y's gradient and writes those of x and w."""
    x, w, y = (math.prod(shape) * itemsize for shape in (case.x_shape, case.weight_shape, case.y_shape))
    forward = Work(x + w + y, 2 * multiply_adds(case))
    if mode == "forward":
        return forward
    return Work(forward.bytes + 2 * x + 2 * w + y, 3 * forward.flops)


@dataclass(frozen=True)
class Ceilings:
    """Rates measured in the same session."""

    bytes_per_s: float
    """Of a large copy, bytes read and written."""
    flops_per_s: float
    """Of a large matrix product in the format at hand, or in float32 where that is faster."""

    def seconds(self, work: Work) -> float:
        """The shortest time in which this machine could do the work, moving and computing at once."""
        return max(work.bytes / self.bytes_per_s, work.flops / self.flops_per_s)


def measure_ceilings(device: str, dtype: torch.dtype, budget: float) -> Ceilings:
    """The best copy and the best matrix products within ``budget`` seconds each."""
    source = torch.ones(max(256 << 20, 8 * last_level_cache(device)) // 4, device=device)
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source), device, budget)
    # a CPU without instructions for short floats does better to convert them
    rate = max(_product_rate(device, d, budget) for d in {dtype, torch.float32})
    return Ceilings(2 * source.nbytes / copy, rate)


def _product_rate(device: str, dtype: torch.dtype, budget: float) -> float:
    side = 8192 if device == "cuda" else 2048 if dtype == torch.float32 else 1024
    # random values: products of zeros draw less power, and run faster than real ones
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _best(lambda: left @ right, device, budget)


def _best(run: Callable[[], object], device: str, budget: float) -> float:
    seconds = clock(device)
    begin, best = time.perf_counter(), math.inf
    while True:  # the first call, which faults pages in, is not the best one of many
        best = min(best, seconds(run))
        if time.perf_counter() - begin > budget:
            return best
