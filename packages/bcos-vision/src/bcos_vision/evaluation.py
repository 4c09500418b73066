"""Scores of a trained classifier on images it has not seen, and how exactly its explanations add up."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from bcos_core import explain
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassPrecision,
    MulticlassRecall,
)

from .config import Loss
from .data import Images, make_loader, to_unit_range
from .models import ImageClassifier
from .progress import track


def classification_loss(
    logits: Float[Tensor, "n k"], targets: Int[Tensor, " n"] | Float[Tensor, "n k"], kind: Loss = "bce"
) -> Float[Tensor, ""]:
    """How far logits are from their targets.

    - ``bce``: binary cross-entropy of each logit, averaged over all N K of them. A softmax would only ask that the
      right logit be larger than the others; the sigmoid asks that it be large, which is what a contribution should
      explain (Böhle et al., CVPR 2022, sec. 3.2.3).
    - ``bce_uniform``: the same, with targets of at least 1/K, as the public B-cos v2 code trains ImageNet.
    - ``cross_entropy``: of the softmax, averaged over images.

    Args:
        logits: Shape (N, K); computed in float32 at least.
        targets: Classes, shape (N,), or the share of each class, shape (N, K), in [0, 1].
        kind: Which of them.

    Example:
        >>> float(classification_loss(torch.zeros(1, 2), torch.tensor([0]), "cross_entropy"))  # log 2
        0.6931471824645996
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if targets.dim() == 1:
        targets = F.one_hot(targets, logits.shape[1])
    targets = targets.to(logits.dtype)
    if kind == "cross_entropy":
        return F.cross_entropy(logits, targets)
    if kind == "bce_uniform":
        targets = targets.clamp(min=1 / logits.shape[1])
    return F.binary_cross_entropy_with_logits(logits, targets)


def scored_loss(kind: Loss) -> Loss:
    """The loss that held-out images are scored by: the plain one, whatever training adds to it."""
    return "bce" if kind == "bce_uniform" else kind


def classification_metrics(num_classes: int, *, prefix: str = "") -> MetricCollection:
    """Accuracy, and precision and recall averaged over classes (a class never predicted counts as 0)."""
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "precision": MulticlassPrecision(num_classes, average="macro"),
            "recall": MulticlassRecall(num_classes, average="macro"),
        },
        prefix=prefix,
        compute_groups=False,  # each keeps its own state: Lightning resets them one by one
    )


@dataclass(frozen=True)
class Evaluation:
    """Scores on a set of images."""

    metrics: dict[str, float]
    """accuracy, precision and recall (averaged over classes), loss, completeness_error (the largest; NaN if one is)."""
    confusion: Tensor
    """Counts, shape (K, K): row is the true class, column the predicted one."""
    predictions: Tensor
    """Predicted class of each image, in the order of the set."""
    num_explained: int
    """Images whose explanation was checked for completeness."""


def evaluate(
    model: ImageClassifier,
    images: Images,
    *,
    batch_size: int = 256,
    num_explained: int = 500,
    loss: Loss = "bce",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Score a classifier on every image of a set, and explain ``num_explained`` of them, evenly spread.

    Args:
        model: The classifier; moved to ``device`` and ``dtype``, and left in evaluation mode.
        images: The set; at least one image.
        batch_size: Images at a time.
        num_explained: How many explanations are checked.
        loss: Which loss is among the scores.
        dtype: float32, or float64 to see that what error remains is rounding.
        device: Where to compute.

    Example:
        >>> import bcos_vision
        >>> from bcos_vision.data import load_data
        >>> model = bcos_vision.create_model("resnet20", num_classes=10, in_channels=1)
        >>> scores = evaluate(model, load_data("digits").test.subset(range(8)))
        >>> scores.metrics["completeness_error"] < 1e-5
        True
    """
    model = model.to(device=device, dtype=dtype).eval()
    metrics = classification_metrics(model.num_classes).to(device)
    confusion = MulticlassConfusionMatrix(model.num_classes).to(device)
    total_loss = 0.0
    predictions = []
    for batch, labels in track(make_loader(images, batch_size), "scoring", -(-len(images) // batch_size)):
        x, y = to_unit_range(batch.to(device), dtype), labels.to(device)
        with torch.no_grad():
            logits = model(x)
        metrics.update(logits, y)
        confusion.update(logits, y)
        total_loss += float(classification_loss(logits, y, loss)) * len(y)
        predictions.append(logits.argmax(1).cpu())
    # folders are sorted by class: the first images would be of one class alone
    chosen = torch.linspace(0, len(images) - 1, min(num_explained, len(images))).round().long().tolist()
    errors = [torch.zeros(0, dtype=dtype)]
    for batch, _ in track(make_loader(images.subset(chosen), batch_size), "explaining", -(-len(chosen) // batch_size)):
        errors.append(explain(model, to_unit_range(batch.to(device), dtype)).completeness_error.cpu())
    error = torch.cat(errors)
    scores = {name: float(value) for name, value in metrics.compute().items()}
    return Evaluation(
        metrics={
            **scores,
            "loss": total_loss / len(images),
            "completeness_error": float(error.max()) if len(error) else 0.0,
        },
        confusion=confusion.compute().cpu(),
        predictions=torch.cat(predictions),
        num_explained=len(error),
    )
