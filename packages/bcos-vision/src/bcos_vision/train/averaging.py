"""An exponential moving average of the weights, which is then what is scored and kept."""

from collections.abc import Sequence

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Averages the weights, and the running statistics with them; integers are those of the last update.

    At first, and during the warm-up, the average is the weights themselves. Lightning swaps the average in where the
    network is validated, and keeps both in a checkpoint: the average as its ``state_dict``.

    Args:
        decay: Share of the average that an update keeps.
        every: Optimiser steps between updates.
        warmup: Optimiser steps before the average begins.
    """

    def __init__(self, decay: float, every: int, warmup: int) -> None:
        def update(averages: Sequence[Tensor], values: Sequence[Tensor], _count: Tensor | int) -> None:
            if averages[0].is_floating_point():
                torch._foreach_lerp_(list(averages), list(values), 1 - decay)  # type: ignore[attr-defined]
            else:
                torch._foreach_copy_(list(averages), list(values))  # type: ignore[attr-defined]

        super().__init__(multi_avg_fn=update)
        self._every = every
        self._warmup = warmup

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # the network is not there yet
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:  # a count that is asked for at each update: no GPU need be waited for
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        if step_idx is None:
            return False
        if step_idx < max(1, self._warmup):
            if self._average_model is not None:
                self._average_model.n_averaged.zero_()  # the next update copies
            return True
        return (step_idx + 1) % self._every == 0
