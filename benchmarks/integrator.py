"""``python -m benchmarks.integrator``: a fixed-step Runge-Kutta method compiled, stepped in Python, and torchdiffeq's.

Forward and backward over a batch of trajectories, interleaved in one process; the answers are compared first.
"""

import argparse
import pathlib
import time

import torch
from bcos_ode.config import NetworkConfig
from bcos_ode.model import DataScales, VariableModel, create_model
from bcos_ode.runge_kutta import FixedStepIntegrator
from torch import Tensor
from torchdiffeq import odeint

from .environment import REPOSITORY, environment
from .timing import interleave, summarise

BATCH, STEPS, SUBSTEPS, BUDGET = 256, 50, 2, 20.0
NETWORKS = {
    "B-cos 2x32": NetworkConfig(depth=2),
    "B-cos 3x32": NetworkConfig(depth=3),
    "degree 2": NetworkConfig(model="degree"),
    "plain 2x32": NetworkConfig(model="mlp"),
}
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.integrator", description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=REPOSITORY / "docs/results/integrator-cpu.md")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = environment("cpu")
    lines = []
    for name, config in NETWORKS.items():
        for dtype in DTYPES:
            lines.append(row(name, config, dtype))
            print(lines[-1], flush=True)
    columns, rule = (" | ".join(cells) for cells in (_COLUMNS, ["---"] * len(_COLUMNS)))
    page = _PAGE.format(e=found, batch=BATCH, steps=STEPS, columns=columns, rule=rule, lines="\n".join(lines))
    options.out.write_text(page)
    print(f"saved {options.out}")


def row(name: str, config: NetworkConfig, dtype: str) -> str:
    """A line of the table: agreement, seconds of compilation, milliseconds, ratios."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    start = torch.rand(BATCH, 2, dtype=torch.float64) + 0.5
    field = create_model(config, ["x", "y"], ["x", "y"], DataScales.of(start, start - 1)).to(DTYPES[dtype])
    start = start.to(DTYPES[dtype])
    times = torch.linspace(0, 0.5, STEPS // SUBSTEPS + 1, dtype=DTYPES[dtype])
    grid = {"step_size": float(times[1]) / SUBSTEPS}
    stepped, compiled = (FixedStepIntegrator(field, substeps=SUBSTEPS, compiled=c) for c in (False, True))
    solvers = {
        "torchdiffeq": lambda: odeint(lambda _t, z: field(z), start, times, method="rk4", options=grid),
        "stepped": lambda: stepped(start, times),
        "compiled": lambda: compiled(start, times),
    }
    began = time.perf_counter()
    answers = {solver: _answer(field, solve) for solver, solve in reversed(solvers.items())}
    seconds = time.perf_counter() - began
    difference = max(
        float((ours - theirs).abs().max() / theirs.abs().max())
        for solver in ("stepped", "compiled")
        for ours, theirs in zip(answers[solver], answers["torchdiffeq"], strict=True)
    )
    runs = {solver: (lambda _call, solve=solve: _answer(field, solve)) for solver, solve in solvers.items()}
    measured = interleave(runs, _seconds, BUDGET)
    summaries = {solver: summarise(measured["torchdiffeq"], measured[solver]) for solver in solvers}
    own = {solver: summarise(t, t).median_ms for solver, t in measured.items()}
    cells = [f"{difference:.0e}", f"{seconds:.0f}", *(f"{own[solver]:.1f}" for solver in solvers)]
    cells += [f"{summaries[solver].ratio:.2f}" for solver in ("stepped", "compiled")]
    return f"| {name} | {dtype} | {' | '.join(cells)} |"


def _answer(field: VariableModel, solve) -> tuple[Tensor, Tensor]:
    """States, and the gradient of their mean square."""
    field.zero_grad()
    states = solve()
    states.square().mean().backward()
    return states.detach(), torch.cat([p.grad.flatten() for p in field.parameters()])


def _seconds(run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


_COLUMNS = (
    *("field", "dtype", "difference", "first call, s", "torchdiffeq, ms", "stepped, ms", "compiled, ms"),
    *("stepped, times faster", "compiled, times faster"),
)
_PAGE = """# Fixed steps, compiled

`python -m benchmarks.integrator`, {e.date}, commit {e.commit}; {e.cpu}, {e.threads} threads, load before {e.load},
torch {e.torch}.

Forward and backward through {steps} steps of the 3/8 rule ("rk4" here and in torchdiffeq), two between any two outputs
as the windows have it, batch {batch}, two variables. *difference*: the largest, of states and gradients, from
torchdiffeq's, relative to the largest. *first call*: seconds of all three, compilation included. Times are medians of
interleaved rounds in one process; ratios are torchdiffeq's time over ours, medians over rounds.

| {columns} |
| {rule} |
{lines}
"""

if __name__ == "__main__":
    main()
