"""Attributors and networks whose score is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from bcos_core import explain
from bcos_core.run.error import InputError
from bcos_eval.attribution import create_attributor
from bcos_eval.attribution.attributor import Attribution
from bcos_eval.localisation import (
    Contest,
    DisconnectedModel,
    Rules,
    cell_shares,
    difference,
    draw_grids,
    play_boxes,
    play_grids,
    summarise,
    tile,
    untile,
)
from bcos_eval.localisation.summary import bootstrap_interval
from bcos_vision import create_model
from bcos_vision.data import ArrayImages
from bcos_vision.models import TrainedClassifier
from torch import nn


class Fake:
    """A method that is a function of images and targets."""

    def __init__(self, name, maps):
        self.name, self._maps = name, maps

    def attribute(self, images, target):
        return Attribution(self._maps(images, target), target, None)


class Contributions:
    name = "contributions"

    def __init__(self, model):
        self._model = model

    def attribute(self, images, target):
        return Attribution(explain(self._model, images, target).contribution_map, target, None)


def _images(per_class=4, num_classes=10, size=4):
    """An image of class k is of brightness k / 10 all over, so that its place in a mosaic can be seen."""
    labels = torch.arange(num_classes).repeat(per_class)
    return ArrayImages((labels * 255 // 10).byte().view(-1, 1, 1, 1).expand(-1, 1, size, size), labels)


def _grids(images, side, number=3):
    labels = images.labels.numpy()
    return draw_grids(labels, np.ones(len(labels), bool), side=side, number=number)


ORACLE = Fake("oracle", lambda x, t: ((x[:, 0] * 255).round() == (t * 255 // 10).view(-1, 1, 1)).float())
UNIFORM = Fake("uniform", lambda x, t: torch.ones_like(x[:, 0]))
EMPTY = Fake("empty", lambda x, t: -torch.ones_like(x[:, 0]))


@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("batch_size", [1, 9, 50])
def test_oracle_uniform_and_empty(side, batch_size):
    images = _images()
    for method, score in ((ORACLE, 1), (UNIFORM, 1 / side**2), (EMPTY, 0)):
        found = play_grids(method, images, _grids(images, side), batch_size=batch_size)
        assert found["score"].to_numpy() == pytest.approx(score)
        assert (found["empty"] == (score == 0)).all()
        assert found["chance"].to_numpy() == pytest.approx(1 / side**2)
        assert len(found) == 3 * side**2


def test_residuals_stand_beside_scores():
    class Sums(Fake):
        def attribute(self, images, target):
            found = super().attribute(images, target)
            return Attribution(found.map, target, target.float() / 10)

    images = _images()
    found = play_grids(Sums("sums", lambda x, t: torch.ones_like(x[:, 0])), images, _grids(images, 2), batch_size=3)
    assert found["residual"].to_numpy() == pytest.approx(found["class"].to_numpy() / 10)
    assert play_grids(UNIFORM, images, _grids(images, 2))["residual"].isna().all()
    summary = summarise(found.assign(game="grid", model="net", method="sums"))
    assert summary["residual"].tolist() == pytest.approx([found["class"].max() / 10])


def test_the_scored_class_is_the_cells():
    images = _images()
    grids = _grids(images, 2)
    found = play_grids(UNIFORM, images, grids, batch_size=4)
    assert (found["class"].to_numpy().reshape(3, 4) == grids.classes).all()
    assert found["grid"].tolist() == np.repeat(range(3), 4).tolist()
    assert found["cell"].tolist() == [0, 1, 2, 3] * 3


class ReadsOneCell(nn.Module):
    """Logits of the upper left 4x4 pixels alone."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 10, bias=False)
        nn.init.ones_(self.linear.weight)

    def forward(self, x):
        return self.linear(x[:, 0, :4, :4].flatten(1))


def test_network_that_uses_one_cell():
    images = _images()
    found = play_grids(Contributions(ReadsOneCell()), images, _grids(images, 3))
    dark = (found["class"] == 0) | found["empty"]  # a black image contributes nothing
    assert found["score"][(found["cell"] == 0) & ~dark].to_numpy() == pytest.approx(1)
    assert found["score"][found["cell"] != 0].to_numpy() == pytest.approx(0)


def test_cells_go_down_the_columns():
    mosaic = tile(torch.arange(6.0).repeat_interleave(3)[:18].view(9, 2, 1, 1), 3)
    cells = torch.arange(6.0).repeat_interleave(3)[:18].view(9, 2)
    for k in range(9):
        assert mosaic[0, :, k % 3, k // 3].tolist() == cells[k].tolist()
    assert torch.equal(untile(mosaic, 3).flatten(1), cells)


@pytest.mark.parametrize("smooth", [1, 3, 5])
def test_shares_written_out(smooth):
    maps = torch.randn(2, 12, 12, generator=torch.Generator().manual_seed(0))
    shares = cell_shares(maps, 3, smooth=smooth)
    reach = smooth // 2
    for m in range(2):
        mass = np.zeros(9)
        for y in range(12):
            for x in range(12):
                window = maps[m, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
                mass[x // 4 * 3 + y // 4] += max(0.0, float(window.double().sum()) / smooth**2)  # zeros around
        assert shares[m].numpy() == pytest.approx(mass / mass.sum())


def test_shares_refuse_what_they_cannot_count():
    with pytest.raises(ValueError, match="odd number"):
        cell_shares(torch.ones(1, 4, 4), 2, smooth=2)
    with pytest.raises(ValueError, match="3 cells do not divide 4x4"):
        cell_shares(torch.ones(1, 4, 4), 3)


def test_broken_maps_are_not_called_empty():
    assert cell_shares(torch.full((1, 2, 2), float("nan")), 2).isnan().all()


def test_cells_can_be_made_smaller():
    seen = []
    images = _images(size=8)
    method = Fake("uniform", lambda x, t: (seen.append(tuple(x.shape)), torch.ones_like(x[:, 0]))[1])
    play_grids(method, images, _grids(images, 2, 1), cell_size=4, batch_size=4)
    assert seen == [(4, 1, 8, 8)]
    assert play_grids(ORACLE, images, _grids(images, 2), cell_size=4)["score"].to_numpy() == pytest.approx(1)


def test_cells_that_are_not_square_are_not_squashed():
    images = ArrayImages(torch.zeros(40, 1, 4, 6, dtype=torch.uint8), torch.arange(40) % 10)
    with pytest.raises(InputError, match="--cell_size 4: scales square images, got 4x6 pixels"):
        play_grids(UNIFORM, images, _grids(images, 2, 1), cell_size=4)


def test_boxes():
    images = ArrayImages(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 0]))
    boxes = {0: (0, 0, 3, 3), 1: (1, 1, 2, 2), 2: (0, 0, 0, 0)}
    ramp = torch.arange(16.0).view(4, 4) - 5  # ten positive pixels: 1 to 10
    found = play_boxes(Fake("ramp", lambda x, t: ramp.expand(len(x), 4, 4)), images, boxes, [0, 1, 2], batch_size=2)
    # rows 1 and 2, columns 1 and 2: values 0, 1, 4, 5 of a sum of 55
    assert found["score"].to_numpy() == pytest.approx([1, 10 / 55, 0])
    assert found["chance"].to_numpy() == pytest.approx([1, 4 / 16, 1 / 16])
    assert found["class"].tolist() == [0, 1, 0]
    assert not found["empty"].any()
    assert play_boxes(EMPTY, images, boxes, [1])["empty"].tolist() == [True]
    uniform = play_boxes(UNIFORM, images, boxes, [0, 1, 2])
    assert uniform["score"].to_numpy() == pytest.approx(uniform["chance"].to_numpy())


@pytest.mark.parametrize("variant", ["bcos", "standard"])
def test_disconnected_model(variant):
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=5, variant=variant).eval()
    split = DisconnectedModel(model, 2).eval()
    cells = torch.rand(4, 3, 16, 16)
    mosaic = tile(cells, 2)
    with torch.no_grad():
        assert torch.allclose(split(mosaic).view(4, 5), model(cells), atol=1e-5)
    for cell in range(4):
        found = explain(split, mosaic, cell * 5 + 2).contribution_map
        elsewhere = untile(found[:, None], 2).abs().sum((1, 2, 3))
        assert (elsewhere > 0).tolist() == [k == cell for k in range(4)]


def test_disconnected_game_scores_contributions_1():
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=10, in_channels=1).eval()
    images = _images(size=16)
    split = DisconnectedModel(model, 2).eval()
    found = play_grids(Contributions(split), images, _grids(images, 2, 1), disconnected=10)
    assert set(found["score"]) <= {0.0, 1.0}
    assert (found["score"] == 1).sum() == (~found["empty"]).sum() > 0


def _scores(method, values):
    frame = {"game": "grid", "model": "net", "method": method, "grid": np.repeat(range(len(values)), 2), "cell": [0, 1]}
    frame = pd.DataFrame(
        {k: np.tile(v, len(values)) if isinstance(v, list) else v for k, v in frame.items()} | {"class": 0}
    )
    return frame.assign(score=np.repeat(values, 2), chance=0.25, empty=False, residual=np.nan, seconds=0.1)


def test_intervals_are_over_grids():
    values = np.random.default_rng(0).normal(0.5, 0.1, 80)
    row = summarise(_scores("a", values)).iloc[0]
    error = values.std(ddof=1) / np.sqrt(80)  # of grids; over cells it would be smaller by the square root of two
    assert row["mean"] == pytest.approx(values.mean())
    assert (row["high"] - row["low"]) / (2 * 1.96 * error) == pytest.approx(1, abs=0.06)
    assert (row["grids"], row["maps"]) == (80, 160)


def test_differences_are_paired():
    values = np.random.default_rng(0).normal(0.5, 0.2, 50)
    found = difference(pd.concat([_scores("a", values + 0.01), _scores("b", values)]), ("net", "a"), ("net", "b"))
    assert (found.mean, found.low, found.high) == pytest.approx((0.01, 0.01, 0.01))  # though each alone varies by 0.03
    with pytest.raises(ValueError, match="not scored on the same grids"):
        difference(pd.concat([_scores("a", values), _scores("b", values[1:])]), ("net", "a"), ("net", "b"))


def test_one_grid_has_no_interval():
    assert np.isnan(bootstrap_interval(np.ones(1))).all()


def test_disconnected_model_can_be_repaired():
    model = DisconnectedModel(create_model("resnet20", num_classes=3, variant="standard").eval(), 2)
    found = create_attributor("deeplift", model).attribute(torch.rand(1, 3, 32, 32), torch.tensor([4])).map
    mass = untile(found[:, None], 2).abs().sum((1, 2, 3))
    assert (mass > 0).tolist() == [False, True, False, False]  # logit 4 is class 1 in cell 1


def test_gradcam_on_a_disconnected_model_weights_features_of_all_cells():
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=10, in_channels=1, variant="standard").eval()
    images = ArrayImages(torch.randint(0, 256, (40, 1, 16, 16), dtype=torch.uint8), torch.arange(40) % 10)
    contest = Contest({"net": TrainedClassifier(model, tuple("0123456789"), (16, 16), "")}, images, Rules(side=2))
    contest.grids["net"] = _grids(images, 2)
    found = contest.play("difull", "net", "gradcam")
    assert found["score"].mean() < 0.9
    assert not model.network.layer3._forward_hooks


def test_gradcam_on_a_disconnected_transformer_lays_its_tokens_out():
    torch.manual_seed(0)
    model = create_model("simple_vit_ti_patch16_224", num_classes=5, in_channels=1, variant="standard", stem="cifar")
    model = model.eval()
    images = ArrayImages(torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8), torch.arange(20) % 5)
    contest = Contest({"net": TrainedClassifier(model, tuple("01234"), (8, 8), "")}, images, Rules(side=2))
    contest.grids["net"] = _grids(images, 2)
    found = contest.attributor("difull", "net", "gradcam")
    cells = images[contest.grids["net"].indices[0]][0] / 255
    target = 2 * 5 + 3  # class 3 in cell 2
    got = found.attribute(tile(cells, 2), torch.tensor([target])).map[0]
    kept = []
    handle = model.network.blocks[-2].register_forward_hook(lambda _m, _a, output: kept.append(output))
    gradient = torch.autograd.grad(model(cells)[2, 3], kept[0])[0]
    handle.remove()
    weight = gradient.mean((0, 1))  # over the tokens of all cells: those of the others have none
    side = 8 // model.network.patch
    cam = tile((kept[0] * weight).sum(2).relu().view(4, 1, side, side), 2)
    expected = torch.nn.functional.interpolate(cam, (16, 16), mode="bilinear")[0, 0]
    torch.testing.assert_close(got, expected.detach(), rtol=1e-4, atol=1e-8)
    assert contest.play("difull", "net", "gradcam")["score"].between(0, 1).all()
