"""The training step: encoded images, one-hot targets, binary cross-entropy."""

from typing import Any

import lightning
import torch
from bcos_core.run.seed import derive_seed, seed_everything
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.aggregation import MeanMetric
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
        self.train_metrics = torch.nn.ModuleDict({"loss": MeanMetric(), "accuracy": self._accuracy()})
        self.val_metrics = torch.nn.ModuleDict({"loss": MeanMetric(), **classification_metrics(model.num_classes)})

    def _accuracy(self) -> Metric:
        return MulticlassAccuracy(self.model.num_classes, average="micro")

    def on_train_epoch_start(self) -> None:
        self.trainer.train_dataloader.sampler.start_epoch(self.current_epoch)  # type: ignore[union-attr]
        # layers that draw (dropout) draw the same after a resume
        seed_everything(derive_seed(self.config.seed, "epoch", self.current_epoch))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "augment", self.current_epoch, index))
        logits = self.model(to_unit_range(augment(images, self.config.augment, generator)))
        loss = classification_loss(logits, labels)
        self._update(self.train_metrics, "train", loss, logits, labels)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        images, labels = batch
        logits = self.model(to_unit_range(images))
        self._update(self.val_metrics, "val", classification_loss(logits, labels), logits, labels)

    def _update(self, metrics: torch.nn.ModuleDict, stage: str, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        for name, metric in metrics.items():
            if name == "loss":
                metric.update(loss.detach(), weight=len(labels))
            else:
                metric.update(logits.detach(), labels)
            self.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> dict[str, Any]:
        options = self.config.optim
        optimiser = torch.optim.AdamW(self.parameters(), lr=options.lr, weight_decay=options.weight_decay)
        warmup = round(options.warmup_epochs * self._steps_per_epoch)
        total = self.config.epochs * self._steps_per_epoch
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, total - warmup))
        schedule = cosine
        if warmup:
            rise = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / (warmup + 1), total_iters=warmup)
            schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [rise, cosine], [warmup])
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
