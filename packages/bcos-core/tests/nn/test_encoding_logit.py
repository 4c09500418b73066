"""The constants at both ends of a network: input encodings and the logit layer."""

import math
import re

import pytest
import torch
from bcos_core.nn import InverseEncoding, LogitLayer, Standardise


def test_inverse_encoding():
    x = torch.rand(2, 3, 4, 5)
    y = InverseEncoding()(x)
    assert y.shape == (2, 6, 4, 5)
    assert torch.equal(y[:, :3], x)
    assert torch.equal(y[:, 3:], 1 - x)
    assert not InverseEncoding().state_dict()


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_inverse_encoding_has_a_norm_for_every_colour(value):
    assert InverseEncoding()(torch.full((1, 1, 1, 1), value)).square().sum() >= 0.5


def test_standardise():
    x = torch.rand(2, 2, 3, 3, dtype=torch.float64)
    y = Standardise([0.25, -1.5], [0.5, 4.0]).double()(x)
    torch.testing.assert_close(y[:, 0], (x[:, 0] - 0.25) / 0.5)
    torch.testing.assert_close(y[:, 1], (x[:, 1] + 1.5) / 4)


def test_standardise_is_saved_and_shown():
    layer = Standardise([0.25], [0.5])
    assert set(layer.state_dict()) == {"mean", "std"}
    assert not list(layer.parameters())
    assert repr(layer) == "Standardise(mean=[0.25], std=[0.5])"


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5], [0.0]), ([0.5], [-1.0]), ([0.5, 0.5], [1.0]), ([0.5], [math.nan]), ([], [])]
)
def test_standardise_errors(mean, std):
    with pytest.raises(ValueError, match=re.escape("mean, std: expected one value each for every channel, std > 0")):
        Standardise(mean, std)


def test_logit_layer():
    x = torch.randn(3, 4)
    torch.testing.assert_close(LogitLayer(bias=-2.5, temperature=4.0)(x), x / 4 - 2.5)
    assert torch.equal(LogitLayer()(x), x)
    assert not LogitLayer(bias=1.0).state_dict()
    assert repr(LogitLayer(bias=-2.19722, temperature=50.0)) == "LogitLayer(bias=-2.197, temperature=50)"


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_prior_bias_is_the_logit_of_one_class_in_many(num_classes):
    bias = torch.tensor(LogitLayer.prior_bias(num_classes), dtype=torch.float64)
    assert bias.sigmoid().item() == pytest.approx(1 / num_classes)


def test_prior_bias_of_a_single_output_is_zero():
    assert LogitLayer.prior_bias(1) == 0.0  # regression, two classes with one logit


@pytest.mark.parametrize(
    "options",
    [*({"temperature": t} for t in (0.0, -1.0, math.inf, math.nan)), {"bias": math.nan}, {"bias": math.inf}],
    ids=str,
)
def test_logit_layer_errors(options):
    with pytest.raises(ValueError, match="bias, temperature: expected finite numbers, temperature > 0"):
        LogitLayer(**options)
