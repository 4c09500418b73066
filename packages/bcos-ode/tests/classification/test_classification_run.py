"""One run: what it keeps, that it repeats, that an interrupted one ends as it would have."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from bcos_core.run.error import InputError
from bcos_core.run.tracking import TrackedRun, find_run
from bcos_ode.classification import ClassificationConfig, OdeClassifier, depth_evidence, fit, load_images, resume
from bcos_ode.classification.images import LabelledImages, to_unit_range
from bcos_ode.classification.recipes import cifar10, digits
from bcos_ode.classification.training import classification_loss, epoch_batches, shifted
from bcos_ode.figures.classification import draw_depth, draw_explanations

SMALL = ClassificationConfig(channels=8, steps=1, epochs=3, batch_size=128, num_explained=20)


def test_keeps_what_it_says(project, capsys):
    result = fit(SMALL)
    assert {p.name for p in result.folder.iterdir()} >= {
        *("model.safetensors", "predictions.npz", "config.json", "last.pt", "explanations.png", "depth.png")
    }
    data = load_images("digits", SMALL.split)
    model = OdeClassifier.load(result.folder / "model.safetensors")
    with torch.no_grad():
        logits = model(to_unit_range(data.test.images))
    kept = np.load(result.folder / "predictions.npz")
    np.testing.assert_array_equal(kept["predictions"], logits.argmax(1))
    np.testing.assert_array_equal(kept["labels"], data.test.labels)
    assert result.metrics["accuracy"] == pytest.approx((kept["predictions"] == kept["labels"]).mean())
    assert result.metrics["completeness_error"] <= 1e-5
    assert result.metrics["num_evaluations"] == 2
    record = find_run(result.run_id)
    assert record.status == "FINISHED"
    assert record.tags["arm"].startswith("digits bcos ode B=2 midpoint x1 8 channels")
    assert record.tags["num_train"] == str(len(data.train))
    assert record.metrics["test/accuracy"] == result.metrics["accuracy"]
    assert {"train/loss", "val/accuracy", "train/seconds"} <= record.metrics.keys()


def test_an_interrupted_run_ends_as_it_would_have(project, monkeypatch):
    config = dataclasses.replace(SMALL, variant="vanilla", block="residual", method="midpoint", steps=4)
    whole = fit(config, pictures=False)
    log = TrackedRun.log_metrics

    def interrupted(run, metrics, epoch):
        if epoch == 2 and "train/loss" in metrics:
            raise KeyboardInterrupt
        log(run, metrics, epoch)

    monkeypatch.setattr(TrackedRun, "log_metrics", interrupted)
    with pytest.raises(KeyboardInterrupt, match="go on with: bcos-ode train --resume ") as stopped:
        fit(config, pictures=False)
    monkeypatch.undo()
    monkeypatch.chdir(project)
    run_id = str(stopped.value).rsplit(" ", 1)[1]
    again = resume(run_id, pictures=False)
    assert again.run_id == run_id
    assert again.metrics == whole.metrics
    for one, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match="is finished"):
        resume(run_id)


def test_other_data_is_not_gone_on_with(project, monkeypatch):
    monkeypatch.setattr("bcos_ode.classification.run.train", lambda *_, **__: (_ for _ in ()).throw(InputError("x")))
    with pytest.raises(InputError, match="x"):
        fit(SMALL)
    (folder,) = (project / "runs").iterdir()
    values = json.loads((folder / "config.json").read_text())
    values["data"] = f"folder:{project / 'other'}"
    for k, name in enumerate(("a", "b")):
        (project / "other" / name).mkdir(parents=True)
        for i in range(10):
            from PIL import Image

            Image.new("RGB", (8, 8), (i, k, 0)).save(project / "other" / name / f"{i}.png")
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="has changed since it began"):
        resume(folder.name)


def test_order_and_changes_are_a_function_of_seed_and_epoch():
    images = LabelledImages(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 1, 8, 8), torch.arange(10))
    config = dataclasses.replace(SMALL, batch_size=4, flip=True)

    def epoch(seed, number):
        batches = list(epoch_batches(images, dataclasses.replace(config, seed=seed), number))
        return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    x, y = epoch(0, 1)
    assert sorted(y.tolist()) == list(range(10))
    assert all(torch.equal(a, b) for a, b in zip(epoch(0, 1), (x, y), strict=True))
    assert x.flatten(1).amax(1).tolist() == y.tolist()  # images stay with their labels
    for other in (epoch(0, 2), epoch(1, 1)):
        assert not torch.equal(other[1], y)


def test_shifts_are_rolls_with_zeros():
    images = torch.rand(200, 2, 5, 6)
    found = shifted(images, 1, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, [1, 1, 1, 1])
    seen = set()
    for before, after in zip(padded, found, strict=True):
        places = [(r, c) for r in range(3) for c in range(3) if torch.equal(before[:, r : r + 5, c : c + 6], after)]
        seen.update(places)
        assert len(places) == 1
    assert len(seen) == 9


def test_loss_is_binary_cross_entropy_written_out():
    logits, labels = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 0])
    p = 1 / (1 + np.exp(-logits.numpy()))
    truth = np.eye(3)[labels]
    expected = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean()
    assert float(classification_loss(logits, labels)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"halvings": 4}, "--halvings: 4 are too many for images of 8x8 pixels"),
        ({"shift": 8}, "--shift: expected less than the image's 8 pixels, got 8"),
    ],
)
def test_what_does_not_suit_the_data_is_refused_before_a_run_is_opened(project, options, message):
    with pytest.raises(InputError, match=message):
        fit(dataclasses.replace(SMALL, **options))
    assert not (project / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "--steps: expected at least 1, got 0"),
        ({"channels": 12}, "--channels: expected a multiple of 8, got 12"),
        ({"b": 0.5}, "--b: expected a finite number >= 1"),
        ({"b": 1.5, "variant": "vanilla"}, '--b: belongs to variant "bcos", not "vanilla"'),
        ({"block": "residual", "steps": 2}, '--method, --steps: they belong to block "ode", not "residual"'),
        ({"lr": float("nan")}, "--lr: expected a positive number"),
        ({"weight_decay": -1.0}, "--weight_decay: expected at least 0"),
    ],
)
def test_options_that_no_run_can_have(options, message):
    with pytest.raises(ValueError, match=message):
        ClassificationConfig(**options)


def test_presets_and_names():
    assert digits() == ClassificationConfig()
    config = dataclasses.replace(cifar10(), data="folder:/some/where/cifar/")
    assert config.arm == "folder:cifar bcos ode B=2 midpoint x4 64 channels"
    assert dataclasses.replace(digits(), variant="vanilla", block="none").arm == "digits vanilla none"


# ---- pictures ----


def test_pictures_show_each_class_and_the_wrong_ones():
    torch.manual_seed(0)
    data = load_images("digits", SMALL.split)
    model = OdeClassifier(SMALL, classes=data.classes, in_channels=1).eval()
    texts = [a.get_title() for a in draw_explanations(model, data.test, title="t").axes]
    assert sum(t.startswith("taken for") for t in texts) == 4  # untrained
    figure = draw_depth(model, data.test, title="t")
    for k, axes in enumerate(figure.axes):
        assert axes.get_title().startswith(f"images of {k} (")
        own = depth_evidence(model, to_unit_range(data.test.images[data.test.labels == k]), k)
        median = np.median(own.evidence.numpy(), axis=0)
        np.testing.assert_allclose(axes.lines[1].get_ydata(), median, atol=1e-5)
