"""Pictures: what is drawn is checked through the arrays given to the axes; how it looks is for eyes."""

import bcos_core
import numpy as np
import pytest
import torch
from bcos_core.explanation import compare
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
    heat = [(a, o) for a, o, _ in drawn if "vmin" in o and o["vmin"] < 0]
    expected = bcos_core.explain(model, images / 255).contribution_map[0]
    np.testing.assert_allclose(heat[0][0], expected, rtol=1e-4, atol=1e-7)
    assert all(o["vmin"] == -o["vmax"] for _, o in heat)  # white is zero


def test_a_blank_explanation_can_be_drawn(tmp_path):
    model = create_model("resnet20", num_classes=2, in_channels=1)
    found = bcos_core.explain(model, torch.rand(1, 1, 8, 8))
    blank = type(found)(**{**vars(found), "contributions": torch.zeros_like(found.contributions)})
    figures.draw_explanation(torch.rand(1, 8, 8), blank, ("a", "b"), tmp_path / "x.png", title="nothing")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_comparison_shows_both_classes_and_their_difference_on_one_scale(tmp_path, drawn):
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=3).eval()
    x = torch.rand(1, 3, 8, 8)
    found = compare(model, x, 2, 0)
    figures.draw_comparison(x[0], found, ("a", "b", "c"), tmp_path / "x.png", title="why")
    (image, _, _), *heat = drawn
    np.testing.assert_allclose(image, x[0].permute(1, 2, 0))
    maps = [bcos_core.explain(model, x, k).contribution_map[0].numpy() for k in (2, 0)]
    for (array, _, _), expected in zip(heat, [*maps, maps[0] - maps[1]], strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-6)
    assert len({o["vmax"] for _, o, _ in heat}) == 1
    assert f"logit {float(found.logits[0, 2] - found.logits[0, 0]):+.2f}" in heat[2][2].get_title()


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGBA"), (1, "RGB")])
def test_plain_pictures_are_the_colours_alone(tmp_path, channels, mode):
    model = create_model("resnet20", num_classes=2, in_channels=channels)
    found = bcos_core.explain(model, torch.rand(1, channels, 8, 8))
    figures.draw_plain(found, tmp_path / "x.png")
    rgba = found.to_rgba()[0].permute(1, 2, 0).numpy()
    expected = rgba * 255
    if channels == 1:  # seen on the blue ground
        ground = np.array([0xA9, 0xC9, 0xE8])
        expected = rgba[..., 3:] * rgba[..., :3] * 255 + (1 - rgba[..., 3:]) * ground
    with Image.open(tmp_path / "x.png") as picture:
        assert (picture.mode, picture.size) == (mode, (128, 128))
        np.testing.assert_allclose(np.asarray(picture)[8::16, 8::16], expected, atol=2)


def test_plain_pictures_of_a_plain_network_are_heat(tmp_path):
    found = bcos_core.explain(create_model("resnet20", num_classes=2, variant="baseline"), torch.rand(1, 3, 8, 8))
    figures.draw_plain(found, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        red, _, blue = np.asarray(picture)[8::16, 8::16].astype(int).transpose(2, 0, 1)
    heat = found.contribution_map[0].numpy()
    clear = np.abs(heat) > 0.1 * np.abs(heat).max()
    np.testing.assert_array_equal((red > blue)[clear], (heat > 0)[clear])


def test_predictions_of_other_classes_have_a_column(tmp_path, drawn):
    confusion = torch.tensor([[3, 0, 1], [0, 2, 0]])
    figures.draw_confusion(confusion, ("ant", "bee"), tmp_path / "c.png", title="t")
    axes = drawn[0][2]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["ant", "bee", "another"]
    assert [t.get_text() for t in axes.texts] == ["3", "1", "2"]


@pytest.mark.parametrize("k", [2, 12, 60])
def test_confusion_matrices_of_any_size(tmp_path, drawn, k):
    confusion = torch.eye(k, dtype=torch.long) * 5
    confusion[0, 1] = 5
    figures.draw_confusion(confusion, [f"class {i}" for i in range(k)], tmp_path / "c.png", title="t")
    (share, _, axes) = drawn[0]
    assert share[0, 0] == share[0, 1] == 0.5
    assert len(axes.texts) == (k + 1 if k <= 30 else 0)
