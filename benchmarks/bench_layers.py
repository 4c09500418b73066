"""Speed of one B-cos layer next to the plain layer it replaces and to the formula in plain PyTorch.

`pytest --benchmark benchmarks/bench_layers.py` prints the table. In each round the three run one after the other, so
that what else the machine does meets all of them; the ratios are of medians. Tensors are channels-last, as in the
models. On a busy machine set OMP_NUM_THREADS=1: two threads that share a core wait for each other.
"""

import os
import time

import pytest
import torch
import torch.nn.functional as F
from bcos_kernels import build_report, reference

from .cases import CASES

functional = pytest.importorskip("bcos_core.functional")

SETTINGS = (
    [("cuda", torch.float32), ("cuda", torch.bfloat16)] if torch.cuda.is_available() else [("cpu", torch.float32)]
)
EPS = 1e-6
BATCH_FACTOR = int(os.environ.get("BCOS_BENCHMARK_BATCH", "1"))
"""Multiplies every batch: the cases are sized for two cores."""
BUDGET = 0.6
"""Seconds of measurement for a row of the table, between 5 and 50 rounds."""


def layers(case, b=2.0):
    """The three functions (x, weight) -> y under comparison, the plain one first."""
    options = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
    window = ((case.kernel_size,) * 2, (case.stride,) * 2, (case.padding,) * 2, (1, 1), case.groups)

    def plain(x, weight):
        return F.linear(x, weight) if case.linear else F.conv2d(x, weight, **options)

    def formula(x, weight):
        lin = plain(x, weight / torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True))
        if case.linear:
            lin, x = lin[:, :, None, None], x[:, :, None, None]
        return reference.scale(lin, x, b, *window, False, EPS)[0].view_as(lin[:, :, 0, 0] if case.linear else lin)

    def operator(x, weight):
        if case.linear:
            return functional.bcos_linear(x, weight, b=b)
        return functional.bcos_conv2d(x, weight, b=b, **options)

    return {"plain": plain, "formula": formula, "operator": operator}


def inputs(case, device, dtype):
    generator = torch.Generator().manual_seed(0)
    x_shape, kernel = (case.batch * BATCH_FACTOR, case.channels), (case.kernel_size,) * 2
    if not case.linear:
        x_shape += (case.size, case.size)
    weight_shape = (case.out_channels, case.channels // case.groups, *(() if case.linear else kernel))
    tensors = [torch.randn(shape, generator=generator).to(device, dtype) for shape in (x_shape, weight_shape)]
    if not case.linear:
        tensors = [t.contiguous(memory_format=torch.channels_last) for t in tensors]
    return [t.requires_grad_() for t in tensors]


def step(layer, x, weight, mode):
    """A function without arguments that does one forward, or one forward and backward, to its end."""
    with torch.no_grad():
        grad = torch.ones_like(layer(x, weight))
    wait = torch.cuda.synchronize if x.is_cuda else lambda: None

    def forward():
        with torch.no_grad():
            layer(x, weight)
        wait()

    def forward_and_backward():
        torch.autograd.grad(layer(x, weight), (x, weight), grad)
        wait()

    return forward if mode == "forward" else forward_and_backward


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@pytest.mark.parametrize("mode", ["forward", "forward+backward"])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s[0]}-{s[1]}".replace("torch.", ""))
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_layer(benchmark, case, setting, mode):
    x, weight = inputs(case, *setting)
    steps = {name: step(layer, x, weight, mode) for name, layer in layers(case).items()}
    for run in steps.values():  # the first calls fault pages in and choose algorithms
        run(), run()
    rounds = int(min(50, max(5, BUDGET / sum(map(seconds, steps.values())))))
    operator = steps.pop("operator")
    times = {name: [] for name in steps}

    def run_the_peers():
        for name, run in steps.items():
            times[name].append(seconds(run))

    benchmark.group = f"{setting[0]} {mode}"
    benchmark.pedantic(operator, setup=run_the_peers, rounds=rounds, iterations=1)
    median = {name: torch.tensor(values).median().item() for name, values in times.items()}
    median["operator"] = benchmark.stats.stats.median
    benchmark.extra_info.update(
        {
            "case": case.name,
            "mode": mode,
            "setting": " ".join(map(str, setting)),
            "kernels": str(build_report()),
            "batch": x.shape[0],
        },
        **{f"{name}_ms": value * 1e3 for name, value in median.items()},
        **{f"{name}_ratio": median[name] / median["plain"] for name in ("formula", "operator")},
    )
