import bcos_core
import numpy as np
import pytest
import torch
from bcos_vision import create_model
from bcos_vision.data import load_data
from bcos_vision.evaluation import MatchedImages, classification_loss, evaluate
from sklearn.metrics import (
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
    top_k_accuracy_score,
)


def test_scores_are_scikit_learns():
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=10, in_channels=1, variant="standard")
    test = load_data("digits").test.subset(np.arange(100))
    scores = evaluate(model, test, batch_size=33, num_explained=40)
    with torch.no_grad():
        logits = model(test.images.float() / 255)
    guess, truth = logits.argmax(1).numpy(), test.labels.numpy()
    assert scores.metrics["accuracy"] == pytest.approx((guess == truth).mean(), rel=1e-6)
    options = {"average": "macro", "zero_division": 0, "labels": range(10)}
    assert scores.metrics["precision"] == pytest.approx(precision_score(truth, guess, **options), rel=1e-6)
    assert scores.metrics["recall"] == pytest.approx(recall_score(truth, guess, **options), rel=1e-6)
    np.testing.assert_array_equal(scores.confusion.numpy(), confusion_matrix(truth, guess, labels=range(10)))
    np.testing.assert_array_equal(scores.predictions.numpy(), guess)
    assert scores.metrics["top5_accuracy"] == pytest.approx(top_k_accuracy_score(truth, logits, k=5, labels=range(10)))
    per_class = precision_recall_fscore_support(truth, guess, labels=range(10), zero_division=0)
    own = [(c.precision, c.recall, c.f1, c.images) for c in scores.per_class]
    np.testing.assert_allclose(np.array(own), np.array(per_class).T, rtol=1e-6)
    certain = logits.sigmoid().amax(1).numpy()
    for c in scores.per_class:
        assert c.confidence == pytest.approx(certain[truth == c.index].mean(), rel=1e-5)
    assert scores.num_explained == 40
    assert 0 < scores.metrics["completeness_error"] <= 1e-5


def test_loss_is_the_mean_binary_cross_entropy():
    torch.manual_seed(0)
    logits, labels = torch.randn(20, 4, dtype=torch.float64), torch.randint(0, 4, (20,))
    expected = np.mean([log_loss(labels == k, logits[:, k].sigmoid(), labels=[False, True]) for k in range(4)])
    assert float(classification_loss(logits, labels)) == pytest.approx(expected, rel=1e-12)


def hand_written(logits, targets, kind):
    """Each loss from its definition, in float64."""
    n, k = logits.shape
    targets = np.eye(k)[targets] if targets.ndim == 1 else targets
    if kind == "cross_entropy":
        return -(targets * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum() / n
    targets = np.maximum(targets, 1 / k) if kind == "bce_uniform" else targets
    p = 1 / (1 + np.exp(-logits))
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum() / (n * k)


@pytest.mark.parametrize("kind", ["bce", "bce_uniform", "cross_entropy"])
def test_losses_of_classes_and_of_shares_of_classes(kind):
    torch.manual_seed(0)
    logits, labels = torch.randn(20, 5, dtype=torch.float64), torch.randint(0, 5, (20,))
    shares = torch.rand(20, 5, dtype=torch.float64).softmax(1)
    for targets in (labels, shares):
        expected = hand_written(logits.numpy(), targets.numpy(), kind)
        assert float(classification_loss(logits, targets, kind)) == pytest.approx(expected, rel=1e-12)
        half = classification_loss(logits.bfloat16(), targets, kind)
        assert half.dtype == torch.float32


def test_other_data_is_numbered_as_the_model_expects():
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=12, in_channels=1)
    images = load_data("digits").test.subset(np.arange(30))
    index = torch.arange(10) + 2
    matched = MatchedImages(images, index)
    batch, labels = matched[[3, 5]]
    torch.testing.assert_close(batch, images.images[[3, 5]])
    assert labels.tolist() == (images.labels[[3, 5]] + 2).tolist()
    scores = evaluate(model, matched, num_explained=5, loss="cross_entropy")
    with torch.no_grad():
        logits = model(images.images.float() / 255)
    guess, truth = logits.argmax(1).numpy(), images.labels.numpy() + 2
    present = sorted(set(truth.tolist()))
    assert [c.index for c in scores.per_class] == present  # the model's other classes have no images
    options = {"average": "macro", "zero_division": 0, "labels": present}
    assert scores.metrics["recall"] == pytest.approx(recall_score(truth, guess, **options))
    assert scores.metrics["precision"] == pytest.approx(precision_score(truth, guess, **options))
    first = scores.per_class[0]
    expected = logits.softmax(1).amax(1)[truth == first.index].mean().item()
    assert first.confidence == pytest.approx(expected, rel=1e-5)


def test_float64_shows_that_the_error_is_rounding():
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=10, in_channels=1)
    test = load_data("digits").test.subset(np.arange(20))
    assert evaluate(model, test, dtype=torch.float64).metrics["completeness_error"] <= 1e-12


def test_images_of_every_class_are_explained(monkeypatch):
    images = load_data("digits").test
    order = torch.argsort(images.labels, stable=True)  # as a folder has them
    seen = []

    def counting(model, x, *args):
        seen.append(x)
        return bcos_core.explain(model, x, *args)

    monkeypatch.setattr("bcos_vision.evaluation.explain", counting)
    scores = evaluate(create_model("resnet20", num_classes=10, in_channels=1), images.subset(order), num_explained=50)
    assert scores.num_explained == 50
    known = {i.numpy().tobytes(): int(y) for i, y in zip(images.images.float() / 255, images.labels, strict=True)}
    assert {known[x.contiguous().numpy().tobytes()] for x in torch.cat(seen)} == set(range(10))


def test_a_diverged_network_is_not_called_complete():
    model = create_model("resnet20", num_classes=10, in_channels=1)
    torch.nn.init.constant_(model.network.conv1.weight, float("nan"))
    scores = evaluate(model, load_data("digits").test.subset(np.arange(4)))
    assert np.isnan(scores.metrics["completeness_error"])
