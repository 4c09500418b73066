"""Fit a network over variables to samples: Adam, then L-BFGS, each on all samples at once."""

from collections.abc import Callable

import torch
from bcos_core.run.error import InputError
from torch import Tensor, nn

from bcos_ode.config import FitConfig

Report = Callable[[str, int, float], None]
"""Told what is done, how many steps of it, and the loss."""

_HISTORY = 50  # pairs that L-BFGS remembers
_EVERY = 20  # steps between two reports
_TOO_FAR = 1e6  # of the worst loss so far: what no loss at all counts as, a number that can be interpolated


class Diverged(InputError):
    """The loss is no longer finite."""


def fit_network(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    config: FitConfig,
    *,
    weights: Tensor | None = None,
    what: str = "fit",
    report: Report = lambda _what, _step, _loss: None,
) -> float:
    """Minimise the mean squared error of targets, each in units of its root mean square; returns the last loss.

    Args:
        model: From inputs (n, d) to outputs (n, k).
        inputs: Shape (n, d).
        targets: Shape (n, k).
        config: Steps and rates.
        weights: Of each sample's error, shape (n, 1).
        what: Name of this stage, for the report.
        report: Told of progress.

    Raises:
        Diverged: If the loss is not finite.
    """
    weights = torch.ones_like(targets[:, :1]) if weights is None else weights
    size = (targets * weights).square().mean(0).sqrt()
    size = torch.where(size > 0, size, torch.ones_like(size))

    def loss() -> Tensor:
        return ((model(inputs) - targets) * weights / size).square().mean()

    return minimise(model, loss, config, what=what, report=report)


def minimise(
    model: nn.Module,
    loss: Callable[[], Tensor],
    config: FitConfig,
    *,
    what: str = "fit",
    report: Report,
    advice: str = "a smaller --fit.lr",
) -> float:
    """Minimise a loss over a model's parameters; returns the last one.

    Args:
        model: Whose parameters.
        loss: Of the model as it is.
        config: Steps and rates.
        what: Name of this stage, for the report.
        report: Told of progress.
        advice: What to try where the loss is not finite.

    Raises:
        Diverged: If it is not finite.
    """
    parameters = list(model.parameters())
    done = 0

    def tell(step: int, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise Diverged(f"{what}: the loss is {float(value.detach())}; try {advice}")
        report(what, step, float(value.detach()))

    if config.adam_steps:
        optimiser = torch.optim.AdamW(parameters, config.lr, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.adam_steps)
        for step in range(config.adam_steps):
            optimiser.zero_grad()
            value = loss()
            value.backward()
            optimiser.step()
            schedule.step()
            done += 1
            if step % _EVERY == 0:
                tell(done, value)
    value = _quasi_newton(parameters, loss, config, done, tell) if config.lbfgs_steps else loss().detach()
    tell(config.adam_steps + config.lbfgs_steps, value)
    return float(value)


def _quasi_newton(
    parameters: list[nn.Parameter],
    loss: Callable[[], Tensor],
    config: FitConfig,
    done: int,
    tell: Callable[[int, Tensor], None],
) -> Tensor:
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=_EVERY,
        history_size=_HISTORY,
        tolerance_change=0,  # the default ends three to five times too early
        tolerance_grad=0,
        line_search_fn="strong_wolfe",
    )

    worst: Tensor | None = None  # of the losses seen

    def closure() -> Tensor:
        nonlocal worst
        optimiser.zero_grad()
        value = loss()
        if not torch.isfinite(value):  # a step too far: the line search is to turn back
            return value if worst is None else _TOO_FAR * worst.clamp(min=1)
        value.backward()
        worst = value.detach() if worst is None else torch.maximum(worst, value.detach())
        return value

    value = torch.tensor(0.0)
    for step in range(0, config.lbfgs_steps, _EVERY):
        count = optimiser.param_groups[0]["max_iter"] = min(_EVERY, config.lbfgs_steps - step)
        value = optimiser.step(closure).detach()  # type: ignore[union-attr]
        tell(done + step + count, value)
    return loss().detach()
