"""The results as a file to compute with (JSON) and a page to read (Markdown)."""

import json
import pathlib
from collections.abc import Sequence
from dataclasses import asdict
from statistics import geometric_mean

from .environment import Environment
from .roofline import Ceilings
from .row import Row
from .timing import MIN_ROUNDS

FAMILIES = {
    "all but small": lambda row: row.kind != "small",
    "1x1 + linear": lambda row: row.kind == "1x1+linear",
    "k x k": lambda row: row.kind == "kxk",
    "with options": lambda row: row.options,
    "B = 2, dense": lambda row: row.kind != "small" and not row.options,
    "small": lambda row: row.kind == "small",
}
"""Families overlap: the two after the first are its halves, and so are the two after them; small layers stand apart."""


def to_json(rows: Sequence[Row], environment: Environment, ceilings: dict[str, Ceilings]) -> str:
    limits = {dtype: asdict(c) for dtype, c in ceilings.items()}
    content = {"environment": asdict(environment), "ceilings": limits, "rows": [asdict(row) for row in rows]}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def to_markdown(rows: Sequence[Row], environment: Environment, ceilings: dict[str, Ceilings], command: str) -> str:
    e = environment
    parts = [
        f"# Speed on {e.device}",
        f"`{command}`, {e.date}, commit {e.commit}.\n"
        f"{e.cpu}, {e.threads} of {e.cores} cores, {e.capability}; load before the start {e.load}. Python {e.python}, "
        f"torch {e.torch}{f', CUDA {e.cuda}, cuDNN {e.cudnn}' if e.cuda else ''}. Kernels: {e.kernels}.",
    ]
    layers = [row for row in rows if row.kind != "network"]
    for dtype, mode in dict.fromkeys((row.dtype, row.mode) for row in layers):
        chosen = [row for row in layers if (row.dtype, row.mode) == (dtype, mode)]
        parts += [f"## {dtype}, {mode}", _limits(ceilings[dtype]), family_table(chosen), _layer_table(chosen)]
    networks = [row for row in rows if row.kind == "network"]
    if networks:
        parts += ["## Training steps", _network_table(networks)]
    parts += [_HOW, *_notes(rows)]
    return "\n\n".join(parts) + "\n"


_HOW = """## How to read this

All peers of a case run in one process, one call of each per round in a changing order, warm, on inputs that no cache
holds. ms is the median over the rounds, with the 10th and 90th percentile in brackets; x is the median of the rounds'
ratios to the plain layer, and means of x are geometric. Graph: from replays of a CUDA graph. Limit: the shortest time
this machine could need over the time it took; the shortest is that of the bytes a layer must move at the rate of a
large copy, or that of its arithmetic at the rate of a large matrix product, whichever is longer. What beats that matrix
product passes 100%. Kept: what stays in memory for backward, without parameters. Peak: allocated during the call at
most. Error: the largest deviation of output and gradients from the formula in float64, relative to the largest value
(with MaxOut in a short format, a winner other than float64's counts in full)."""


def _limits(ceilings: Ceilings) -> str:
    return (
        f"A large copy moves {ceilings.bytes_per_s / 1e9:.3g} GB/s, a large matrix product computes "
        f"{ceilings.flops_per_s / 1e9:.4g} GFLOP/s."
    )


def family_table(rows: Sequence[Row]) -> str:
    """Geometric means of the ratios to the plain layer, and the worst case, for each family of one format and mode."""
    peers = [p for p in dict.fromkeys(row.peer for row in rows) if p != "plain"]
    graphs = any(row.graph_ratio for row in rows)
    lines = []
    for family, belongs in FAMILIES.items():
        for kind in ("ratio", "graph_ratio") if graphs else ("ratio",):
            measured = {p: [r for r in rows if r.peer == p and belongs(r) and getattr(r, kind)] for p in peers}
            if not any(measured.values()):
                continue
            cells = [family + (", graph" if kind == "graph_ratio" else "")]
            for of_peer in measured.values():
                if not of_peer:
                    cells += ["", ""]
                    continue
                worst = max(of_peer, key=lambda r: getattr(r, kind))
                mean = geometric_mean(getattr(r, kind) for r in of_peer)
                cells += [f"{mean:.2f}x of {len(of_peer)}", f"{getattr(worst, kind):.2f}x {worst.case}"]
            lines.append(cells)
    return _table(["family", *(head for peer in peers for head in (f"{peer}, mean", "worst"))], lines)


def _layer_table(rows: Sequence[Row]) -> str:
    peers = list(dict.fromkeys(row.peer for row in rows))
    graphs = any(row.graph_ms for row in rows)
    backward = any(row.kept_mib is not None for row in rows)
    heads = ["layer", "batch", "peer", "ms", "x"] + ["graph ms", "x"] * graphs
    heads += ["GB/s", "GFLOP/s", "limit"] + ["kept MiB"] * backward + ["peak MiB", "error"]
    lines = []
    for row in rows:
        first = row.peer == peers[0]
        line = [row.case if first else "", str(row.batch) if first else "", row.peer]
        if row.median_ms is None:
            lines.append([*line, row.status])
            continue
        line += [_milliseconds(row), _number(row.ratio, ".2f")]
        line += [_number(row.graph_ms, ".3f"), _number(row.graph_ratio, ".2f")] * graphs
        line += [_number(row.gb_per_s, ".3g"), _number(row.gflop_per_s, ".4g"), _number(row.share_of_limit, ".0%")]
        line += [_number(row.kept_mib, ".1f")] * backward
        lines.append([*line, _number(row.peak_mib, ".1f"), _number(row.error, ".1e")])
    return _table(heads, lines)


def _network_table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        line = [row.case, row.dtype, str(row.batch), row.peer]
        if row.median_ms is None:
            lines.append([*line, row.status])
            continue
        (base,) = (r for r in rows if (r.case, r.dtype, r.peer) == (row.case, row.dtype, "baseline"))
        line += [_milliseconds(row), _number(row.images_per_s, ".4g"), _number(row.ratio, ".2f")]
        line += [_number(row.kept_mib, ".1f"), _over(row.kept_mib, base.kept_mib)]
        lines.append([*line, _number(row.peak_mib, ".1f"), _over(row.peak_mib, base.peak_mib)])
    return _table(
        ["network", "dtype", "batch", "variant", "ms", "images/s", "x", "kept MiB", "x", "peak MiB", "x"], lines
    )


def _notes(rows: Sequence[Row]) -> list[str]:
    """What a reader must know about single rows."""
    notes = [f"- {r.case}, {r.dtype}, {r.mode}, {r.peer}: {r.status}: {r.note}" for r in rows if r.note]
    hasty = [r for r in rows if r.rounds and r.rounds < MIN_ROUNDS]
    notes += [f"- {r.case}, {r.dtype}, {r.mode}, {r.peer}: {r.rounds} round(s) only, for want of time" for r in hasty]
    return ["## Notes", "\n".join(notes)] if notes else []


def _milliseconds(row: Row) -> str:
    times = (row.median_ms, row.p10_ms, row.p90_ms)
    median, p10, p90 = (_number(ms, ".0f" if ms and ms >= 100 else ".3g") for ms in times)
    return f"{median} ({p10}-{p90})"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _over(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}" if value and base else ""


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    padded = [[*line, *[""] * (len(heads) - len(line))] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *padded))


def save(out: pathlib.Path, json_text: str, markdown: str) -> list[pathlib.Path]:
    """Write OUT.json and OUT.md; returns both."""
    out.parent.mkdir(parents=True, exist_ok=True)
    # a name may hold a dot, which with_suffix would take for the start of one
    paths = [out.with_name(f"{out.name}.json"), out.with_name(f"{out.name}.md")]
    for path, text in zip(paths, (json_text, markdown), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths
