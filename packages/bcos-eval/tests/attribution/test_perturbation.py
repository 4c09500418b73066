import captum.attr
import pytest
import torch
from bcos_core.run.error import InputError
from bcos_eval.attribution import create_attributor
from bcos_eval.attribution.draw import image_seed
from bcos_eval.attribution.perturbation import random_mask
from bcos_eval.attribution.superpixel import superpixels
from captum._utils.models.linear_model import SkLearnRidge
from torch import nn

NEAR = {"rtol": 1e-5, "atol": 1e-7}


def compute(name, model, images, target, **options):
    return create_attributor(name, model, **options).attribute(images, target)


class Additive(nn.Module):
    """Each 2x2 square of an 8x8 image adds its mean, times a weight of its own, to the first logit."""

    def __init__(self):
        super().__init__()
        self.weights = torch.randn(4, 4)

    def forward(self, x):
        squares = nn.functional.avg_pool2d(x[:, 0], 2)
        first = (squares * self.weights).sum((1, 2))
        return torch.stack([first, -first], 1)

    def contributions(self, images, hidden):
        """Of each square, to f(images) - f(hidden)."""
        return self.weights * (nn.functional.avg_pool2d(images[:, 0], 2) - hidden)


def test_occlusion_of_a_linear_model(linear, images, target):
    found = compute("occlusion", linear, images, target, baseline="black", window=0.25, stride=1.0).map
    contributions = (linear[1].weight[target].view_as(images) * images)[:, 0].detach()
    windows = nn.functional.avg_pool2d(contributions, 2) * 4  # a window's sum, at each of its pixels
    expected = windows.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_occlusion_equals_captum_and_hides_before_encoding(bcos, images, target):
    found = compute("occlusion", bcos, images, target, window=0.5, stride=0.5).map
    expected = captum.attr.Occlusion(bcos).attribute(
        images, sliding_window_shapes=(1, 4, 4), strides=(1, 2, 2), baselines=0.5, target=target
    )
    torch.testing.assert_close(found, expected[:, 0].detach(), **NEAR)


def test_occlusion_by_default_hides_a_seventh_at_half_steps(plain, target):
    images = torch.rand(3, 1, 28, 28)
    expected = captum.attr.Occlusion(plain).attribute(
        images, sliding_window_shapes=(1, 4, 4), strides=(1, 2, 2), baselines=0.5, target=target
    )
    found = compute("occlusion", plain, images, target).map
    torch.testing.assert_close(found, expected[:, 0].detach(), **NEAR)


def test_lime_recovers_an_additive_model(images):
    model = Additive().eval()
    found = compute("lime", model, images, torch.tensor([0, 0, 1]), superpixels=16, baseline="black").map
    expected = model.contributions(images, 0) * torch.tensor([1, 1, -1])[:, None, None]
    # the ridge's penalty of 1 shrinks them by some per cent
    torch.testing.assert_close(nn.functional.avg_pool2d(found, 2) * 4, expected, rtol=0.1, atol=0.02)


def test_kernel_shap_recovers_an_additive_model(images):
    model = Additive().eval()
    found = compute("kernel_shap", model, images, torch.zeros(3, dtype=torch.long), superpixels=16)
    torch.testing.assert_close(
        nn.functional.avg_pool2d(found.map, 2) * 4, model.contributions(images, 0.5), rtol=1e-3, atol=1e-3
    )
    assert float(found.residual.max()) < 1e-4


@pytest.mark.parametrize("name", ["lime", "kernel_shap"])
def test_equals_captum(name, plain, images, target):
    found = compute(name, plain, images, target, seed=5, samples=100, superpixels=16).map
    similarity = lambda _a, _b, z, **_k: torch.exp(-((1 - z.float().mean(1) ** 0.5) ** 2) / (2 * 0.25**2))  # noqa: E731
    method = (
        captum.attr.Lime(plain, interpretable_model=SkLearnRidge(alpha=1.0), similarity_func=similarity)
        if name == "lime"
        else captum.attr.KernelShap(plain)
    )
    for i in range(3):
        torch.manual_seed(image_seed(images[i], 5))
        expected = method.attribute(
            images[i : i + 1],
            baselines=0.5,
            target=target[i : i + 1],
            feature_mask=superpixels(images[i], 16).expand(1, 1, 8, 8),
            n_samples=100,
        )
        torch.testing.assert_close(found[i], expected[0, 0] / 4, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_superpixels_of_a_photograph_follow_its_edges(channels):
    image = torch.zeros(channels, 64, 96)
    image[:, :, 45:] = 1
    found = superpixels(image, 24)
    assert 12 <= len(found.unique()) <= 36
    assert int(found.max()) + 1 == len(found.unique())
    assert not set(found[:, :45].unique().tolist()) & set(found[:, 45:].unique().tolist())


@pytest.mark.parametrize(("cells", "side"), [(2, 8), (3, 8), (3, 16), (1, 28), (1, 32)])
def test_squares_lie_in_one_cell_of_a_mosaic(cells, side):
    found = superpixels(torch.rand(1, cells * side, cells * side))
    cell = torch.arange(cells * side) // side
    cell = cell[:, None] * cells + cell
    assert all(len(cell[found == k].unique()) == 1 for k in found.unique())
    assert 64 / 2.25 <= len(found.unique()) <= 64 * 2.25


def test_superpixels_of_an_odd_shape():
    found = superpixels(torch.rand(1, 5, 7), 9)
    assert found.shape == (5, 7)
    assert found.unique().tolist() == list(range(len(found.unique())))


def test_rise_written_out(plain, images, target):
    found = compute("rise", plain, images[:1], target[:1], seed=2, samples=40, cells=4, share=0.3).map[0]
    torch.manual_seed(image_seed(images[0], 2))
    masks = torch.stack([random_mask(images, 4, 0.3) for _ in range(40)]).double()
    shown = images[:1] * masks[:, None].float() + 0.5 * (1 - masks[:, None].float())
    logits = plain(shown)[:, 0].double().detach()
    expected = torch.stack([(logit - logits.mean()) * mask for logit, mask in zip(logits, masks, strict=True)]).sum(0)
    torch.testing.assert_close(found.double(), expected / (40 * 0.3), rtol=1e-3, atol=1e-5)


def test_rise_masks():
    images = torch.rand(1, 1, 30, 20)
    masks = torch.stack([random_mask(images, 5, 0.3) for _ in range(2000)])
    assert 0 <= float(masks.min()) <= float(masks.max()) <= 1
    # each pixel is shown with the share asked for: eq. 3's E[M]
    torch.testing.assert_close(masks.mean(0), torch.full((30, 20), 0.3), rtol=0, atol=0.05)


def test_rise_peaks_where_the_model_looks(images):
    class Corner(nn.Module):
        def forward(self, x):
            seen = x[:, 0, 4:, :4].mean((1, 2))
            return torch.stack([seen, 5 - seen], 1)

    bright = images * 0.4 + 0.6
    found = compute("rise", Corner(), bright, torch.tensor([0, 0, 1]), baseline="black", cells=4).map
    parts = nn.functional.avg_pool2d(found, 4)  # quarters
    assert (parts[:2].flatten(1).argmax(1) == 2).all()
    assert parts[2].flatten().argmin() == 2
    others = parts[:, [0, 0, 1], [0, 1, 1]].abs().amax(1)
    assert (parts[:, 1, 0].abs() > 5 * others).all()


def test_adding_a_constant_to_the_logit_changes_no_map(plain, images, target):
    class Shifted(nn.Module):
        def forward(self, x):
            return plain(x) + 1000

    for name in ("rise", "occlusion"):
        expected = compute(name, plain, images, target).map
        torch.testing.assert_close(compute(name, Shifted(), images, target).map, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("occlusion", {"window": 0}, r"window: expected a share in \(0, 1\], got 0"),
        ("occlusion", {"baseline": "zero"}, 'baseline: "zero" is of the encoded input'),
        ("lime", {"samples": 10}, "samples: expected more than the 64 superpixels that are weighed, got 10"),
        ("kernel_shap", {"superpixels": 1}, "superpixels: expected a whole number >= 2, got 1"),
        ("rise", {"share": 1}, r"share: expected a probability in \(0, 1\), got 1"),
    ],
)
def test_refuses_options_out_of_range(plain, images, target, name, option, message):
    with pytest.raises(InputError, match=message):
        compute(name, plain, images, target, **option)
