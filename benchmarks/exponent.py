"""``python -m benchmarks.exponent``: layers whose B is learnt, and those whose B is a fixed number that is no integer.

Forward and backward, interleaved in one process; ratios are medians over rounds. The page goes to docs/results.
"""

import argparse
import pathlib

import torch
from bcos_core.nn import BcosConv2d, BcosLayer, BcosLinear, Exponent
from torch import Tensor

from .environment import REPOSITORY, environment
from .timing import clock, interleave, summarise

B, TARGET, BUDGET = 1.5, 1.15, 8.0
KINDS = ("fixed", "learnt, by layer", "learnt, by channel")


def layer(name: str, kind: str) -> tuple[BcosLayer, Tensor]:
    """A layer and an input for it."""
    channels = {"conv 3x3": 64, "conv 1x1": 256, "conv 3x3, small images": 64, "linear": 768}[name]
    b = B if kind == "fixed" else Exponent(B, channels if kind.endswith("channel") else None)
    torch.manual_seed(0)
    if name == "linear":
        return BcosLinear(192, channels, b=b), torch.rand(16, 196, 192)
    size, inputs, kernel = {"conv 3x3": (28, 64, 3), "conv 1x1": (28, 64, 1)}.get(name, (8, 64, 3))
    convolution = BcosConv2d(inputs, channels, kernel, padding=kernel // 2, b=b)
    x = torch.rand(16 if size == 28 else 64, inputs, size, size).to(memory_format=torch.channels_last)
    return convolution.to(memory_format=torch.channels_last), x


def row(name: str, device: str) -> str:
    """A line of the table: milliseconds of each kind, and ratios to the fixed one."""
    runs = {}
    for kind in KINDS:
        module, x = layer(name, kind)
        module, x = module.to(device), x.to(device).requires_grad_()
        gradient = torch.ones_like(module(x))

        def run(_call: int, module: BcosLayer = module, x: Tensor = x, gradient: Tensor = gradient) -> None:
            torch.autograd.grad(module(x), [x, *module.parameters()], gradient)

        run(0)
        runs[kind] = run
    times = interleave(runs, clock(device), BUDGET)
    found = {kind: summarise(times[kind], times["fixed"]) for kind in KINDS}
    cells = [f"{found[kind].median_ms:.2f}" for kind in KINDS] + [f"{found[kind].ratio:.2f}" for kind in KINDS[1:]]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exponent", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out = options.out or REPOSITORY / f"docs/results/exponent-{options.device}.md"
    found = environment(options.device)
    lines = []
    for name in ("conv 3x3", "conv 1x1", "conv 3x3, small images", "linear"):
        lines.append(row(name, options.device))
        print(lines[-1], flush=True)
    columns = ("layer", *(f"{kind}, ms" for kind in KINDS), *(f"{kind}, times the fixed one" for kind in KINDS[1:]))
    table = "\n".join([f"| {' | '.join(columns)} |", f"| {' | '.join(['---'] * len(columns))} |", *lines])
    out.write_text(_PAGE.format(e=found, b=B, target=TARGET, table=table, command=f"--device {options.device}"))
    print(f"saved {out}")


_PAGE = """# What learning B costs

`python -m benchmarks.exponent {command}`, {e.date}, commit {e.commit}; {e.cpu}, {e.threads} threads, load before
{e.load}, torch {e.torch}. Forward and backward of one layer, B = {b}, float32: medians of interleaved rounds in one
process. Asked for: at most {target} times the fixed one.

{table}
"""

if __name__ == "__main__":
    main()
