"""The training step: changed images, a loss, its share in a step; and what an epoch is measured by."""

from collections.abc import Callable
from contextlib import ExitStack

import lightning
import torch
import torch.nn.functional as F
from bcos_core import explanation_mode
from bcos_core.run.seed import derive_seed, seed_everything
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric

from bcos_vision.config import TrainConfig
from bcos_vision.data import to_unit_range
from bcos_vision.evaluation import classification_loss, classification_metrics, scored_loss
from bcos_vision.models import ImageClassifier

from .augment import augment, mix
from .clipping import clip_to_weights_
from .exponent import ExponentTraining
from .optimiser import learning_rate_share, make_optimiser


class ClassifierTraining(lightning.LightningModule):
    """A classifier while it trains. Logs train/loss, train/accuracy, and val/* where there is a validation set.

    Args:
        model: The classifier.
        config: The run.
        num_images: Training images in an epoch, over all processes.
        num_batches: Batches in an epoch.
    """

    def __init__(self, model: ImageClassifier, config: TrainConfig, *, num_images: int, num_batches: int) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self._num_images = num_images
        self._num_batches = num_batches
        self._detached = ExitStack()
        self._loss_and_logits: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = self._forward
        self.exponents = ExponentTraining(model, config.exponent, config.epochs)
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.val_metrics = classification_metrics(model.num_classes, prefix="val/")

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps; what is left over at an epoch's end makes one of its own."""
        return -(-self._num_batches // self.config.optim.accumulate)

    @property
    def warmup_steps(self) -> int:
        return round(self.config.optim.warmup_epochs * self.steps_per_epoch)

    def on_fit_start(self) -> None:
        if self.config.detach:  # what an explanation holds constant; values, and so validation, stay as they are
            self._detached.enter_context(explanation_mode(self.model))
        if self.config.compile:  # a function, not a module: the names in a checkpoint stay what they are
            self._loss_and_logits = torch.compile(self._forward, fullgraph=self.trainer.world_size == 1)

    def on_fit_end(self) -> None:
        self._detached.close()

    def on_exception(self, exception: BaseException) -> None:
        self._detached.close()

    def on_train_epoch_start(self) -> None:
        self.trainer.train_dataloader.sampler.start_epoch(self.current_epoch)  # type: ignore[union-attr]
        # layers that draw (dropout) draw the same after a resume, and each process something else
        seed_everything(derive_seed(self.config.seed, "epoch", self.current_epoch, *self._rank))
        # loss, right answers, images; metric objects would take a percent or two of a small network's step
        self._sums = torch.zeros(3, dtype=torch.float64, device=self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        self.exponents.rise(self.trainer.global_step / self.steps_per_epoch)
        images, targets = batch
        options = self.config.augment
        images = to_unit_range(augment(images, options, self._generator("augment", index, *self._rank)))
        if options.mixup or options.cutmix:  # at one strength in all processes
            targets = F.one_hot(targets, self.model.num_classes).to(images.dtype)
            images, targets = mix(images, targets, options, self._generator("mix", index))
        loss, logits = self._loss_and_logits(images, targets)
        right = logits.detach().argmax(1) == (targets.argmax(1) if targets.dim() == 2 else targets)
        self._sums[0].add_(loss.detach(), alpha=len(images))
        self._sums[1].add_(right.sum())
        self._sums[2].add_(len(images))
        return (loss + self.exponents.term()) * self._share(index, len(images))

    def _generator(self, use: str, *place: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.config.seed, use, self.current_epoch, *place))

    @property
    def _rank(self) -> list[int]:
        """What tells the draws of a process from those of the first, which are those of one alone."""
        return [self.global_rank] if self.global_rank else []

    def _forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(images).float()
        return classification_loss(logits, targets, self.config.loss), logits

    def _share(self, index: int, num_images: int) -> float:
        """What a batch's mean loss counts for, so that each image of a step counts alike.

        Lightning takes the mean over the batches of a full step and over processes: 1 where all are of one size.
        """
        accumulate, size = self.config.optim.accumulate, self.config.batch_size
        first = index // accumulate * accumulate
        ends = first + accumulate >= self._num_batches
        of_step = self._num_images - first * size if ends else accumulate * size
        return num_images * self.trainer.world_size * accumulate / of_step

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        if self.trainer.is_last_batch or (batch_idx + 1) % self.config.optim.accumulate == 0:
            self.exponents.ascend()
        if self.trainer.is_last_batch:  # at the epoch's end callbacks, which read them, come before this module
            loss, right, images = self.trainer.strategy.reduce(self._sums, reduce_op="sum").tolist()
            found = {"train/loss": loss / images, "train/accuracy": right / images}
            self.log_dict(found, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
            if found := self.exponents.metrics():  # the same in all processes
                self.log_dict(found, on_step=False, on_epoch=True, batch_size=1)

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        images, labels = batch
        logits = self.model(to_unit_range(images)).float()
        self.val_loss.update(classification_loss(logits, labels, scored_loss(self.config.loss)), len(images))
        self.val_metrics.update(logits, labels)

    def on_train_epoch_end(self) -> None:
        self.exponents.rise(self.current_epoch + 1)

    def on_validation_epoch_end(self) -> None:
        found = {"val/loss": self.val_loss.compute(), **self.val_metrics.compute()}
        self.log_dict(found, batch_size=1, sync_dist=True)
        self.val_loss.reset()
        self.val_metrics.reset()

    def configure_gradient_clipping(self, *_arguments: object, **_options: object) -> None:
        if self.config.optim.agc:
            exponents = set(self.exponents.learnt)
            clip_to_weights_((p for p in self.parameters() if p not in exponents), self.config.optim.agc)
        if self.config.optim.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.config.optim.clip)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimiser = make_optimiser(
            self.parameters(),
            self.config.optim,
            fused=self.config.precision != "float16",
            exponents=self.exponents.learnt,
            exponent_lr=self.config.exponent.lr,
        )
        total = self.config.epochs * self.steps_per_epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate_share(step, self.warmup_steps, total)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
