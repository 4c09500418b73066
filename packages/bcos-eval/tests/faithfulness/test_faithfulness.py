"""Each metric on a network whose attribution is known, or against the formula written out or SciPy's."""

import itertools

import numpy as np
import pytest
import torch
from bcos_eval.attribution.attributor import Attribution
from bcos_eval.attribution.baseline import baseline_images
from bcos_eval.faithfulness import (
    METRICS,
    area,
    compare_randomised,
    compare_targets,
    deletion_curve,
    faithfulness_correlation,
    gini_index,
    measure,
    randomised_models,
    rank_correlation,
    sensitivity,
    similarity,
)
from bcos_vision import create_model
from scipy import stats
from torch import nn


class Fake:
    def __init__(self, maps):
        self.name, self._maps = "fake", maps

    def attribute(self, images, target):
        return Attribution(self._maps(images, target), target, None)


class Linear(nn.Module):
    """logit_k = <weight_k, x>: pixel i contributes weight x_i, and nothing else is true."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return torch.einsum("nchw,khw->nk", x, self.weight)


class TimesInput:
    name = "contributions"

    def __init__(self, model):
        self._model = model

    def attribute(self, images, target):
        return Attribution(self._model.weight.detach()[target] * images.sum(1), target, None)


WEIGHT = torch.tensor([[[1.0, -2.0], [3.0, 0.5]]])
IMAGE = torch.tensor([[[[1.0, 1.0], [0.5, 2.0]]]])  # contributions 1, -2, 1.5, 1: together 1.5


def _score(x):
    return Linear(WEIGHT)(x)[:, 0].detach()


def test_curves_of_a_linear_model_by_hand():
    maps, nothing = WEIGHT * IMAGE[:, 0], torch.zeros_like(IMAGE)
    down = deletion_curve(_score, IMAGE, maps, nothing, steps=4)
    assert down.tolist() == [[1.5, 0.0, -1.0, -2.0, 0.0]]
    up = deletion_curve(_score, IMAGE, maps, nothing, most_relevant_first=False, steps=4)
    assert up.flip(1).tolist() == [[0.0, 1.5, 2.5, 3.5, 1.5]]  # the insertion curve
    assert area(down).item() == pytest.approx((1.5 / 2 - 3.0 + 0) / 4)
    assert area(up).item() == pytest.approx((0 / 2 + 7.5 + 1.5 / 2) / 4)


def test_no_order_beats_the_true_one():
    maps, nothing = WEIGHT * IMAGE[:, 0], torch.zeros_like(IMAGE)
    others = [torch.tensor(order, dtype=torch.float).view(1, 2, 2) for order in itertools.permutations(range(4))]
    areas = [area(deletion_curve(_score, IMAGE, other, nothing, steps=4)).item() for other in others]
    assert area(deletion_curve(_score, IMAGE, maps, nothing, steps=4)).item() == pytest.approx(min(areas))
    assert min(areas) < np.mean(areas)


def test_equal_pixels_go_in_random_order():
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    curve = deletion_curve(
        lambda images: images[:, 0, :8].sum((1, 2)), x, torch.ones(1, 16, 16), torch.zeros_like(x), steps=2
    )
    assert curve[0, 1] / curve[0, 0] == pytest.approx(0.5, abs=0.15)  # in reading order it would be 0


def test_images_are_perturbed_each_in_its_own_order():
    x = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    maps = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(2))
    blank = baseline_images("mean", x)
    together = deletion_curve(lambda images: images.square().sum((1, 2, 3)), x, maps, blank, steps=5)
    for i in range(3):
        pixels, values = x[i].flatten(1).clone(), []
        order = np.argsort(-maps[i].flatten().numpy())
        for step in range(6):
            gone = order[: round(step * 16 / 5)]
            pixels[:, gone] = x[i].mean((1, 2)).view(2, 1)
            values.append(float(pixels.square().sum()))
        assert together[i].tolist() == pytest.approx(values, rel=1e-5)


def test_imputations():
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(baseline_images("mean", x)[1, 2], x[1, 2].mean())
    blurred = baseline_images("blur", x)
    assert blurred.shape == x.shape
    assert (blurred.std((2, 3)) < 0.3 * x.std((2, 3))).all()
    wide = torch.zeros(1, 1, 16, 40)  # one bright pixel becomes a Gaussian of an eighth of the shorter side
    wide[..., 8, 20] = 1
    expected = torch.exp(-((torch.arange(40) - 20.0) ** 2) / (2 * 2**2))
    row = baseline_images("blur", wide)[0, 0, 8]
    torch.testing.assert_close(row[14:27] / row[20], expected[14:27], rtol=1e-4, atol=1e-6)
    flat = torch.full((1, 1, 8, 8), 0.4)
    assert torch.allclose(baseline_images("blur", flat), flat)


def test_gini_index():
    n = 16
    one_hot = torch.zeros(1, 4, 4)
    one_hot[0, 2, 1] = -5
    assert gini_index(one_hot).item() == pytest.approx(1 - 1 / n)
    assert gini_index(torch.full((1, 4, 4), -0.3)).item() == pytest.approx(0)
    assert gini_index(torch.zeros(1, 4, 4)).isnan()
    values = np.random.default_rng(0).normal(size=n)
    apart = np.abs(np.subtract.outer(abs(values), abs(values))).sum() / (2 * n * abs(values).sum())
    assert gini_index(torch.tensor(values).view(1, 4, 4)).item() == pytest.approx(apart)


def test_sensitivity_of_maps_that_are_known():
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    target = torch.zeros(2, dtype=torch.long)
    most, mean = sensitivity(Fake(lambda x, t: torch.ones_like(x[:, 0])), x, target)
    assert most.tolist() == mean.tolist() == [0, 0]
    most, mean = sensitivity(Fake(lambda x, t: x[:, 0]), x, target, radius=0.1, samples=200)
    # uniform noise in [-r, r] has mean square r²/3
    expected = (64 * 0.1**2 / 3) ** 0.5 / x.flatten(1).norm(dim=1)
    assert mean.tolist() == pytest.approx(expected.tolist(), rel=0.02)
    assert (most > mean).all()


def test_faithfulness_correlation():
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(1, 6, 6, generator=generator), torch.rand(2, 1, 6, 6, generator=generator)

    def score(images):
        return Linear(weight)(images)[:, 0].detach()

    true, nothing = weight * x[:, 0], torch.zeros_like(x)
    assert faithfulness_correlation(score, x, true, nothing).tolist() == pytest.approx([1, 1])
    assert faithfulness_correlation(score, x, -true, nothing).tolist() == pytest.approx([-1, -1])
    random = torch.randn(2, 6, 6, generator=generator)
    assert faithfulness_correlation(score, x, random, nothing, samples=400).abs().max() < 0.5
    assert faithfulness_correlation(score, x, torch.ones_like(true), nothing).isnan().all()


def test_rank_correlation_is_scipys():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 9, (3, 5, 4), generator=generator).float() for _ in range(2))  # with ties
    expected = [stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    assert rank_correlation(a, b).tolist() == pytest.approx(expected)
    assert rank_correlation(a, torch.ones_like(a)).isnan().all()


def test_similarity():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 7, 7, generator=generator), torch.randn(2, 7, 7, generator=generator)
    assert similarity(a, 3 * a).tolist() == pytest.approx([1, 1])
    for found, x, y in zip(similarity(a, b), a.double(), b.double(), strict=True):  # one window: the index written out
        x, y = x / x.abs().max(), y / y.abs().max()
        (vx, cov), (_, vy) = np.cov(x.flatten(), y.flatten())
        c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
        mx, my = float(x.mean()), float(y.mean())
        expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
        assert found.item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least 7x7"):
        similarity(a[:, :5], a[:, :5])


def test_randomised_models_go_from_the_output_down():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 3))
    before = {name: p.clone() for name, p in model.named_parameters()}

    def changed(copy):
        return {name.split(".")[0] for name, p in copy.named_parameters() if not torch.equal(p, before[name])}

    found = [(name, changed(copy)) for name, copy in randomised_models(model)]
    assert found == [("4", {"4"}), ("2", {"4", "2"}), ("0", {"4", "2", "0"})]
    found = [(name, changed(copy)) for name, copy in randomised_models(model, cascading=False)]
    assert found == [("4", {"4"}), ("2", {"2"}), ("0", {"0"})]
    assert [name for name, _ in randomised_models(model, most=1)] == ["0"]
    assert changed(model) == set()
    weight = next(copy for _, copy in randomised_models(model, cascading=False))[4].weight
    again = next(copy for _, copy in randomised_models(model, cascading=False))[4].weight
    assert torch.equal(weight, again)
    assert weight.std().item() == pytest.approx(model[4].weight.std().item(), rel=0.4)


def test_randomisation_tells_maps_of_weights_from_others():
    generator = torch.Generator().manual_seed(0)
    model = Linear(torch.randn(3, 12, 12, generator=generator))
    x, target = torch.rand(4, 1, 12, 12, generator=generator), torch.tensor([0, 1, 2, 0])
    holder = nn.Sequential(model)
    _, ranks, alike = compare_randomised(lambda m: TimesInput(m[0]), holder, x, target)
    assert ranks.shape == alike.shape == (1, 4)
    assert ranks.abs().max() < 0.35  # 144 pixels: sd 0.08
    _, ranks, alike = compare_randomised(lambda m: Fake(lambda x, t: x[:, 0]), holder, x, target)
    assert ranks.tolist() == [pytest.approx([1] * 4)]
    assert alike.tolist() == [pytest.approx([1] * 4)]
    assert compare_targets(TimesInput(model), x, target, 3).abs().max() < 0.35
    assert compare_targets(Fake(lambda x, t: x[:, 0]), x, target, 3).tolist() == pytest.approx([1] * 4)


def _randomised(maps):
    """The randomisation metrics of a method whose maps of the trained and of randomised models are known."""
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=3, in_channels=1).eval()
    images = torch.rand(2, 1, 8, 8)
    make = lambda network: Fake(lambda x, t: maps(x[:, 0], network is model))  # noqa: E731
    found = measure(make, model, images, torch.tensor([0, 2]), most=2).set_index("metric")["score"]
    names = [f"{kind}_{what}" for kind in ("cascading", "independent") for what in ("rank", "ssim")]
    return {name: found[name].tolist() for name in names}


def test_a_map_that_comes_back_negated_is_no_better_than_one_that_comes_back():
    same = _randomised(lambda x, trained: x - 0.5)
    negated = _randomised(lambda x, trained: (x - 0.5) * (1 if trained else -1))
    assert same == {name: pytest.approx([1, 1]) for name in same}
    for name, values in negated.items():
        assert min(values) > (0.999 if name.endswith("rank") else 0.6)  # windows' means differ in sign, too


def test_a_constant_map_of_a_randomised_model_is_like_nothing():
    constant = _randomised(lambda x, trained: x if trained else torch.zeros_like(x))
    assert constant["cascading_rank"] == constant["independent_rank"] == [0, 0]
    assert np.isnan(_randomised(lambda x, trained: torch.ones_like(x))["cascading_rank"]).all()
    broken = _randomised(lambda x, trained: x if trained else x * float("nan"))
    assert np.isnan(broken["cascading_rank"]).all()


def test_compared_target_is_another():
    seen = []

    def maps(x, target):
        seen.append(target)
        return x[:, 0]

    target = torch.arange(50) % 3
    compare_targets(Fake(maps), torch.rand(50, 1, 8, 8), target, 3)
    assert (seen[0] == target).all()
    assert (seen[1] != target).all()


def test_draws_are_an_images_own():
    x, target = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    seen = []

    def maps(images, target):
        seen.append(target)
        return images[:, 0] * (target + 1)[:, None, None]

    together = sensitivity(Fake(maps), x, target)
    alone = [sensitivity(Fake(maps), x[i : i + 1], target[i : i + 1]) for i in range(6)]
    for k in range(2):
        torch.testing.assert_close(together[k], torch.cat([found[k] for found in alone]))
    same = torch.full((6,), 2)
    compare_targets(Fake(maps), x, same, 100)
    others = seen[-1].tolist()
    assert len(set(others)) > 1
    compare_targets(Fake(maps), x[3:4], same[3:4], 100)
    assert seen[-1].tolist() == others[3:4]


def test_measure_gives_every_metric_of_every_image():
    from bcos_core import explain

    class Contributions:
        name = "contributions"

        def __init__(self, model):
            self._model = model

        def attribute(self, images, target):
            return Attribution(explain(self._model, images, target).contribution_map, target, None)

    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=3, in_channels=1).eval()
    found = measure(Contributions, model, torch.rand(2, 1, 8, 8), torch.tensor([0, 2]), most=1)
    assert set(found["metric"]) == set(METRICS)
    assert len(found) == 2 * len(METRICS)
    assert np.isfinite(found["score"]).all()
