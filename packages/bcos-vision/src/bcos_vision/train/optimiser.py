"""Optimiser and schedule, as the configuration names them."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from bcos_vision.config import OptimConfig

START = 0.01
"""Share of the learning rate at the first step of a warm-up."""


def make_optimiser(
    parameters: Iterable[nn.Parameter],
    options: OptimConfig,
    *,
    fused: bool,
    exponents: Iterable[nn.Parameter] = (),
    exponent_lr: float | None = None,
) -> torch.optim.Optimizer:
    """An optimiser that decays weights, but neither norms nor biases nor exponents.

    Args:
        parameters: What is trained.
        options: Which optimiser, and its numbers.
        fused: One kernel for all parameters; it unscales float16 gradients itself, so that nothing can clip them.
        exponents: Those of ``parameters`` that are learnt exponents.
        exponent_lr: Their learning rate; None for that of the others.

    Example:
        >>> optimiser = make_optimiser(nn.Linear(2, 3).parameters(), OptimConfig(weight_decay=0.1), fused=True)
        >>> [(group["weight_decay"], len(group["params"])) for group in optimiser.param_groups]
        [(0.1, 1), (0.0, 1)]
    """
    exponents = list(exponents)
    own = set(exponents)
    parameters = [p for p in parameters if p not in own]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        {"params": exponents, "weight_decay": 0.0, "lr": options.lr if exponent_lr is None else exponent_lr},
    ]
    groups = [group for group in groups if group["params"]]
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=0.9, nesterov=True, fused=fused)
    kind = torch.optim.Adam if options.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=options.lr, fused=fused)


def learning_rate_share(step: int, warmup: int, total: int) -> float:
    """Share of the full learning rate at an optimiser step: a line from :data:`START` to 1, then a cosine to 0.

    Args:
        step: The step, from 0.
        warmup: Steps of the rise.
        total: Steps of the whole training.

    Example:
        >>> [round(learning_rate_share(step, 2, 6), 3) for step in range(7)]
        [0.01, 0.505, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return START + (1 - START) * step / warmup
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))
