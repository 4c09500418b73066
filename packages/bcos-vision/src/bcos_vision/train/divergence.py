"""A training whose numbers are no longer numbers ends, before its state is kept."""

import math

import lightning
import torch
import torch.distributed as dist
from bcos_core.run.error import InputError
from torch import Tensor

_EVERY = 50  # batches between looks at a device that would have to be waited for
_NONE = 2**31 - 1


class Diverged(InputError):
    """Loss or weights are NaN or infinite."""


class DivergenceWatch(lightning.Callback):
    """Ends a training at the first loss that is NaN or infinite, or the first epoch that leaves such weights.

    A lone process on a CPU looks at each loss before its gradient is taken; others note the first bad batch on the
    device, and look at the note now and then, and at an epoch's end before anything is validated or kept.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._every = 1 if trainer.world_size == 1 and pl_module.device.type == "cpu" else _EVERY
        self._first = torch.full((), _NONE, device=pl_module.device)

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        index = trainer.fit_loop.batch_idx
        self._first = self._first.minimum(torch.where(loss.detach().isfinite(), _NONE, index))
        if (index + 1) % self._every == 0:
            self._look(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if trainer.is_last_batch:
            self._look(trainer, pl_module)
            if names := _not_finite(pl_module):
                raise Diverged(f"the weights are not finite after epoch {trainer.current_epoch + 1} ({names})")

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not math.isfinite(float(trainer.callback_metrics.get("val/loss", 0.0))):
            raise Diverged(f"the validation loss is not finite after epoch {trainer.current_epoch + 1}")

    def _look(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.world_size > 1:
            dist.all_reduce(self._first, dist.ReduceOp.MIN)
        if (first := int(self._first)) != _NONE:
            names = _not_finite(pl_module)
            raise Diverged(
                f"the loss is not finite in epoch {trainer.current_epoch + 1}, batch {first + 1}"
                + (f" (nor are {names})" if names else "")
            )


def _not_finite(module: torch.nn.Module) -> str:
    """Names of weights and statistics that are not finite, the first few."""
    state = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all() for value in state.values()]).tolist()
    names = [name.removeprefix("model.") for name, good in zip(state, finite, strict=True) if not good]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
