"""BcosConv2d: padding modes, state, repr; its formula is tested in test_functional.py."""

import re

import pytest
import torch
import torch.nn.functional as F
from bcos_core.functional import bcos_conv2d
from bcos_core.nn import BcosConv2d, Detachable


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    ("padding", "sides"),
    [((1, 2), (2, 2, 1, 1)), (2, (2, 2, 2, 2)), ("same", (1, 1, 1, 2)), ("valid", (0, 0, 0, 0)), (0, (0, 0, 0, 0))],
    ids=str,
)
def test_padding_modes(mode, padding, sides, b, oracle_conv2d, assert_close):
    """The patch norm is that of the padded input; "same" puts the odd pixel at the bottom and right, as torch does."""
    layer = BcosConv2d(4, 6, (4, 3), padding=padding, padding_mode=mode, groups=2, max_out=2, b=b).double()
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    padded = F.pad(x, sides, mode="constant" if mode == "zeros" else mode)
    assert_close(layer(x), oracle_conv2d(padded, layer.weight, groups=2, max_out=2, b=b))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("kernel", [(2, 2), (4, 3), (3, 4)])
@pytest.mark.parametrize("dilation", [1, (2, 1)])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_same_padding_is_torchs(mode, kernel, dilation):
    ours = BcosConv2d(2, 3, kernel, padding="same", dilation=dilation, padding_mode=mode, b=1)
    plain = torch.nn.Conv2d(2, 3, kernel, padding="same", dilation=dilation, padding_mode=mode, bias=False)
    plain.weight.data = F.normalize(ours.weight.detach().flatten(1)).view_as(ours.weight)
    x = torch.randn(2, 2, 9, 9)
    torch.testing.assert_close(ours(x), plain(x))


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_at_b_1_it_is_a_plain_convolution_with_filters_of_norm_one(mode):
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2, "padding_mode": mode}
    ours, plain = BcosConv2d(4, 6, 3, **options, b=1), torch.nn.Conv2d(4, 6, 3, bias=False, **options)
    plain.weight.data = F.normalize(ours.weight.detach().flatten(1)).view_as(ours.weight)
    x = torch.randn(2, 4, 9, 8)
    torch.testing.assert_close(ours(x), plain(x))


def test_arguments_reach_the_formula():
    layer = BcosConv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2, b=1.7, max_out=3, eps=0.1)
    x = torch.randn(2, 4, 9, 8)
    expected = bcos_conv2d(
        x, layer.weight, b=1.7, stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2, max_out=3, eps=0.1
    )
    assert torch.equal(layer(x), expected)


def test_takes_arguments_in_the_order_of_torchs_convolution():
    """Positions as in nn.Conv2d up to groups; padding_mode is the eighth (bias is a keyword)."""
    layer = BcosConv2d(4, 6, 3, 2, 1, 2, 2, "circular")
    assert (layer.stride, layer.padding, layer.dilation, layer.groups) == ((2, 2), (1, 1), (2, 2), 2)
    assert layer.padding_mode == "circular"
    assert (layer.b, layer.max_out, layer.eps) == (2.0, 1, 1e-6)
    with pytest.raises(TypeError):
        BcosConv2d(4, 6, 3, 2, 1, 2, 2, "circular", 2.0)


def test_state_is_the_weight_alone():
    layer = BcosConv2d(4, 6, (3, 2), groups=2, max_out=3)
    assert list(layer.state_dict()) == ["weight"]
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert layer.weight.shape == (18, 2, 3, 2)
    other = BcosConv2d(4, 6, (3, 2), groups=2, max_out=3)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(other(x), layer(x))


def test_detach_is_off_and_no_state():
    layer = BcosConv2d(1, 1, 1)
    assert isinstance(layer, Detachable)
    assert layer.detach is False


def test_initial_filters_follow_he_by_fan_out():
    weight = BcosConv2d(16, 64, 3).weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert abs(weight.mean().item()) < 1e-3


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (BcosConv2d(3, 4, 5), "3, 4, kernel_size=(5, 5), stride=(1, 1), b=2"),
        (
            BcosConv2d(4, 4, 3, 2, 1, 2, 2, "reflect", b=1.25, max_out=2),
            "4, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), groups=2,"
            " padding_mode=reflect, max_out=2, b=1.25",
        ),
        (BcosConv2d(3, 4, 3, padding="same"), "3, 4, kernel_size=(3, 3), stride=(1, 1), padding=same, b=2"),
    ],
)
def test_repr(layer, text):
    assert repr(layer) == f"BcosConv2d({text})"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"b": 0.5}, "b: expected a finite number >= 1, got 0.5"),
        ({"b": float("nan")}, "b: expected a finite number >= 1, got nan"),
        ({"b": float("inf")}, "b: expected a finite number >= 1, got inf"),
        ({"max_out": 0}, "max_out: expected at least 1, got 0"),
        ({"groups": 3}, "groups: expected a positive divisor of in_channels 4 and out_channels 6, got 3"),
        ({"groups": 4}, "groups: expected a positive divisor of in_channels 4 and out_channels 6, got 4"),
        ({"groups": 0}, "groups: expected a positive divisor"),
        ({"padding_mode": "mirror"}, 'padding_mode: expected zeros, reflect, replicate or circular, got "mirror"'),
        ({"padding": "full"}, 'padding: expected an integer, a pair, "valid" or "same", got "full"'),
        ({"padding": "full", "padding_mode": "reflect"}, 'padding: expected an integer, a pair, "valid" or "same"'),
        ({"padding": "same", "stride": 2}, 'padding: "same" needs stride 1, got stride 2'),
        ({"padding": "same", "stride": (1, 2), "padding_mode": "reflect"}, 'padding: "same" needs stride 1'),
    ],
)
def test_errors_come_at_construction(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BcosConv2d(4, 6, 3, **options)
