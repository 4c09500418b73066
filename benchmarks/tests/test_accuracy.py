import dataclasses
import math

import pytest
import torch

from .. import accuracy
from ..accuracy import expect, largest_error
from ..buffers import make_buffers
from ..cases import CASES, Case
from ..formula import bcos_formula
from ..peers import Unavailable, layer

SHAPES = {
    "1x1": Case("", 2, 2, 6, 5, 4),
    "3x3/2": Case("", 2, 2, 6, 5, 4, 3, 2),
    "groups": Case("", 2, 2, 6, 5, 4, 3, groups=2, b=1.5),
    "depthwise": Case("", 2, 2, 6, 5, 6, 3, groups=6),
    "dilation": Case("", 2, 2, 6, 7, 4, 3, dilation=2),
    "max_out": Case("", 2, 2, 6, 5, 4, 3, max_out=2, b=1.25),
    "1x1/2": Case("", 2, 2, 6, 5, 4, stride=2),
    "linear": Case("", 3, 3, 6, 1, 4, linear=True, max_out=2),
}


def by_hand(case, x, weight, b):
    """Output by output, from the patch and the filter under it."""
    if case.linear:
        x, weight = x[:, :, None, None], weight[:, :, None, None]
    pad, step, window = case.padding, case.dilation, case.kernel_size
    x = torch.nn.functional.pad(x, (pad,) * 4)
    y = torch.empty(case.batch, case.out_channels, case.out_size, case.out_size, dtype=x.dtype)
    per_group = case.channels // case.groups
    for n, o, p, q in torch.cartesian_prod(*map(torch.arange, y.shape)).tolist():
        group = o // (case.out_channels // case.groups)
        rows, columns = (slice(i * case.stride, i * case.stride + step * (window - 1) + 1, step) for i in (p, q))
        patch = x[n, group * per_group : (group + 1) * per_group, rows, columns].flatten()
        filters = weight[o * case.max_out : (o + 1) * case.max_out].flatten(1)
        lin = max((patch @ w / w.norm()).item() for w in filters)
        y[n, o, p, q] = lin * abs(lin / patch.norm()) ** (b - 1)
    return y.view(case.y_shape)


@pytest.mark.parametrize("name", SHAPES)
def test_formula_is_that_of_the_paper(name):
    case = SHAPES[name]
    generator = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(s, dtype=torch.float64, generator=generator) for s in (case.x_shape, case.weight_shape))
    y = bcos_formula(case, x, weight, case.b)
    torch.testing.assert_close(y, by_hand(case, x, weight, case.b), rtol=1e-4, atol=1e-5)  # but for eps and delta


@pytest.mark.parametrize("mode", ["forward", "forward+backward"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_operator_is_right_on_every_case(case, mode):
    case = dataclasses.replace(case, batch=2, size=min(case.size, 8))
    try:
        operator = layer(case, "operator")
    except Unavailable as reason:
        pytest.skip(str(reason))
    buffers = make_buffers(case, "cpu", torch.float32)
    assert largest_error(operator, buffers, expect(case, buffers, mode)) < 1e-4


def test_some_images_stand_for_the_batch(monkeypatch):
    case = dataclasses.replace(SHAPES["groups"], batch=5)
    monkeypatch.setattr(accuracy, "MAX_MULTIPLY_ADDS", 2 * accuracy.multiply_adds(case) / 5)
    buffers = make_buffers(case, "cpu", torch.float64)
    expected = expect(case, buffers, "forward+backward")
    assert len(expected.y) == 2
    assert largest_error(layer(case, "formula"), buffers, expected) < 1e-12


def test_errors_are_seen_in_output_and_gradients():
    case = SHAPES["3x3/2"]
    buffers = make_buffers(case, "cpu", torch.float64)

    def two_percent_more(x, weight, b):
        return bcos_formula(case, x, weight, b) * 1.02

    def wrong_gradient(x, weight, b):  # the scale as a constant
        y = bcos_formula(case, x, weight, b)
        lin = torch.nn.functional.conv2d(
            x, weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1), None, case.stride, case.padding
        )
        return lin * (y / lin).detach()

    def not_a_number(x, weight, b):
        return bcos_formula(case, x, weight, b) * math.nan

    forward, both = expect(case, buffers, "forward"), expect(case, buffers, "forward+backward")
    assert largest_error(two_percent_more, buffers, forward) == pytest.approx(0.02, rel=1e-6)
    assert largest_error(wrong_gradient, buffers, forward) < 1e-12
    assert largest_error(wrong_gradient, buffers, both) > 0.1
    assert largest_error(not_a_number, buffers, forward) == math.inf
