"""Scores of a trained classifier on images it has not seen, and how exactly its explanations add up."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from bcos_core import explain
from jaxtyping import Float, Int
from PIL.Image import Image
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
from .data.images import Batch, Indices
from .models import ImageClassifier
from .probability import probabilities
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
class MatchedImages:
    """Images of other data, with a model's numbers for their classes."""

    images: Images
    class_index: Tensor
    """The model's number of each class of the data."""

    @property
    def labels(self) -> Tensor:
        return self.class_index[self.images.labels]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Indices) -> Batch:
        images, labels = self.images[indices]
        return images, self.class_index[labels]

    def subset(self, indices: Indices) -> "MatchedImages":
        return replace(self, images=self.images.subset(indices))

    def picture(self, index: int, *, whole: bool) -> Image:
        return self.images.picture(index, whole=whole)


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class that has images."""

    index: int
    """The model's number of the class."""
    images: int
    precision: float
    """Share of its images among all that were taken for it; 0 where none was."""
    recall: float
    """Share of its images that were taken for it."""
    f1: float
    """Harmonic mean of the two."""
    confidence: float
    """Mean probability that its images' predicted classes were given."""


@dataclass(frozen=True)
class Evaluation:
    """Scores on a set of images."""

    metrics: dict[str, float]
    """accuracy, top5_accuracy (of more than five classes), precision and recall (averaged over classes that have
    images), loss, completeness_error (the largest; NaN if one is)."""
    per_class: tuple[ClassScores, ...]
    """Of each class that has images, in the model's order."""
    confusion: Tensor
    """Counts, shape (K, K): row is the true class, column the predicted one."""
    predictions: Tensor
    """Predicted class of each image, in the order of the set."""
    labels: Tensor
    """True class of each image, likewise."""
    num_explained: int
    """Images whose explanation was checked for completeness."""


def evaluate(
    model: ImageClassifier,
    images: Images,
    *,
    batch_size: int = 64,
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
        loss: Which loss is among the scores; it says, too, how a logit becomes a confidence.
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
    k = model.num_classes
    confusion = MulticlassConfusionMatrix(k).to(device)
    top5 = MulticlassAccuracy(k, top_k=5, average="micro").to(device) if k > 5 else None
    total_loss = 0.0
    predictions, confidences = [], []
    for batch, labels in track(make_loader(images, batch_size), "scoring", -(-len(images) // batch_size)):
        x, y = to_unit_range(batch.to(device), dtype), labels.to(device)
        with torch.no_grad():
            logits = model(x)
        confusion.update(logits, y)
        if top5 is not None:
            top5.update(logits, y)
        total_loss += float(classification_loss(logits, y, loss)) * len(y)
        predictions.append(logits.argmax(1).cpu())
        confidences.append(probabilities(logits, softmax=loss == "cross_entropy").amax(1).cpu())
    # folders are sorted by class: the first images would be of one class alone
    chosen = torch.linspace(0, len(images) - 1, min(num_explained, len(images))).round().long().tolist()
    errors = [torch.zeros(0, dtype=dtype)]
    for batch, _ in track(make_loader(images.subset(chosen), batch_size), "explaining", -(-len(chosen) // batch_size)):
        errors.append(explain(model, to_unit_range(batch.to(device), dtype)).completeness_error.cpu())
    error = torch.cat(errors)
    counts = confusion.compute().cpu()
    per_class = _per_class(counts, torch.cat(confidences), images.labels)
    scores = {"accuracy": counts.diagonal().sum().item() / len(images)}
    if top5 is not None:
        scores["top5_accuracy"] = float(top5.compute())
    scores["precision"] = sum(c.precision for c in per_class) / len(per_class)
    scores["recall"] = sum(c.recall for c in per_class) / len(per_class)
    scores["loss"] = total_loss / len(images)
    scores["completeness_error"] = float(error.max()) if len(error) else 0.0
    return Evaluation(scores, per_class, counts, torch.cat(predictions), images.labels, len(error))


def _per_class(confusion: Tensor, confidences: Tensor, labels: Tensor) -> tuple[ClassScores, ...]:
    right, own, taken = (counts.double() for counts in (confusion.diagonal(), confusion.sum(1), confusion.sum(0)))
    precision, recall, f1 = right / taken.clamp(min=1), right / own.clamp(min=1), 2 * right / (own + taken).clamp(min=1)
    confidence = torch.zeros(len(own)).double().index_add_(0, labels, confidences.double()) / own.clamp(min=1)
    columns = [column.tolist() for column in (precision, recall, f1, confidence)]
    return tuple(ClassScores(i, int(own[i]), *(column[i] for column in columns)) for i in own.nonzero()[:, 0].tolist())
