"""Whole networks, of torchvision and our own: what they learned stays, what they explain adds up, they train on."""

import copy

import pytest
import torch
from bcos_core import bcosify, explain
from bcos_core import nn as bnn
from bcos_core.nn import BcosLayer, set_exponent
from torch import nn


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_same_logits_at_b_1(family, dtype, tolerance, images, plain_logits):
    """Largest difference against the largest logit."""
    name, plain, options = family
    plain, x = plain.to(dtype), images(name, dtype)
    model, report = bcosify(plain, b=1, biases="keep", pooling="keep", **options)
    with torch.no_grad():
        expected, found = plain_logits(name, plain, x), model(x)
    assert found.dtype == dtype
    assert expected.std() > 1e-3
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    assert report.counts["refused"] == 0
    assert report.counts["replaced"] >= sum(isinstance(m, BcosLayer) for m in model.modules()) >= 8


@pytest.mark.parametrize("biases", ["drop", "keep"])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-11)], ids=str)
def test_explanations_add_up_at_b_2(family, dtype, limit, biases, images, lively, has_constants):
    name, plain, options = family
    x = images(name, dtype)
    model, _ = bcosify(plain.to(dtype), b=2, biases=biases, **options)
    found = explain(lively(model, x), x)
    assert found.logits.std() > 0.5
    assert found.contributions.shape == (2, 6, *x.shape[2:])
    assert (found.completeness_error <= limit).all()
    if biases == "keep" or has_constants(name):
        assert (found.remainder.abs() > 1e-6).all()
    else:
        assert not found.remainder.any()


def test_layers_are_b_cos(family):
    _, plain, options = family
    model, report = bcosify(plain, **options)
    modules = dict(model.named_modules())
    plain_layers = [path for path, m in modules.items() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert all(path.endswith("to_qkv") for path in plain_layers)
    assert all(m.b == 2 and m.bias is None for m in modules.values() if isinstance(m, BcosLayer))
    assert sum(type(m).__name__.startswith("Encoded") for m in modules.values()) == 1
    assert not any(isinstance(m, (nn.MaxPool2d, nn.BatchNorm2d, nn.LayerNorm, nn.GELU)) for m in modules.values())
    assert not any(getattr(m, "inplace", False) for m in modules.values())
    assert isinstance(model.encoding, bnn.InverseEncoding)
    assert type(model) is type(plain) or type(model).__name__ == "ConvertedModel"
    assert report.entries


def test_trains_and_loads(family, images):
    """A step in training mode, in-place functional activations included; a second conversion takes the state."""
    name, plain, options = family
    x = images(name, torch.float32)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    model, _ = bcosify(plain.train(), b=1.5, logit_bias=-1.0, **options)
    assert all(module.training for module in model.modules())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    model(x).square().sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
    optimiser.step()
    other, _ = bcosify(copy.deepcopy(plain), b=1.5, logit_bias=-1.0, **options)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(other.eval()(x), model.eval()(x))
    assert plain.state_dict().keys() == before.keys()
    for key, value in plain.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_b_raised_afterwards_is_b_given(family, images):
    name, plain, options = family
    x = images(name, torch.float32)
    late, _ = bcosify(plain, b=1, **options)
    set_exponent(late, 2)
    early, _ = bcosify(plain, b=2, **options)
    with torch.no_grad():
        assert torch.equal(late(x), early(x))
