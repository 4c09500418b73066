"""The training step: encoded images, one-hot targets, binary cross-entropy."""

import lightning
import torch
from bcos_core.run.seed import derive_seed, seed_everything
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from bcos_vision.config import TrainConfig
from bcos_vision.data import to_unit_range
from bcos_vision.evaluation import classification_loss, classification_metrics
from bcos_vision.models import ImageClassifier

from .augment import augment


class ClassifierTraining(lightning.LightningModule):
    """A classifier while it trains. Logs train/loss, train/accuracy, and val/* where there is a validation set."""

    def __init__(self, model: ImageClassifier, config: TrainConfig, steps_per_epoch: int) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self._steps_per_epoch = steps_per_epoch
        self.train_metrics = MetricCollection(
            {"accuracy": MulticlassAccuracy(model.num_classes, average="micro")}, prefix="train/"
        )
        self.val_metrics = classification_metrics(model.num_classes, prefix="val/")

    def on_train_epoch_start(self) -> None:
        self.trainer.train_dataloader.sampler.start_epoch(self.current_epoch)  # type: ignore[union-attr]
        # layers that draw (dropout) draw the same after a resume
        seed_everything(derive_seed(self.config.seed, "epoch", self.current_epoch))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "augment", self.current_epoch, index))
        logits = self.model(to_unit_range(augment(images, self.config.augment, generator)))
        loss = classification_loss(logits, labels)
        self._log("train", self.train_metrics, loss, logits, labels)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        images, labels = batch
        logits = self.model(to_unit_range(images))
        self._log("val", self.val_metrics, classification_loss(logits, labels), logits, labels)

    def _log(self, stage: str, metrics: MetricCollection, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        metrics.update(logits.detach(), labels)
        self.log(f"{stage}/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(labels))
        self.log_dict(metrics, on_step=False, on_epoch=True)  # type: ignore[arg-type] - each by its prefixed name

    def configure_optimizers(self) -> OptimizerLRScheduler:
        options = self.config.optim
        optimiser = torch.optim.AdamW(self.parameters(), lr=options.lr, weight_decay=options.weight_decay, fused=True)
        warmup = round(options.warmup_epochs * self._steps_per_epoch)
        total = self.config.epochs * self._steps_per_epoch
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, total - warmup))
        schedule = cosine
        if warmup:
            rise = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / (warmup + 1), total_iters=warmup)
            schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [rise, cosine], [warmup])
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
