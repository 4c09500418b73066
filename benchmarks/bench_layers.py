"""A quick look at every layer: `pytest --benchmark` prints the table.

Batches are reduced and nothing is compiled, so that two cores need some three minutes; `python -m benchmarks.run`
measures with care. In each round the peers run one after the other, so that what else the machine does meets all of
them.
"""

import statistics
from functools import partial

import pytest
import torch

pytest.importorskip("bcos_core.functional")

from .buffers import make_buffers
from .cases import CASES
from .peers import Unavailable, layer
from .precision import products
from .timing import clock

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REDUCTION = 1 if DEVICE == "cuda" else 4
BUDGET = 0.6
"""Seconds of measurement for a row of the table, between 5 and 50 rounds."""


@pytest.mark.parametrize("mode", ["forward", "forward+backward"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_layer(benchmark, case, mode):
    case = case.on(DEVICE).reduced(REDUCTION)
    seconds = clock(DEVICE)
    with products("float32"):
        buffers = make_buffers(case, DEVICE, torch.float32)
        try:
            functions = {peer: layer(case, peer) for peer in ("plain", "formula", "operator")}
        except Unavailable as reason:
            pytest.skip(str(reason))
        runs = {peer: partial(buffers.run, function, mode) for peer, function in functions.items()}
        for run in runs.values():  # the first calls fault pages in and choose algorithms
            run(0)
            run(1)
        rounds = int(min(50, max(5, BUDGET / sum(seconds(partial(run, 0)) for run in runs.values()))))
        operator = runs.pop("operator")
        times = {peer: [] for peer in runs}
        call = iter(range(4 * rounds))

        def run_the_peers():
            for peer, run in runs.items():
                times[peer].append(seconds(partial(run, next(call))))

        def run_the_operator():
            operator(next(call))
            if DEVICE == "cuda":
                torch.cuda.synchronize()

        benchmark.group = f"{DEVICE} {mode}"
        benchmark.pedantic(run_the_operator, setup=run_the_peers, rounds=rounds, iterations=1)
    times["operator"] = benchmark.stats.stats.data
    assert len(times["operator"]) == rounds
    ratios = {
        peer: statistics.median(t / p for t, p in zip(values, times["plain"], strict=True))
        for peer, values in times.items()
    }
    benchmark.extra_info.update(
        {"case": case.name, "mode": mode, "device": DEVICE, "batch": case.batch},
        **{f"{peer}_ms": statistics.median(values) * 1e3 for peer, values in times.items()},
        **{f"{peer}_ratio": ratio for peer, ratio in ratios.items()},
    )
