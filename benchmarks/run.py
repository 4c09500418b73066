"""The speed suite: `python -m benchmarks.run --help`, from the repository's root."""

import argparse
import math
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

# torch reads it on import; its profiler, which counts allocations here, talks otherwise
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .cases import CASES, NETWORKS
from .environment import REPOSITORY, environment
from .layers import measure_layer
from .peers import PEERS
from .precision import DTYPES, ON_DEVICE, products
from .report import save, to_json, to_markdown
from .roofline import Ceilings, measure_ceilings
from .row import Row

MODES = ("forward", "forward+backward")


@dataclass(frozen=True)
class Job:
    """Something to measure, and what the progress bar calls it."""

    title: str
    measure: Callable[[], list[Row]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    _check(parser, options)
    if options.threads:
        torch.set_num_threads(options.threads)
    before = environment(options.device)
    console = Console(stderr=True)
    console.print(
        f"{before.device}, {before.threads} thread(s), load {before.load}; kernels: {before.kernels}", soft_wrap=True
    )
    ceilings: dict[str, Ceilings] = {}
    jobs = _network_jobs(options) if options.networks else _layer_jobs(options, ceilings)
    if not options.networks:
        for dtype in options.dtype:
            with products(dtype):
                ceilings[dtype] = measure_ceilings(options.device, DTYPES[dtype], options.budget)
    rows, complete = _measure(jobs, console)
    if rows:
        command = "python -m benchmarks.run " + " ".join(_repeatable(argv if argv is not None else sys.argv[1:]))
        out = pathlib.Path(options.out) if options.out else _default_out(options, before.device)
        paths = save(out, to_json(rows, before, ceilings), to_markdown(rows, before, ceilings, command.strip()))
        print("saved", *(os.path.relpath(path) for path in paths))
    failures = [row for row in rows if row.status == "failed"]
    for row in failures:
        console.print(
            f"failed: {row.case}, {row.dtype}, {row.mode}, {row.peer}: {row.note}", markup=False, soft_wrap=True
        )
    return 1 if failures else 0 if complete else 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        allow_abbrev=False,
        description="Speed of B-cos layers and networks next to plain ones. Leave the machine alone meanwhile.",
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    add = parser.add_argument
    add("--device", choices=list(ON_DEVICE), default=default, help="default: the GPU where there is one")
    add("--dtype", nargs="+", choices=list(DTYPES), help="default: float32 on a CPU, all four on a GPU")
    add("--mode", nargs="+", choices=MODES, default=list(MODES), help="of layers; default: both")
    add("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="of layers; default: all")
    add("--cases", metavar="SUBSTRING", default="", help="only what has this in its name")
    add("--networks", action="store_true", help="training steps of networks instead of layers")
    add("--budget", type=float, metavar="S", help="seconds of timing for a case and mode; default: 2, networks 20")
    add("--threads", type=int, metavar="N", help="of the CPU; default: PyTorch's choice")
    add("--out", metavar="NAME", help="writes NAME.json and NAME.md; default: docs/results/speed-DEVICE")
    add("--list", action="store_true", help="print the names of all cases and stop")
    return parser


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """One line and exit code 2 for what cannot be done, before anything is measured."""
    known = [case.name for case in (NETWORKS if options.networks else CASES)]
    if options.list:
        print(*known, sep="\n")
        raise SystemExit
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: no GPU is visible to torch; expected cpu")
    options.dtype = options.dtype or (["float32"] if options.device == "cpu" else list(ON_DEVICE["cuda"]))
    for dtype in options.dtype:
        if dtype not in ON_DEVICE[options.device]:
            parser.error(f"--dtype: {options.device} has {', '.join(ON_DEVICE[options.device])}, got {dtype}")
    if not any(options.cases in name for name in known):
        parser.error(f'--cases: no name has "{options.cases}" in it; the names are {"; ".join(known)}')
    options.budget = (20.0 if options.networks else 2.0) if options.budget is None else options.budget
    if not 0 < options.budget < math.inf:
        parser.error(f"--budget: expected seconds above 0, got {options.budget}")
    if options.threads is not None and options.threads < 1:
        parser.error(f"--threads: expected at least 1, got {options.threads}")
    if options.out is not None and (not pathlib.Path(options.out).name or pathlib.Path(options.out).is_dir()):
        parser.error(f'--out: expected the name of a file without ending, got "{options.out}"')
    if "plain" not in options.peers:  # the ratios are to it
        options.peers = ["plain", *options.peers]


def _layer_jobs(options: argparse.Namespace, ceilings: dict[str, Ceilings]) -> list[Job]:
    return [
        Job(
            f"{case.name}, {dtype}, {mode}",
            lambda case=case, dtype=dtype, mode=mode: measure_layer(
                case.on(options.device), options.device, dtype, mode, options.peers, ceilings[dtype], options.budget
            ),
        )
        for dtype in options.dtype
        for mode in options.mode
        for case in CASES
        if options.cases in case.name
    ]


def _network_jobs(options: argparse.Namespace) -> list[Job]:
    from .networks import measure_network  # layers alone need no bcos_vision

    return [
        Job(
            f"{case.name}, {dtype}",
            partial(measure_network, case.on(options.device), options.device, dtype, options.budget),
        )
        for dtype in options.dtype
        for case in NETWORKS
        if options.cases in case.name
    ]


def _measure(jobs: Sequence[Job], console: Console) -> tuple[list[Row], bool]:
    """All rows, and whether all jobs were done; what was measured before Ctrl-C is kept."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows: list[Row] = []
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(jobs))
        try:
            for job in jobs:
                progress.update(bar, description=job.title)
                new = job.measure()
                rows += new
                progress.console.print(f"{job.title}: {_ratios(new)}", markup=False, highlight=False, soft_wrap=True)
                progress.advance(bar)
        except KeyboardInterrupt:
            console.print("interrupted; saving what there is")
            return rows, False
    return rows, True


def _ratios(rows: Sequence[Row]) -> str:
    reference, *others = rows
    texts = [f"{reference.peer} {reference.median_ms:.4g} ms" if reference.median_ms else reference.status]
    return ", ".join(texts + [f"{r.peer} {r.ratio:.2f}x" if r.ratio else f"{r.peer} {r.status}" for r in others])


def _default_out(options: argparse.Namespace, device: str) -> pathlib.Path:
    name = "cpu" if options.device == "cpu" else device.lower().replace(" ", "-")
    return REPOSITORY / "docs" / "results" / ("-".join(["speed", name, *["networks"] * options.networks]))


def _repeatable(argv: Sequence[str]) -> list[str]:
    """The arguments for the report, without the file's path, which belongs to this machine."""
    words = []
    for before, word in zip(["", *argv], argv, strict=False):
        if before == "--out" or word.startswith("--out="):
            word = "--out=" * word.startswith("--out=") + pathlib.Path(word.removeprefix("--out=")).name
        words.append(f'"{word}"' if " " in word else word)
    return words


if __name__ == "__main__":
    raise SystemExit(main())
