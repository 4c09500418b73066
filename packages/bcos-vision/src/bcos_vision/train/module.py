"""The training step: encoded images, one-hot targets, binary cross-entropy."""

from typing import Any

import lightning
import torch
import torch.nn.functional as F
from bcos_core.run.seed import derive_seed, seed_everything
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassPrecision, MulticlassRecall

from bcos_vision.config import TrainConfig
from bcos_vision.models import ImageClassifier

from .augment import augment


def classification_loss(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Binary cross-entropy of each logit against the one-hot target, averaged over all.

    A softmax would only ask that the right logit be larger than the others; the sigmoid asks that it be large, which
    is what a contribution should explain (Böhle et al., CVPR 2022, sec. 3.2.3).
    """
    return F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, logits.shape[1]).to(logits.dtype))


def to_unit_range(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bytes to [0, 1], channels-last."""
    return images.to(dtype=dtype, memory_format=torch.channels_last).div_(255)


def classification_metrics(num_classes: int) -> dict[str, Metric]:
    """Accuracy, and precision and recall averaged over classes (a class never predicted counts as 0)."""
    return {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "precision": MulticlassPrecision(num_classes, average="macro"),
        "recall": MulticlassRecall(num_classes, average="macro"),
    }


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
