"""Pictures: what is drawn is checked through the arrays given to the axes; how it looks is for eyes."""

import bcos_core
import numpy as np
import pytest
import torch
from bcos_vision import create_model, figures
from matplotlib.axes import Axes
from PIL import Image


@pytest.fixture
def drawn(monkeypatch):
    """Every array that imshow was given."""
    arrays = []
    show = Axes.imshow

    def imshow(self, picture, **options):
        arrays.append((np.asarray(picture), options, self))
        return show(self, picture, **options)

    monkeypatch.setattr(Axes, "imshow", imshow)
    return arrays


@pytest.mark.parametrize(
    ("options", "panels"),
    [({"in_channels": 1}, 3), ({}, 3), ({"variant": "baseline"}, 2), ({"variant": "standard"}, 2)],
)
def test_right_and_wrong_predictions_are_both_shown(tmp_path, drawn, options, panels):
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=2, **options).eval()
    images = torch.randint(0, 255, (6, model.in_channels, 8, 8), dtype=torch.uint8)
    guess = bcos_core.explain(model, images / 255).target
    labels = guess.clone()
    labels[4:] = 1 - labels[4:]
    figures.draw_test_explanations(model, images, labels, ("no", "yes"), tmp_path / "e.png", title="a title")
    with Image.open(tmp_path / "e.png") as picture:
        assert picture.width > 800
    assert len(drawn) == 4 * panels + 2 * (2 * panels - 1)
    heat = [(a, o) for a, o, _ in drawn if o.get("cmap") == "RdBu_r"]
    expected = bcos_core.explain(model, images / 255).contribution_map[0]
    np.testing.assert_allclose(heat[0][0], expected, rtol=1e-4, atol=1e-7)
    assert all(o["vmin"] == -o["vmax"] for _, o in heat)  # white is zero


def test_a_blank_explanation_can_be_drawn(tmp_path):
    model = create_model("resnet20", num_classes=2, in_channels=1)
    found = bcos_core.explain(model, torch.rand(1, 1, 8, 8))
    blank = type(found)(**{**vars(found), "contributions": torch.zeros_like(found.contributions)})
    figures.draw_explanation(torch.rand(1, 8, 8), blank, ("a", "b"), tmp_path / "x.png", title="nothing")
    assert (tmp_path / "x.png").stat().st_size > 1000


@pytest.mark.parametrize("k", [2, 12, 60])
def test_confusion_matrices_of_any_size(tmp_path, drawn, k):
    confusion = torch.eye(k, dtype=torch.long) * 5
    confusion[0, 1] = 5
    figures.draw_confusion(confusion, [f"class {i}" for i in range(k)], tmp_path / "c.png", title="t")
    (share, _, axes) = drawn[0]
    assert share[0, 0] == share[0, 1] == 0.5
    assert len(axes.texts) == (k + 1 if k <= 30 else 0)
