"""What a training run leaves behind: the model, scored, explained and drawn."""

import pathlib
from dataclasses import dataclass

import numpy as np
import torch
from bcos_core.nn import Exponent, layer_exponents
from bcos_core.run.tracking import TrackedRun
from torch import Tensor

from bcos_vision.config import TrainConfig
from bcos_vision.data import ImageData
from bcos_vision.evaluation import Evaluation, evaluate, scored_loss
from bcos_vision.figures import draw_confusion, draw_exponents, draw_test_explanations
from bcos_vision.models import TrainedClassifier

from .exponent import PREFIX, as_tensor
from .ranks import device_of

MODEL, PREDICTIONS = "model.safetensors", "predictions.npz"


@dataclass(frozen=True)
class FitResult:
    """What a training run leaves behind."""

    run_id: str
    stage: str
    """What was scored: "test", or "val" where nothing was held out for a test."""
    evaluation: Evaluation
    classifier: TrainedClassifier
    folder: pathlib.Path
    """Holds model.safetensors, predictions.npz, config.json, the training states, and the pictures, if drawn."""
    seconds: float
    """Training itself, without data, evaluation and pictures."""
    images_per_second: float
    """Training images in that time."""
    bound_excess: float
    """By how much a learnt B is beyond the bound it was to keep; 0 where none is."""

    @property
    def exponents(self) -> dict[str, float]:
        """B of each layer (of channels, their mean), where it was learnt; else nothing."""
        found = layer_exponents(self.classifier.model.network)
        return {path: float(as_tensor(b).mean()) for path, b in found.items() if isinstance(b, Exponent)}


def conclude(
    run: TrackedRun, config: TrainConfig, data: ImageData, classifier: TrainedClassifier, *, pictures: bool = True
) -> Evaluation:
    """Score, explain and draw the trained model, and log all of it."""
    model = classifier.model
    classifier.save(run.folder / MODEL)
    scored, stage = (data.test, "test") if len(data.test) else (data.val, "val")
    evaluation = evaluate(
        model,
        scored,
        batch_size=config.batch_size,
        num_explained=config.num_explained,
        loss=scored_loss(config.loss),
        device=device_of(config),
    )
    run.log_metrics({f"{stage}/{name}": value for name, value in evaluation.metrics.items()}, config.epochs)
    # McNemar's test compares two runs by them
    np.savez_compressed(
        run.folder / PREDICTIONS, labels=evaluation.labels.numpy(), predictions=evaluation.predictions.numpy()
    )
    run.log_artifact(run.folder / PREDICTIONS)
    if pictures:
        _draw(run, config, data, classifier, evaluation, stage)
    model.cpu()
    run.log_model(run.folder / MODEL, config.model, {"variant": config.variant, "b": config.b, "data": data.name})
    return evaluation


def _draw(
    run: TrackedRun,
    config: TrainConfig,
    data: ImageData,
    classifier: TrainedClassifier,
    evaluation: Evaluation,
    stage: str,
) -> None:
    scored = data.test if stage == "test" else data.val
    shown = choose_examples(evaluation.predictions, scored.labels)
    images, labels = scored[shown.tolist()]
    accuracy = f"{config.arm}: {stage} accuracy {evaluation.metrics['accuracy']:.2%}"
    picture = run.folder / "explanations.png"
    draw_test_explanations(
        classifier.model, images, labels, data.classes, picture, title=accuracy, softmax=classifier.softmax
    )
    draw_confusion(evaluation.confusion, data.classes, run.folder / "confusion.png", title=accuracy)
    drawn = ["explanations.png", "confusion.png"]
    if config.exponent.learn is not None or config.exponent.start is not None:
        final = {path: as_tensor(b) for path, b in layer_exponents(classifier.model.network).items()}
        history = {name.removeprefix(PREFIX): values for name, values in run.metric_history(PREFIX).items()}
        draw_exponents(history, final, run.folder / "exponents.png", title=accuracy)
        drawn.append("exponents.png")
    for name in drawn:
        run.log_artifact(run.folder / name, "pictures")


def choose_examples(predictions: Tensor, labels: Tensor, *, num_right: int = 12, num_wrong: int = 4) -> Tensor:
    """Indices of images to show: right ones, a class at a time, then wrong ones likewise.

    Example:
        >>> choose_examples(torch.tensor([0, 0, 1, 0]), torch.tensor([0, 0, 1, 1]), num_right=2)
        tensor([0, 2, 3])
    """

    def by_turns(indices: list[int]) -> list[int]:
        """The first of each class, then the second of each, and so on."""
        turns: dict[int, int] = {}
        ranked = []
        for i in indices:
            label = int(labels[i])
            ranked.append((turns.setdefault(label, 0), label, i))
            turns[label] += 1
        return [i for _, _, i in sorted(ranked)]

    right = by_turns((predictions == labels).nonzero()[:, 0].tolist())
    wrong = by_turns((predictions != labels).nonzero()[:, 0].tolist())
    return torch.tensor(right[:num_right] + wrong[:num_wrong], dtype=torch.long)
