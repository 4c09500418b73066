"""Measures one layer: all peers in turns."""

import math
from collections.abc import Sequence
from functools import partial

import torch

from .accuracy import Expected, expect, largest_error
from .buffers import Buffers, make_buffers
from .cases import Case
from .memory import kept_bytes, peak_bytes
from .peers import Layer, Unavailable, layer
from .precision import DTYPES, products
from .roofline import Ceilings, work
from .row import Row, reason
from .timing import Run, captured, clock, interleave, summarise

MIB = 2**20


def measure_layer(
    case: Case, device: str, dtype: str, mode: str, peers: Sequence[str], ceilings: Ceilings, budget: float
) -> list[Row]:
    """A row for each peer.

    Args:
        case: The layer, with the batch to use.
        device: "cpu" or "cuda".
        dtype: A name in precision.py.
        mode: "forward" (without autograd) or "forward+backward".
        peers: Names from peers.py, "plain" among them.
        ceilings: The machine's rates for this format.
        budget: Seconds of timing for all peers together.
    """
    rows = {p: Row(case.name, case.kind, case.has_options, device, dtype, mode, case.batch, p) for p in peers}
    with products(dtype):
        buffers = make_buffers(case, device, DTYPES[dtype])
        expected = expect(case, buffers, mode)
        runs = {}
        for peer, row in rows.items():
            try:
                function = layer(case, peer)
                _examine(row, function, buffers, expected)
            except Unavailable as gap:
                row.status, row.note = "skipped", str(gap)
            except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
                # where inductor has no compiler is nobody's fault
                row.status = "skipped" if peer == "compiled" else "failed"
                row.note = reason(error)
            else:
                runs[peer] = partial(buffers.run, function, mode)
        if "plain" in runs:
            _time(rows, runs, buffers, budget)
    todo = work(case, mode, DTYPES[dtype].itemsize)
    for row in rows.values():
        if row.median_ms is not None:
            row.gb_per_s = todo.bytes / row.median_ms / 1e6
            row.gflop_per_s = todo.flops / row.median_ms / 1e6
            row.share_of_limit = ceilings.seconds(todo) * 1e3 / row.median_ms
    return list(rows.values())


def _examine(row: Row, function: Layer, buffers: Buffers, expected: Expected) -> None:
    """Everything but time; these calls also warm up what is timed next."""
    buffers.run(function, row.mode, 0)
    if row.peer != "plain":
        error = largest_error(function, buffers, expected)
        if error == math.inf:
            raise ArithmeticError("output or gradient is not finite")
        row.error = error
    row.peak_mib = peak_bytes(partial(buffers.run, function, row.mode, 1), row.device) / MIB
    if row.mode == "forward+backward":
        known = [t for t in buffers.wanted if isinstance(t, torch.Tensor)]
        row.kept_mib = kept_bytes(partial(buffers.forward, function, 0), known) / MIB


def _time(rows: dict[str, Row], runs: dict[str, Run], buffers: Buffers, budget: float) -> None:
    device = rows["plain"].device
    times = interleave(runs, clock(device), budget)
    for peer, seconds in times.items():
        row, summary = rows[peer], summarise(seconds, times["plain"])
        row.rounds, row.copies, row.ratio = summary.rounds, buffers.copies, summary.ratio
        row.median_ms, row.p10_ms, row.p90_ms = summary.median_ms, summary.p10_ms, summary.p90_ms
    if device == "cuda":
        _time_graphs(rows, runs, buffers.copies, budget)


def _time_graphs(rows: dict[str, Row], runs: dict[str, Run], copies: int, budget: float) -> None:
    """The same from CUDA graphs, one call on each copy of the inputs in a replay."""
    graphs: dict[str, Run] = {}
    for peer, run in runs.items():
        try:
            graphs[peer] = captured(run, copies)
        except RuntimeError as error:
            rows[peer].note = f"no CUDA graph: {reason(error)}"
    if "plain" not in graphs:
        return
    times = interleave(graphs, clock("cuda"), budget)
    for peer, seconds in times.items():
        summary = summarise(seconds, times["plain"])
        rows[peer].graph_ms, rows[peer].graph_ratio = summary.median_ms / copies, summary.ratio
