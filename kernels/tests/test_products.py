"""Layers large enough to be cut into tasks: bands, images together, many panels, blocks of channels, both threads."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from samples import CUDA_ON_CPU, Sample, formula, formula_gradients, operators_of

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in {"AVX2", "AVX512"} or CUDA_ON_CPU,
    reason="no products of our own here, and PyTorch's sum less precisely",
)
LARGE = [
    Sample("bands", 64, 48, (61, 64), 1, padding=(1, 1)),
    Sample("bands, stride", 32, 24, (97, 130), 2, stride=(2, 2), padding=(1, 1)),
    Sample("bands, leftover", 32, 40, (90, 88), 1, (5, 3), (3, 2), (2, 0)),
    Sample("bands, dilation", 48, 33, (70, 60), 1, padding=(2, 3), dilation=(2, 3)),
    Sample("windows in the padding", 24, 20, (40, 50), 3, padding=(3, 4)),
    Sample("padding beyond the window", 64, 48, (64, 22), 1, padding=(8, 8)),
    Sample("pixels in more padding", 20, 16, (32, 32), 1, (1, 1), padding=(20, 9)),
    Sample("half a vector of channels", 16, 16, (21, 19), 3, padding=(1, 1)),
    Sample("half a vector of channels, pointwise, stride", 16, 40, (21, 40), 3, (1, 1), (2, 2)),
    Sample("eight channels", 8, 24, (21, 37), 3, padding=(1, 1)),
    Sample("four channels", 4, 24, (21, 37), 3, padding=(1, 1)),
    Sample("columns between vectors", 20, 32, (32, 32), 4, padding=(1, 1)),
    Sample("stride beyond the window", 32, 16, (45, 44), 3, (2, 2), (3, 4), (0, 1)),
    Sample("images together", 20, 70, (7, 7), 13, padding=(1, 1)),
    Sample("images together, stride", 40, 36, (9, 8), 11, stride=(2, 2), padding=(1, 1)),
    Sample("one output", 17, 1, (30, 31), 2, padding=(1, 1)),
    Sample("rows of a tile in one set of the cache", 512, 72, (9, 5), 2, padding=(1, 1)),
    Sample("long filters", 1024, 40, (11, 6), 3, (1, 1)),
    Sample("pointwise", 96, 130, (23, 31), 2, (1, 1)),
    Sample("pointwise, stride", 64, 96, (40, 30), 2, (1, 1), (2, 2)),
    Sample("odd channels", 35, 31, (40, 30), 2, padding=(1, 1)),
    Sample("stem", 6, 64, (60, 62), 2, (7, 7), (2, 2), (3, 3)),
    Sample("rows", 100, 150, (17, 29), 3, linear=True),
    Sample("few rows", 300, 500, (1, 3), 1, linear=True),
    Sample("max_out", 40, 37, (33, 31), 2, padding=(1, 1), max_out=2),
    Sample("max_out rows", 40, 96, (33, 31), 2, max_out=2, linear=True),
    Sample("b = 1.25", 32, 40, (33, 31), 2, padding=(1, 1), b=1.25),
    Sample("b = 3", 32, 40, (33, 31), 2, padding=(1, 1), b=3),
    Sample("trainable b", 32, 40, (33, 31), 2, padding=(1, 1), b=2.1, exponent=(40,)),
    Sample("trainable b of bands", 64, 48, (61, 64), 1, padding=(1, 1), b=2.1, exponent=()),
    Sample("trainable b, max_out", 40, 33, (20, 31), 2, max_out=2, b=2.1, exponent=(33,), linear=True),
    Sample("depthwise", 40, 40, (30, 29), 2, (7, 7), padding=(3, 3), groups=40),
    Sample("depthwise, one vector", 16, 16, (12, 9), 3, (3, 3), groups=16),
    Sample("depthwise, stride", 33, 33, (31, 28), 2, stride=(2, 2), padding=(1, 1), groups=33),
    Sample("depthwise, leftover", 24, 24, (20, 21), 2, (2, 5), (3, 2), (0, 1), groups=24),
    Sample("depthwise, dilation", 24, 24, (20, 21), 2, (5, 3), (1, 2), (4, 2), (2, 3), groups=24),
    Sample("depthwise, padding beyond the window", 17, 17, (9, 8), 3, padding=(4, 5), groups=17),
    Sample("depthwise, two elements", 20, 20, (9, 8), 3, (1, 2), groups=20),
    Sample("depthwise, one place", 70, 70, (7, 7), 5, (7, 7), groups=70),
    Sample("depthwise, b = 1.25", 33, 33, (15, 14), 2, (5, 5), padding=(2, 2), groups=33, b=1.25),
    Sample("depthwise, trainable b", 33, 33, (15, 14), 2, (5, 5), padding=(2, 2), groups=33, b=2.1, exponent=(33,)),
    Sample("depthwise, one trainable b", 24, 24, (15, 14), 2, padding=(1, 1), groups=24, b=2.1, exponent=()),
    *(Sample(f"groups of {n}", 48, 48, (15, 14), 3, padding=(1, 1), groups=48 // n) for n in (2, 3, 4, 8, 16)),
    Sample("groups of 4, leftover", 20, 20, (20, 21), 2, (2, 5), (3, 2), (0, 1), groups=5),
    Sample("groups of 4, dilation", 24, 24, (20, 21), 2, (5, 3), (1, 2), (4, 2), (2, 3), groups=6),
    Sample("groups of 2, five elements", 18, 18, (9, 8), 3, (2, 5), groups=9),
    Sample("groups of 2, six elements", 18, 18, (9, 8), 3, (2, 6), groups=9),
    Sample("groups of 2, seven elements", 18, 18, (9, 8), 3, (1, 7), groups=9),
    Sample("groups of 8, b = 1.25", 40, 40, (15, 14), 2, padding=(1, 1), groups=5, b=1.25),
    Sample("groups of 16, trainable b", 48, 48, (15, 14), 2, padding=(1, 1), groups=3, b=2.1, exponent=(48,)),
    Sample("groups of 4, one trainable b", 36, 36, (15, 14), 2, padding=(1, 1), groups=9, b=2.1, exponent=()),
    Sample("groups of 32", 64, 64, (9, 8), 2, padding=(1, 1), groups=2),
    Sample("groups of 48, bands", 96, 144, (61, 64), 1, padding=(1, 1), groups=2),
    Sample("groups of 17", 51, 51, (15, 14), 3, padding=(1, 1), groups=3),
    Sample("groups of 18, images together", 54, 60, (7, 7), 9, padding=(1, 1), stride=(2, 1), groups=3),
    Sample("groups of 20, pointwise", 60, 96, (15, 14), 3, (1, 1), groups=3),
    Sample("groups of 20, pointwise, stride", 60, 96, (15, 14), 3, (1, 1), (2, 2), groups=3),
    Sample("groups of 64 far apart", 1024, 1024, (9, 8), 2, padding=(1, 1), groups=16),
    Sample("groups of 32, dilation", 64, 96, (20, 21), 2, (5, 3), (1, 2), (4, 2), (2, 3), groups=2),
    Sample("groups of 20, max_out", 40, 40, (15, 14), 2, padding=(1, 1), groups=2, max_out=2),
    Sample("groups of 24, b = 1.25", 48, 48, (15, 14), 2, padding=(1, 1), groups=2, b=1.25),
    Sample(
        "groups of 24, trainable b, max_out",
        48,
        40,
        (15, 14),
        2,
        padding=(1, 1),
        groups=2,
        max_out=2,
        b=2.1,
        exponent=(40,),
    ),
    Sample("groups of 24, one trainable b", 48, 40, (15, 14), 2, padding=(1, 1), groups=2, b=2.1, exponent=()),
    Sample("groups of 4, two filters", 32, 16, (9, 8), 2, padding=(1, 1), groups=8),
]
BANDS = next(s for s in LARGE if s.name == "bands")
POINTWISE = next(s for s in LARGE if s.name == "pointwise")
DEPTHWISE = next(s for s in LARGE if s.name == "depthwise")
GROUPED = next(s for s in LARGE if s.name == "groups of 4")
WIDE_GROUPS = next(s for s in LARGE if s.name == "groups of 48, bands")
LONG = 250
"""Products in a sum, beyond which float32's rounding of it passes 2e-6: it grows with the root of their number."""


@pytest.fixture(params=[1, 2], ids=["one-thread", "two-threads"])
def threads(request):
    torch.set_num_threads(request.param)  # `one_thread` puts back what was
    return request.param


@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("large", LARGE, ids=lambda s: s.name)
def test_against_the_formula(large, dtype, detach, threads, assert_close):
    sample, operators = large, operators_of("cpu")
    x, weight, exponent, grad = sample.tensors(dtype, "channels_last")
    saved = operators.forward(sample, x, weight, exponent, detach)
    y, norm = formula(x, weight, exponent, sample)
    if dtype == torch.float32 and weight[0].numel() > LONG:
        room = 2e-6 * (weight[0].numel() / LONG) ** 0.5
        assert (saved[0] - y).abs().max() <= room * y.abs().max()
    else:
        assert_close(saved[0], y, dtype)
    assert_close(saved[1], norm, torch.float32)
    found = operators.backward(sample, grad, x, weight, exponent, saved, detach)
    expected = formula_gradients(x, weight, exponent, grad, sample, detach)
    for actual, value in zip(found[:2], expected, strict=False):
        assert_close(actual, value, sums=True, rounded=dtype, steep=sample.is_steep)
    if exponent is not None:  # a sum over all positions of terms that cancel
        room = 1e-6 if dtype == torch.float32 else 4e-3
        assert (found[2] - expected[2]).abs().max() <= room * (grad.numel() ** 0.5 + expected[2].abs().max())


@pytest.mark.parametrize("large", [BANDS, DEPTHWISE, GROUPED, WIDE_GROUPS], ids=lambda s: s.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_threads_change_no_output(large, dtype):
    """The tasks differ, the order of each sum does not; gradients of filters are summed for each thread."""
    sample = large
    x, weight, _, grad = sample.tensors(dtype, "channels_last")
    operators = operators_of("cpu")
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        saved = operators.forward(sample, x, weight, None)
        results.append([*saved[:2], operators.backward(sample, grad, x, weight, None, saved)[0]])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("large", [BANDS, POINTWISE, DEPTHWISE, GROUPED, WIDE_GROUPS], ids=lambda s: s.name)
def test_float32_filters_beside_bfloat16(large, assert_close):
    """They are rounded to it, their gradient is not."""
    sample, operators = large, operators_of("cpu")
    x, weight, exponent, grad = sample.tensors(torch.bfloat16, "channels_last", weight_dtype=torch.float32)
    rounded = weight.bfloat16().float()
    saved = operators.forward(sample, x, weight, exponent)
    assert_close(saved[0], formula(x, rounded, exponent, sample)[0], torch.bfloat16)
    found = operators.backward(sample, grad, x, weight, exponent, saved)
    expected = formula_gradients(x, rounded, exponent, grad, sample)
    assert found[1].dtype == torch.float32
    assert_close(found[0], expected[0], torch.bfloat16, sums=True)
    assert_close(found[1], expected[1], torch.float32, sums=True, rounded=torch.bfloat16)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0], ids=str)
@pytest.mark.parametrize("b", [2, 1.25])
@pytest.mark.parametrize("large", [BANDS, POINTWISE, DEPTHWISE, GROUPED, WIDE_GROUPS], ids=lambda s: s.name)
def test_values_beyond_the_ordinary(large, b, value):
    """What one pixel holds shows where the formula shows it, and nowhere else; zeros are zero and finite."""
    sample = replace(large, b=b)
    x, weight, _, grad = sample.tensors(torch.float32, "channels_last")
    x[:, :, 3, 4] = value
    weight[5] = 0
    operators = operators_of("cpu")
    saved = operators.forward(sample, x, weight, None)
    y, _ = formula(x, weight, None, sample)
    assert torch.equal(saved[0].isfinite(), y.float().isfinite())
    assert not saved[0][:, 5][y[:, 5].isfinite()].any()
    found = operators.backward(sample, grad, x, weight, None, saved)
    if value == 0:
        assert all(g.isfinite().all() for g in found)
        assert not found[1][5].any()


@pytest.mark.parametrize("layer", ["linear", "depthwise"])
@pytest.mark.parametrize("kind", ["every cosine", "none small"])
def test_each_power_of_each_cosine(layer, kind):
    """Element by element: a small cosine's y and gradients are (nearly) as precise as a large one's.

    Rows (c, sqrt(1 - c^2), 0...) and filters (1 or -1, 0...) have the cosine c or -c; 35 outputs have a B each. A
    vector whose cosines are all above 1e-4 goes another way.
    """
    outputs, rows = 35, 1000
    exponent = torch.linspace(1, 5, outputs)
    sign = torch.tensor([1.0, -1.0]).repeat(outputs)[:outputs]  # grad has it too: no sum's terms cancel
    cosine = torch.logspace(-3 if kind == "none small" else -7, 0, rows, dtype=torch.float64)
    pairs = torch.stack([cosine, (1 - cosine.square()).sqrt()], 1).float()
    if layer == "linear":
        sample = Sample("powers", 16, outputs, (1, rows), 1, linear=True, b=3, exponent=(outputs,))
        x, grad = F.pad(pairs, (0, 14)), sign.expand(rows, outputs)
    else:  # two pixels under a filter of two elements
        sample = Sample("powers", outputs, outputs, (rows, 2), 1, (1, 2), groups=outputs, b=3, exponent=(outputs,))
        x, grad = pairs.expand(1, outputs, rows, 2), sign.view(1, outputs, 1, 1).expand(1, outputs, rows, 1)
        x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    weight = torch.zeros(outputs, math.prod(sample.weight_shape[1:]))
    weight[:, 0] = sign
    tensors = x.reshape(sample.x_shape) if layer == "linear" else x, weight.reshape(sample.weight_shape), exponent
    grad = grad.reshape(sample.y_shape) if layer == "linear" else grad
    operators = operators_of("cpu")
    saved = operators.forward(sample, *tensors)
    expected = formula(*tensors, sample)[0]
    assert ((saved[0] - expected) / expected).abs().max() <= 1e-6
    found = operators.backward(sample, grad, *tensors, saved)
    expected = formula_gradients(*tensors, grad, sample)
    there = expected[0] != 0
    room = 2e-6 if kind == "none small" else 2e-5  # where c is below the offset, for B = 5: y is 1e-30
    assert ((found[0] - expected[0])[there] / expected[0][there]).abs().max() <= room
    for actual, value in zip(found[1:], expected[1:], strict=True):  # sums over the rows
        assert (actual - value).abs().max() <= 2e-6 * value.abs().max()


@pytest.mark.parametrize("group", [1, 4])
def test_a_filters_gradient_over_many_places(group):
    """Summed in one go over a hundred thousand places, float32 is off by some 1e-5."""
    sample = Sample("many places", 32, 32, (112, 112), 8, padding=(1, 1), groups=32 // group)
    x, weight, _, grad = sample.tensors(torch.float32, "channels_last")
    x = (x.abs() + 1).contiguous(memory_format=torch.channels_last)  # no term cancels another
    grad = (grad.abs() + 1).contiguous(memory_format=torch.channels_last)
    operators = operators_of("cpu")
    found = operators.backward(sample, grad, x, weight, None, operators.forward(sample, x, weight, None))[1]
    expected = formula_gradients(x, weight, None, grad, sample)[1]
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_one_column_with_strides_of_its_own(assert_close):
    """(N, L, C) seen as (N, C, L, 1) is dense and channels-last but for the stride of an axis of size 1."""
    sample = Sample("sequence", 16, 32, (50, 1), 2, (3, 1), padding=(1, 0))
    _, weight, _, grad = sample.tensors(torch.float32)
    x = torch.randn(2, 50, 16, generator=torch.Generator().manual_seed(0)).transpose(1, 2).unsqueeze(-1)
    operators = operators_of("cpu")
    saved = operators.forward(sample, x, weight, None)
    assert_close(saved[0], formula(x, weight, None, sample)[0])
    found = operators.backward(sample, grad, x, weight, None, saved)
    for actual, value in zip(found, formula_gradients(x, weight, None, grad, sample), strict=False):
        assert_close(actual, value, sums=True)


def test_what_one_filter_says_of_no_number_stays_its_own():
    sample = Sample("edges between vectors", 20, 16, (12, 12), 2, padding=(1, 1))
    x, weight, _, grad = sample.tensors(torch.float32, "channels_last")
    grad[0, 3, 4, 5] = float("nan")
    operators = operators_of("cpu")
    saved = operators.forward(sample, x, weight, None)
    finite = operators.backward(sample, grad, x, weight, None, saved)[1].isfinite().flatten(1).all(1)
    assert finite.tolist() == [f != 3 for f in range(16)]


@pytest.mark.parametrize("length", [1e-30, 1e-39, 1e30], ids=str)
def test_bfloat16_filters_of_any_length(length, assert_close):
    sample = Sample("lengths", 32, 40, (9, 8), 2, padding=(1, 1))
    x, weight, _, _ = sample.tensors(torch.bfloat16, "channels_last")
    weight = (weight.float() * length).bfloat16()
    x = (x.float() * (1e9 if length > 1 else 1e-3)).bfloat16()
    saved = operators_of("cpu").forward(sample, x, weight, None)
    assert_close(saved[0], formula(x, weight, None, sample)[0], torch.bfloat16)


def test_a_pair_may_begin_anywhere(assert_close):
    sample = Sample("offset", 8, 12, (6, 5), 2, padding=(1, 1))
    x, weight, _, _ = sample.tensors(torch.bfloat16)
    memory = torch.empty(1 + x.numel(), dtype=torch.bfloat16)
    shifted = memory[1:].view(2, 6, 5, 8).permute(0, 3, 1, 2).copy_(x)
    saved = operators_of("cpu").forward(sample, shifted, weight, None)
    assert_close(saved[0], formula(x, weight, None, sample)[0], torch.bfloat16)


def test_other_layouts_of_gradients(assert_close):
    """Backward answers for whatever layout the next layer sends."""
    sample = replace(POINTWISE, name="layouts")
    operators = operators_of("cpu")
    x, weight, _, grad = sample.tensors(torch.float32, "channels_last")
    saved = operators.forward(sample, x, weight, None)
    expected = operators.backward(sample, grad, x, weight, None, saved)
    for other in (grad.contiguous(), grad.repeat_interleave(2, dim=3)[..., ::2]):
        found = operators.backward(sample, other, x, weight, None, saved)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
