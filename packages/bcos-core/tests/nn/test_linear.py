"""BcosLinear: state, repr, arguments; its formula is tested in test_functional.py."""

import pytest
import torch
import torch.nn.functional as F
from bcos_core.nn import BcosLinear, Detachable


@pytest.mark.parametrize("max_out", [1, 3])
def test_values(b, max_out, oracle_linear, assert_close):
    layer = BcosLinear(5, 4, b=b, max_out=max_out, eps=1e-3).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    assert_close(layer(x), oracle_linear(x, layer.weight, b=b, max_out=max_out, eps=1e-3))


def test_at_b_1_it_is_a_plain_layer_with_weights_of_norm_one():
    layer, x = BcosLinear(5, 4, b=1), torch.randn(3, 5)
    torch.testing.assert_close(layer(x), F.linear(x, F.normalize(layer.weight)))


def test_state_is_the_weight_alone():
    layer = BcosLinear(5, 4, max_out=2)
    assert list(layer.state_dict()) == ["weight"]
    assert layer.weight.shape == (8, 5)
    other = BcosLinear(5, 4, max_out=2)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 5)
    assert torch.equal(other(x), layer(x))


def test_defaults():
    layer = BcosLinear(5, 4)
    assert (layer.b, layer.max_out, layer.eps, layer.detach) == (2.0, 1, 1e-6, False)
    assert isinstance(layer, Detachable)
    with pytest.raises(TypeError):
        BcosLinear(5, 4, 2.0)


def test_initial_weights_are_those_of_a_linear_layer():
    torch.manual_seed(3)
    ours = BcosLinear(50, 40).weight
    torch.manual_seed(3)
    assert torch.equal(ours, torch.nn.Linear(50, 40, bias=False).weight)


def test_repr():
    assert repr(BcosLinear(5, 4)) == "BcosLinear(5, 4, b=2)"
    assert repr(BcosLinear(5, 4, b=1.5, max_out=2)) == "BcosLinear(5, 4, max_out=2, b=1.5)"


@pytest.mark.parametrize("value", [0.9, float("nan"), float("inf")])
def test_exponent(value):
    with pytest.raises(ValueError, match=f"b: expected a finite number >= 1, got {value}"):
        BcosLinear(5, 4, b=value)


def test_max_out():
    with pytest.raises(ValueError, match="max_out: expected at least 1, got 0"):
        BcosLinear(5, 4, max_out=0)


def test_features():
    with pytest.raises(ValueError, match="x: expected 5 channels"):
        BcosLinear(5, 4)(torch.randn(2, 6))
