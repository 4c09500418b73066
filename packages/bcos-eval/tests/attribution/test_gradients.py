import captum.attr
import pytest
import torch
from bcos_core import explain
from bcos_core.run.error import InputError
from bcos_eval.attribution import create_attributor, preflight
from bcos_eval.attribution.draw import image_seed

NEAR = {"rtol": 1e-5, "atol": 1e-7}


def compute(name, model, images, target, **options):
    return create_attributor(name, model, **options).attribute(images, target)


def captum_map(name, model, images, target):
    """captum's own call on the network."""
    x = model.encode(images).requires_grad_()
    grey = model.encode(torch.full_like(images, 0.5))
    network = model.network
    if name == "saliency":
        return captum.attr.Saliency(network).attribute(x, target=target)
    if name == "gradient":
        return captum.attr.Saliency(network).attribute(x, target=target, abs=False)
    if name == "input_x_gradient":
        return captum.attr.InputXGradient(network).attribute(x, target=target)
    if name == "integrated_gradients":
        return captum.attr.IntegratedGradients(network).attribute(x, baselines=grey, target=target, n_steps=50)
    if name == "deeplift":
        with pytest.warns(UserWarning, match="Setting forward, backward hooks"):
            return captum.attr.DeepLift(network).attribute(x, baselines=grey, target=target)
    if name == "guided_backprop":
        with pytest.warns(UserWarning, match="Setting backward hooks"):
            return captum.attr.GuidedBackprop(network).attribute(x, target=target)
    raise AssertionError(name)


@pytest.mark.parametrize("kind", ["plain", "bcos"])
@pytest.mark.parametrize(
    "name", ["saliency", "gradient", "input_x_gradient", "integrated_gradients", "deeplift", "guided_backprop"]
)
def test_equals_captum(kind, name, images, target, request):
    model = request.getfixturevalue(kind)
    expected = captum_map(name, model, images, target).sum(1)
    torch.testing.assert_close(compute(name, model, images, target).map, expected.detach(), **NEAR)


class Reuses(torch.nn.Module):
    """A ReLU used twice, in place, and functions: what captum's rules do not see."""

    def __init__(self):
        super().__init__()
        self.convs = torch.nn.ModuleList(torch.nn.Conv2d(c, 4, 3, padding=1) for c in (1, 4, 4, 4))
        self.relu = torch.nn.ReLU(inplace=True)
        self.head = torch.nn.Linear(64, 3)

    def forward(self, x):
        x = self.relu(self.convs[1](self.relu(self.convs[0](x))))
        x = torch.nn.functional.max_pool2d(self.convs[2](x), 2)
        return self.head(torch.relu(self.convs[3](x)).flatten(1))


@pytest.mark.parametrize("name", ["deeplift", "guided_backprop"])
def test_a_repaired_network_equals_captum_on_one_written_without_reuse(name, images, target):
    model = Reuses().eval()
    first, second, third, fourth = model.convs
    relu, pool = torch.nn.ReLU, torch.nn.MaxPool2d(2)
    written = torch.nn.Sequential(
        first, relu(), second, relu(), third, pool, fourth, relu(), torch.nn.Flatten(), model.head
    )
    torch.testing.assert_close(written(images), model(images))
    assert preflight(model, images)[1].repaired
    x, grey = images.clone().requires_grad_(), torch.full_like(images, 0.5)
    method, reference = (
        (captum.attr.DeepLift, {"baselines": grey}) if name == "deeplift" else (captum.attr.GuidedBackprop, {})
    )
    with pytest.warns(UserWarning, match="Setting"):
        expected = method(written).attribute(x, target=target, **reference)
    found = compute(name, model, images, target).map
    torch.testing.assert_close(found, expected.sum(1).detach(), **NEAR)


def test_smoothgrad_equals_captum(plain, images, target):
    found = compute("smoothgrad", plain, images, target, seed=3, samples=7, noise=0.2).map
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(plain.network))
    for i in range(3):
        x = plain.encode(images[i : i + 1]).requires_grad_()
        torch.manual_seed(image_seed(images[i], 3))
        spread = 0.2 * float((x.max() - x.min()).detach())
        expected = tunnel.attribute(x, nt_samples=7, stdevs=spread, target=target[i : i + 1], abs=False)
        torch.testing.assert_close(found[i], expected.sum((0, 1)).detach(), **NEAR)


def test_contributions_are_explain(bcos, images, target):
    expected, found = explain(bcos, images, target), compute("bcos", bcos, images, target)
    assert torch.equal(found.map, expected.contribution_map)
    assert torch.equal(found.residual, expected.completeness_error)


@pytest.mark.parametrize("name", ["bcos", "input_x_gradient", "integrated_gradients", "deeplift"])
def test_known_answer_of_a_linear_model(name, linear, images, target):
    # no bias from zero: w * x, whatever the method
    options = {"baseline": "zero"} if name in ("integrated_gradients", "deeplift") else {}
    expected = linear[1].weight[target].view_as(images).detach() * images
    torch.testing.assert_close(compute(name, linear, images, target, **options).map, expected[:, 0], **NEAR)


def test_gradient_of_a_linear_model(linear, images, target):
    weight = linear[1].weight[target].view_as(images)[:, 0].detach()
    torch.testing.assert_close(compute("gradient", linear, images, target).map, weight)
    torch.testing.assert_close(compute("saliency", linear, images, target).map, weight.abs())
    torch.testing.assert_close(compute("guided_backprop", linear, images, target).map, weight)
    torch.testing.assert_close(compute("smoothgrad", linear, images, target).map, weight)


@pytest.mark.parametrize("baseline", ["grey", "black", "mean", "blur", "zero"])
def test_integrated_gradients_and_deeplift_add_up(plain, images, target, baseline):
    double = plain.double()
    images = images.double()
    reference = {"grey": torch.full_like(images, 0.5), "black": torch.zeros_like(images)}.get(baseline)
    for name, options, most in (("integrated_gradients", {"steps": 500}, 2e-3), ("deeplift", {}, 1e-12)):
        found = compute(name, double, images, target, baseline=baseline, **options)
        assert float(found.residual.max()) < most
        if reference is not None:
            difference = (double(images) - double(reference)).gather(1, target[:, None])[:, 0].detach()
            error = (found.map.sum((1, 2)) - difference).abs() / difference.abs().clamp(min=1)
            torch.testing.assert_close(found.residual, error, rtol=1e-6, atol=1e-14)


def test_residual_tells_where_the_promise_is_broken(bcos, images, target):
    # DeepLIFT has no rule for a B-cos layer: from a grey baseline it does not add up, and says so
    logits = 1000 * torch.ones(1)  # residuals are relative to 1 where a logit changes by less
    bcos.network.append(Times(logits))
    found = compute("deeplift", bcos, images, target)
    difference = (bcos(images) - bcos(torch.full_like(images, 0.5))).gather(1, target[:, None])[:, 0].detach()
    error = (found.map.sum((1, 2)) - difference).abs() / difference.abs().clamp(min=1)
    torch.testing.assert_close(found.residual, error, rtol=1e-3, atol=1e-5)
    assert float(found.residual.max()) > 0.05


class Times(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def test_refuses_what_preflight_cannot_repair(images, target):
    class Branch(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(64, 3)

        def forward(self, x):
            x = self.linear(x.flatten(1))
            return torch.relu(x) if x.sum() > -1e9 else x

    model = Branch().eval()
    for name in ("deeplift", "guided_backprop"):
        with pytest.raises(InputError, match=f"{name}: its rules need .* torch.fx cannot trace it"):
            compute(name, model, images, target)


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("integrated_gradients", {"steps": 0}, "steps: expected a whole number >= 1, got 0"),
        ("smoothgrad", {"noise": 0}, "noise: expected a share of the input's range, > 0, got 0"),
        ("smoothgrad", {"samples": 1.5}, "samples: expected a whole number >= 1, got 1.5"),
        ("deeplift", {"baseline": "gray"}, 'unknown baseline "gray"; did you mean "grey"'),
    ],
)
def test_refuses_options_out_of_range(plain, images, target, name, option, message):
    with pytest.raises(InputError, match=message):
        compute(name, plain, images, target, **option)


def test_deeplift_of_an_image_does_not_depend_on_its_neighbours(images, target):
    # captum's max-pooling rule reads the first image's gradient where an input equals the baseline's
    layers = (torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten())
    model = torch.nn.Sequential(*layers, torch.nn.Linear(36, 3)).eval()
    images[:, :, :4] = 0.5
    together = compute("deeplift", model, images, target).map
    for i in range(3):
        alone = compute("deeplift", model, images[i : i + 1], target[i : i + 1]).map
        torch.testing.assert_close(together[i], alone[0], **NEAR)
    assert preflight(model, images[:1])[1].unrepaired == ()
