"""Un-normalised weights and biases: at B = 1 a plain layer, above it the formula, and bias in the remainder."""

import pytest
import torch
import torch.nn.functional as F
from bcos_core import explain
from bcos_core.nn import BcosConv2d, BcosLinear, Exponent
from torch import nn


def layers(b, **options):
    return [
        (BcosLinear(5, 4, b=b, **options).double(), torch.randn(3, 5, dtype=torch.float64)),
        (
            BcosConv2d(4, 6, 3, 2, 1, groups=2, b=b, **options).double(),
            torch.randn(2, 4, 7, 7, dtype=torch.float64),
        ),
    ]


def plain(layer, x, weight, bias=None):
    if isinstance(layer, BcosLinear):
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, groups=layer.groups)


def patch_norm(layer, x):
    if isinstance(layer, BcosLinear):
        return (x.square().sum(-1, keepdim=True) + layer.eps).sqrt()
    ones = torch.ones_like(layer.weight)
    return (F.conv2d(x.square(), ones, None, layer.stride, layer.padding, groups=layer.groups) + layer.eps).sqrt()


@pytest.mark.parametrize("index", [0, 1])
def test_at_b_1_a_layer_that_keeps_norms_and_bias_is_the_plain_one(index):
    layer, x = layers(1, unit_weights=False, bias=True)[index]
    with torch.no_grad():
        layer.weight.mul_(3)
        layer.bias.normal_()
    torch.testing.assert_close(layer(x), plain(layer, x, layer.weight, layer.bias))


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("exponent", [1.5, 2, 3])
def test_values_and_gradients_are_the_formulas(index, exponent):
    layer, x = layers(exponent, unit_weights=False, bias=True)[index]
    with torch.no_grad():
        layer.weight.mul_(3)
        layer.bias.normal_()
    x.requires_grad_()
    y = layer(x)
    response = plain(layer, x, layer.weight)
    norms = layer.weight.flatten(1).norm(dim=1)
    shape = (-1, 1, 1) if x.dim() == 4 else (-1,)
    cosine = response.abs() / norms.view(shape) / patch_norm(layer, x)
    offset = 0 if exponent == 2 else 1e-6
    expected = response * (cosine + offset) ** (exponent - 1) + layer.bias.view(shape)
    torch.testing.assert_close(y, expected)
    u = torch.randn_like(y)
    found = torch.autograd.grad((y * u).sum(), [x, layer.weight, layer.bias])
    torch.testing.assert_close(found, torch.autograd.grad((expected * u).sum(), [x, layer.weight, layer.bias]))


def test_a_filter_of_zeros_answers_its_bias_and_has_finite_gradients():
    layer = BcosLinear(5, 2, b=2, unit_weights=False, bias=True)
    with torch.no_grad():
        layer.weight[0].zero_()
        layer.bias.fill_(0.5)
    y = layer(torch.randn(3, 5))
    y.sum().backward()
    assert y[:, 0].tolist() == [0.5] * 3
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("exponent", [1, 1.5, 2])
def test_biases_are_the_remainder_of_an_explanation(exponent):
    torch.manual_seed(0)
    model = nn.Sequential(
        BcosConv2d(2, 4, 3, b=exponent, bias=True),
        nn.ReLU(),
        BcosConv2d(4, 4, 3, b=exponent, unit_weights=False, bias=True),
        nn.Flatten(),
        BcosLinear(16, 3, b=exponent, bias=True),
    ).double()
    for layer in (model[0], model[2], model[4]):
        nn.init.normal_(layer.bias)
    explanation = explain(model, torch.rand(5, 2, 6, 6, dtype=torch.float64))
    assert explanation.completeness_error.max() < 1e-12
    assert explanation.remainder.abs().min() > 1e-3


def test_with_a_learnt_exponent():
    layer = BcosLinear(5, 4, b=Exponent(1.5), unit_weights=False, bias=True)
    fixed = BcosLinear(5, 4, b=1.5, unit_weights=False, bias=True)
    with torch.no_grad():
        fixed.weight.copy_(layer.weight)
    x = torch.randn(3, 5)
    torch.testing.assert_close(layer(x), fixed(x), rtol=1e-5, atol=1e-6)


def test_bfloat16_stays_bfloat16():
    layer = BcosLinear(8, 4, unit_weights=False, bias=True).bfloat16()
    assert layer(torch.randn(3, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_repr_and_mistakes():
    assert (
        repr(BcosLinear(5, 4, unit_weights=False, bias=True)) == "BcosLinear(5, 4, unit_weights=False, bias=True, b=2)"
    )
    with pytest.raises(ValueError, match="unit_weights: filters that compete"):
        BcosLinear(5, 4, max_out=2, unit_weights=False)
