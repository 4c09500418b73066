"""Times of several functions in one process, taken in turns, so that what else the machine does meets all of them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy
import torch

Run = Callable[[int], object]
"""One call of what is measured; its argument counts calls, and chooses the buffers."""

MIN_ROUNDS, MAX_ROUNDS = 5, 100
PATIENCE = 10
"""Budgets after which fewer than MIN_ROUNDS must do: short floats crawl on a CPU without instructions for them."""


def clock(device: str) -> Callable[[Callable[[], object]], float]:
    """What measures one call in seconds: events on a GPU, the process's clock on a CPU."""
    return _cuda_seconds if device == "cuda" else _host_seconds


def _host_seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _cuda_seconds(run: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def interleave(
    runs: Mapping[str, Run], seconds: Callable[[Callable[[], object]], float], budget: float
) -> dict[str, list[float]]:
    """Seconds of each function in each round: one call of each per round, in an order that changes.

    Args:
        runs: Functions by name, warm.
        seconds: What measures a call.
        budget: Seconds to spend, beyond which at most the round begun is finished (but see MIN_ROUNDS and PATIENCE).
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    begin, call = time.perf_counter(), 0
    for number in range(MAX_ROUNDS):
        for name in turn(list(runs), number):
            times[name].append(seconds(partial(runs[name], call)))
            call += 1
        spent = time.perf_counter() - begin
        if spent > budget * (1 if number + 1 >= MIN_ROUNDS else PATIENCE):
            break
    return times


def turn(names: Sequence[str], number: int) -> list[str]:
    """The order of a round: each is first as often as any other, and after each of its neighbours."""
    start = number % len(names)
    order = [*names[start:], *names[:start]]
    return order[::-1] if number // len(names) % 2 else order


@dataclass(frozen=True)
class Summary:
    """Times of one function over all rounds."""

    rounds: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    ratio: float
    """Median over the rounds of its time over the reference's in the same round."""


def summarise(times: Sequence[float], reference: Sequence[float]) -> Summary:
    p10, median, p90 = (float(p) * 1e3 for p in numpy.percentile(times, (10, 50, 90)))
    ratio = statistics.median(t / r for t, r in zip(times, reference, strict=True))
    return Summary(len(times), median, p10, p90, ratio)


def captured(run: Run, calls: int) -> Run:
    """A CUDA graph of so many consecutive calls: their replay is the time without the launches from Python."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        run(0)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in range(calls):
            run(call)
    return lambda _: graph.replay()
