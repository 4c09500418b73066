"""The layers' operators, compiled or not, against the formula written out over patches in float64."""

import math
import re
from dataclasses import replace

import bcos_kernels
import pytest
import torch
from bcos_kernels import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import (
    CUDA_ON_CPU,
    EPS,
    OPERATORS,
    PACKS,
    SAMPLES,
    Sample,
    formula,
    formula_gradients,
    operators_of,
    shifted,
)

HALVES = (torch.bfloat16, torch.float16)
CPU = operators_of("cpu")
detached = pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])


def layer(sample: Sample, x, weight, exponent=None, detach=False):
    """The public function."""
    b = sample.b if exponent is None else exponent
    options = {"b": b, "max_out": sample.max_out, "detach": detach}
    if sample.linear:
        return bcos_kernels.linear(x, weight, **options)
    window = dict(zip(("stride", "padding", "dilation", "groups"), sample.window, strict=True))
    return bcos_kernels.conv2d(x, weight, **window, **options)


def on_cpu(*tensors):
    return [t if t is None else t.detach().cpu() for t in tensors]


def test_forward(sample, combination, implementation, assert_close):
    dtype, layout = combination
    x, weight, exponent, _ = sample.tensors(dtype, layout, implementation.device)
    y, norm, winner = implementation.forward(sample, x, weight, exponent)
    expected_y, expected_norm = formula(*on_cpu(x, weight, exponent), sample)
    assert_close(y, expected_y, dtype)
    if exponent is None and sample.b == 1:
        assert norm.shape == (0,)
    else:
        assert_close(norm, expected_norm, torch.float64 if dtype == torch.float64 else torch.float32)
    assert winner.shape == (sample.y_shape if sample.max_out > 1 else (0,))
    assert winner.dtype == torch.uint8


@detached
def test_backward(sample, combination, implementation, detach, assert_close):
    dtype, layout = combination
    x, weight, exponent, grad = sample.tensors(dtype, layout, implementation.device)
    saved = implementation.forward(sample, x, weight, exponent, detach)
    winner = saved[2].cpu() if dtype in HALVES else None
    expected = formula_gradients(*on_cpu(x, weight, exponent, grad), sample, detach, winner)
    found = implementation.backward(sample, grad, x, weight, exponent, saved, detach)
    for actual, value in zip(found, expected, strict=False):
        assert_close(actual, value, sums=True, rounded=dtype, steep=sample.is_steep)
    assert exponent is not None or found[2].shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("odd", ["x", "grad", "y", "norm"])
def test_tensors_that_begin_anywhere(implementation, dtype, layout, odd):
    x, weight, exponent, grad = PACKS.tensors(dtype, layout, implementation.device)
    saved = implementation.forward(PACKS, x, weight, exponent)
    expected = [*saved, *implementation.backward(PACKS, grad, x, weight, exponent, saved)]
    x, grad = shifted(x) if odd == "x" else x, shifted(grad) if odd == "grad" else grad
    found = implementation.forward(PACKS, x, weight, exponent)
    kept = [shifted(t) if name == odd else t for name, t in zip(("y", "norm", "winner"), found, strict=True)]
    found = [*found, *implementation.backward(PACKS, grad, x, weight, exponent, kept)]
    for actual, value in zip(found, expected, strict=True):
        assert actual.shape == value.shape
        room = (1e-5 if dtype == torch.float32 else 2e-2) * value.abs().amax() if value.numel() else 0
        assert not value.numel() or (actual - value).abs().amax() <= room


def test_only_what_is_needed(sample, implementation):
    x, weight, exponent, grad = sample.tensors(torch.float32, "channels_last", implementation.device)
    saved = implementation.forward(sample, x, weight, exponent)
    everything = implementation.backward(sample, grad, x, weight, exponent, saved)
    for i in range(3):
        needs = [j == i for j in range(3)]
        found = implementation.backward(sample, grad, x, weight, exponent, saved, False, needs)
        for j, gradient in enumerate(found):
            if j == i:
                torch.testing.assert_close(gradient, everything[i])
            else:
                assert gradient.shape == (0,)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_float32_weights_with_half_precision_inputs(sample, dtype, implementation, assert_close):
    """What autocast does: bfloat16 has the filters rounded to it (a GPU: those of norm one); gradients are float32."""
    device = implementation.device
    x, weight, exponent, grad = sample.tensors(dtype, "channels_last", device, weight_dtype=torch.float32)
    on_gpu = implementation.kernels == "CUDA"
    rounded = weight.bfloat16().float() if dtype == torch.bfloat16 and not on_gpu else weight
    saved = implementation.forward(sample, x, weight, exponent)
    assert_close(saved[0], formula(*on_cpu(x, rounded, exponent), sample)[0], dtype)
    found = implementation.backward(sample, grad, x, weight, exponent, saved)
    expected = formula_gradients(*on_cpu(x, rounded, exponent, grad), sample, winner=saved[2].cpu())
    assert found[1].dtype == torch.float32
    assert_close(found[0], expected[0], dtype, sums=True, steep=sample.is_steep)
    assert_close(found[1], expected[1], torch.float32, sums=True, rounded=dtype, steep=sample.is_steep)


@detached
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_autograd(sample, device, layout, detach, assert_close):
    x, weight, exponent, grad = sample.tensors(torch.float64, layout, device)
    leaves = [t.requires_grad_() for t in (x, weight, exponent) if t is not None]
    y = layer(sample, x, weight, exponent, detach)
    found = torch.autograd.grad(y, leaves, grad)
    expected = formula_gradients(*on_cpu(x, weight, exponent, grad), sample, detach)
    for actual, value in zip(found, expected, strict=True):
        assert_close(actual, value)


def test_grad_of_another_layout(sample, device, assert_close):
    """What the next layer sends back need not have our layout: channels-last against contiguous, and expanded."""
    x, weight, exponent, _ = sample.tensors(torch.float32, "channels_last", device)
    operators = replace(CPU, device=device)
    saved = operators.forward(sample, x, weight, exponent)
    for grad in (sample.tensors(torch.float32, "contiguous", device)[3], x.new_ones(()).expand(sample.y_shape)):
        found = operators.backward(sample, grad, x, weight, exponent, saved)
        expected = formula_gradients(*on_cpu(x, weight, exponent, grad), sample)
        for actual, value in zip(found, expected, strict=False):
            assert_close(actual, value, steep=sample.is_steep)


SIDES = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def calls(draw):
    """Any layer at all: dense, grouped or depthwise, or linear; widths beside and beyond the vectors' lengths."""
    linear, groups = draw(st.booleans()), 1
    widths = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    if not linear and draw(st.integers(0, 2)) == 0:
        groups = draw(st.integers(1, 6))
        widths = (groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 5)))
    kernel_size, dilation = draw(SIDES), draw(SIDES)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel_size, dilation, padding, strict=True)]
    exponent = draw(st.sampled_from([None, None, (), (widths[1],)]))
    sample = Sample(
        name="x" * draw(st.integers(0, 30)),
        channels=widths[0],
        out_channels=widths[1],
        size=tuple(n + draw(st.integers(0, 8)) for n in least),
        batch=draw(st.integers(1, 4)),
        kernel_size=kernel_size,
        stride=draw(SIDES),
        padding=padding,
        dilation=dilation,
        groups=groups,
        b=draw(st.sampled_from([1, 1.25, 1.5, 2, 2, 2.5, 4])),
        exponent=exponent,
        max_out=draw(st.sampled_from([1, 1, 2, 3])),
        linear=linear,
    )
    if math.prod(sample.weight_shape[1:]) == 1:  # directions 1 and -1 alone: equal responses
        sample = replace(sample, max_out=1)
    dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    return sample, dtype, draw(st.sampled_from(["contiguous", "channels_last", "crop"])), draw(st.booleans())


@given(calls())
@settings(max_examples=600, deadline=None, derandomize=True, database=None)
def test_random_layers(call):
    sample, dtype, layout, detach = call
    if dtype == torch.float16 and sample.is_steep:  # what y loses below 6e-8 the cosine's small powers show
        dtype = torch.bfloat16
    x, weight, exponent, grad = sample.tensors(dtype, layout)
    saved = CPU.forward(sample, x, weight, exponent, detach)
    found = [saved[0], *CPU.backward(sample, grad, x, weight, exponent, saved, detach)]
    expected = [formula(x, weight, exponent, sample)[0]]
    expected += formula_gradients(x, weight, exponent, grad, sample, detach, saved[2] if dtype in HALVES else None)
    rounding = torch.finfo(dtype).eps if dtype in HALVES else {torch.float32: 2e-6, torch.float64: 1e-12}[dtype]
    if dtype in HALVES and CUDA_ON_CPU:  # filters and responses are rounded too, and y is a response to the power of B
        rounding *= 1 + sample.b
    steep = 100 if sample.is_steep and dtype != torch.float64 else 1  # see assert_close
    for i, (actual, value) in enumerate(zip(found, expected, strict=False)):
        # Inputs and gradients are about 1: a gradient may be a sum of such terms that cancel, B's of all of them, and a
        # filter's is divided by its norm.
        shortest = weight.double().flatten(1).norm(dim=1).min()
        room = value.abs().max() + (0, 1, 1 + 1 / shortest, 1 + 0.2 * grad.numel() ** 0.5)[i]
        assert (actual.double() - value).abs().max() <= rounding * room * (steep if i else 1) + (dtype in HALVES) * 6e-8


def test_fake_has_the_layout_of_the_real_one(sample, combination, device):
    from torch._subclasses.fake_tensor import FakeTensorMode

    tensors = sample.tensors(*combination, device)
    operators = replace(CPU, device=device)

    def call(x, weight, exponent, grad):
        saved = operators.forward(sample, x, weight, exponent)
        gradients = (operators.backward(sample, grad, x, weight, exponent, saved, d) for d in (False, True))
        return [*saved, *next(gradients), *next(gradients)]

    real = call(*tensors)
    with FakeTensorMode() as mode:
        fake = call(*(t if t is None else mode.from_tensor(t) for t in tensors))
    for actual, expected in zip(real, fake, strict=True):
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        if actual.numel():  # torch's own empty_like differs from its fake in the strides of nothing
            assert actual.stride() == expected.stride()


# opcheck reads .grad of every output, y included
IGNORE_GRAD_OF_Y = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning"
)


@IGNORE_GRAD_OF_Y
def test_registration_passes_opcheck(sample, device):
    x, weight, exponent, grad = sample.tensors(torch.float64, "channels_last", device)
    options = (sample.b, *(() if sample.linear else sample.window), sample.max_out, False)
    saved = replace(CPU, device=device).forward(sample, x, weight, exponent)
    name = "linear" if sample.linear else "conv2d"
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    backward = getattr(OPERATORS, f"{name}_backward").default
    torch.library.opcheck(backward, (grad, x, weight, exponent, *saved, *options, True, True, True), test_utils=checks)
    leaves = [t if t is None else t.requires_grad_() for t in (x, weight, exponent)]
    torch.library.opcheck(getattr(OPERATORS, name).default, (*leaves, *options, EPS), test_utils=checks)


@IGNORE_GRAD_OF_Y
@detached
def test_dynamic_shapes_pass_opcheck(device, detach):
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64, device=device, requires_grad=True)
    weight = torch.randn(6, 2, 3, 3, dtype=torch.float64, device=device, requires_grad=True)
    window = ((1, 1), (1, 1), (1, 1), 2)
    torch.library.opcheck(OPERATORS.conv2d.default, (x, weight, None, 1.5, *window, 1, detach, EPS))
    rows, units = x.detach()[..., :4].requires_grad_(), weight.detach()[:, 0, 0, :1].repeat(1, 4).requires_grad_()
    torch.library.opcheck(OPERATORS.linear.default, (rows, units, None, 1.5, 1, detach, EPS))


def positive(generator, *shape):
    """Away from zero, where |l|^(b-1) has no second derivative."""
    return (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.3).requires_grad_()


@pytest.mark.parametrize("b", [1, 1.5, 2, 3, "tensor"])
@pytest.mark.parametrize("kind", ["conv2d", "linear", "max_out"])
def test_gradcheck_and_gradgradcheck(device, b, kind):
    generator = torch.Generator().manual_seed(0)
    max_out = 2 if kind == "max_out" else 1
    sample = Sample("", 4, 4, (3, 3), 1, (2, 2), (2, 1), (0, 0), groups=2, max_out=max_out, linear=kind == "linear")
    sample = replace(sample, groups=1) if sample.linear else sample
    x, weight = (positive(generator, *shape).to(device) for shape in (sample.x_shape, sample.weight_shape))
    inputs = [x.detach().requires_grad_(), weight.detach().requires_grad_()]
    if b == "tensor":
        inputs.append((positive(generator, 4) + 1).detach().to(device).requires_grad_())
    else:
        sample = replace(sample, b=b)
    assert torch.autograd.gradcheck(lambda *leaves: layer(sample, *leaves), inputs)
    assert torch.autograd.gradgradcheck(lambda *leaves: layer(sample, *leaves), inputs)


def test_detached_factor_stays_constant_in_the_second_derivative(device):
    """y = W(x) x with W(x) constant: the gradient of x is W(x) v, which does not depend on x any more."""
    x = torch.randn(2, 4, 5, 5, device=device, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 4, 3, 3, device=device, dtype=torch.float64)
    y = bcos_kernels.conv2d(x, weight, padding=(1, 1), detach=True)
    v = torch.ones_like(y, requires_grad=True)
    (first,) = torch.autograd.grad(y, x, v, create_graph=True)
    torch.testing.assert_close((first * x).sum(), y.sum())
    assert torch.autograd.grad(first.sum(), x, allow_unused=True, retain_graph=True)[0] is None
    (back,) = torch.autograd.grad((first * x.detach()).sum(), v)
    torch.testing.assert_close(back, y.detach())


def test_keeps_only_input_filters_response_and_norm(sample, device):
    x, weight, exponent, _ = sample.tensors(torch.float32, "channels_last", device)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = layer(sample, x, weight, exponent)
    numbers = {t.data_ptr(): t.numel() * t.element_size() for t in kept if t.numel()}
    norm = sample.batch * sample.groups * math.prod(sample.out_size) if not sample.linear else y[..., 0].numel()
    scaled = exponent is not None or sample.b != 1
    allowed = 4 * (x.numel() + weight.numel() + (y.numel() + norm if scaled else 0))
    allowed += 0 if exponent is None else 4 * exponent.numel()
    allowed += y.numel() if sample.max_out > 1 else 0
    assert sum(numbers.values()) <= allowed


@pytest.mark.parametrize("which", ["x", "weight", "y"])
def test_what_backward_needs_may_not_be_changed_in_place(which):
    x, weight = torch.randn(1, 4, 5, 5), torch.randn(6, 4, 3, 3, requires_grad=True)
    y = bcos_kernels.conv2d(x, weight)
    with torch.no_grad():
        {"x": x, "weight": weight, "y": y}[which].relu_()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_autocast_shortens_the_input_alone(sample, device, dtype):
    if device == "cpu" and dtype == torch.float16:
        pytest.skip("one short dtype is enough for the CPU's autocast")
    x, weight, exponent, _ = sample.tensors(torch.float32, "channels_last", device)
    weight.requires_grad_()
    with torch.autocast(device, dtype):
        y = layer(sample, x, weight, exponent)
    expected = layer(sample, x.to(dtype), weight, exponent)
    assert y.dtype == dtype
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(y.sum(), weight)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), weight)[0], rtol=0, atol=0)
    with torch.autocast(device, dtype):
        assert layer(sample, x.double(), weight.double(), exponent).dtype == torch.float64


FEW = [s for s in SAMPLES if s.batch and 0 not in s.size and ("3x3" in s.name or "groups" in s.name or s.linear)]


@pytest.mark.parametrize("few", FEW, ids=lambda s: s.name)
@pytest.mark.parametrize("over", [(0, None), (None, 0), (0, 0)], ids=str)
def test_vmap(few, over):
    x, weight, exponent, _ = few.tensors()
    x, weight = (t if d is None else torch.stack([t, t.flip(0) * 2]) for t, d in zip((x, weight), over, strict=True))
    found = torch.vmap(lambda x, w: layer(few, x, w, exponent), over)(x, weight)
    for i in range(2):
        one = [t if d is None else t[i] for t, d in zip((x, weight), over, strict=True)]
        torch.testing.assert_close(found[i], layer(few, *one, exponent))


@pytest.mark.parametrize("few", FEW, ids=lambda s: s.name)
def test_gradients_per_example(few):
    x, weight, exponent, _ = few.tensors()

    def loss(weight, x):
        return layer(replace(few, batch=1), x[None], weight, exponent).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(weight, x)
    for i in range(len(x)):
        leaf = weight.clone().requires_grad_()
        torch.testing.assert_close(found[i], torch.autograd.grad(loss(leaf, x[i]), leaf)[0])


@detached
@pytest.mark.parametrize("kind", ["conv2d", "linear"])
def test_compiles_without_graph_breaks(device, detach, kind):
    sample = Sample("", 4, 6, padding=(1, 1), groups=2, b=1.5) if kind == "conv2d" else Sample("", 4, 6, linear=True)

    def call(x, weight):
        return layer(sample, x * 2, weight, detach=detach).square().sum()

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (2, 3):
        x, weight, _, _ = replace(sample, batch=batch).tensors(torch.float32, device=device)
        results = []
        for function in (call, compiled):
            leaves = [t.clone().requires_grad_() for t in (x, weight)]
            results.append((function(*leaves), *torch.autograd.grad(function(*leaves), leaves)))
        for eager, value in zip(*results, strict=True):
            torch.testing.assert_close(value, eager)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["x", "weight", "grad"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("b", [1, 1.5, 2])
def test_not_finite_values_propagate_as_in_the_formula(implementation, value, where, layout, b):
    sample = Sample("", 4, 8, (6, 5), groups=2, b=b)  # a convolution does not multiply by its padding
    x, weight, _, grad = sample.tensors(torch.float32, layout, implementation.device)
    {"x": x, "weight": weight, "grad": grad}[where][1, 1, 2, 2] = value
    saved = implementation.forward(sample, x, weight, None)
    y, norm = formula(*on_cpu(x, weight), None, sample)
    for actual, expected in zip(saved[: 1 if b == 1 else 2], (y, norm), strict=False):
        assert torch.equal(actual.isfinite().cpu(), expected.isfinite())
        assert torch.equal(actual.isnan().cpu(), expected.isnan())
    found = implementation.backward(sample, grad, x, weight, None, saved)
    expected = formula_gradients(*on_cpu(x, weight, None, grad), sample)
    for actual, wanted in zip(found, expected, strict=False):  # what is not finite must not come out finite
        assert not (actual.isfinite().cpu() & ~wanted.isfinite()).any()
        if where == "grad":
            assert torch.equal(actual.isfinite().cpu(), wanted.isfinite())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("which", ["x", "weight", "both"])
def test_zeros_give_zero_and_finite_gradients(sample, dtype, which, implementation):
    x, weight, exponent, grad = sample.tensors(dtype, "channels_last", implementation.device)
    for name, tensor in (("x", x), ("weight", weight)):
        if which in (name, "both"):
            tensor.zero_()
    saved = implementation.forward(sample, x, weight, exponent)
    assert not saved[0].any()
    for detach in (False, True):
        found = implementation.backward(sample, grad, x, weight, exponent, saved, detach)
        assert all(t.isfinite().all() for t in found)
        assert which == "x" or not found[1].any()


def test_a_filter_of_zeros_leaves_the_others_alone(implementation, assert_close):
    sample = Sample("", padding=(1, 1))
    x, weight, _, grad = sample.tensors(torch.float64, device=implementation.device)
    weight[3] = 0
    saved = implementation.forward(sample, x, weight, None)
    assert not saved[0][:, 3].any()
    found = implementation.backward(sample, grad, x, weight, None, saved)
    expected = formula_gradients(*on_cpu(x, weight, None, grad), sample)
    rest = [i for i in range(8) if i != 3]
    assert_close(found[1][rest], expected[1][rest])
    assert not found[1][3].any()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_norms_of_filters_neither_overflow_nor_underflow(implementation, size, assert_close):
    sample = Sample("", padding=(1, 1))
    x, weight, _, _ = sample.tensors(torch.float32, device=implementation.device)
    expected = formula(*on_cpu(x, weight), None, sample)[0]
    assert_close(implementation.forward(sample, x, weight * size, None)[0], expected)


@pytest.mark.parametrize("b", [1.01, 1.25, 1.5, 2.5, 4, 8])
def test_cosines_of_all_sizes_are_recovered(implementation, b):
    """A response of cosine c, from 1 down to far below the offset: dL/dl from y and n alone."""
    cosines = torch.logspace(0, -9, 400)
    x = torch.stack([cosines, (1 - cosines.double().square()).clamp(min=0).sqrt().float()], 1)
    weight = torch.tensor([[1.0, 0.0]])
    sample = Sample("", 2, 1, (1, 1), len(x), b=b, linear=True)
    x, grad = x.view(sample.x_shape), torch.ones(sample.y_shape)
    expected = formula_gradients(x, weight, None, grad, sample)[0]
    x, weight, grad = (t.to(implementation.device) for t in (x, weight, grad))
    saved = implementation.forward(sample, x, weight, None)
    found = implementation.backward(sample, grad, x, weight, None, saved)[0].cpu()
    largest = expected[..., 0].abs()
    relative = ((found - expected)[..., 0].abs() / largest).flatten()
    normal = saved[0].cpu().flatten().abs() > 1e-36  # below that float32 has fewer digits of y itself
    # a GPU's logarithms, divisions and powers of two may err by 2 ulp each: for B = 8 that adds up to 4.3e-5
    assert relative[normal].max() < (2e-5 if implementation.device == "cpu" else 5e-5)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kind", ["contiguous", "channels_last", "expanded", "every second"])
def test_gradients_of_any_layout(implementation, layout, kind, assert_close):
    """Global average pooling, a sum and a slice behind the layer send gradients of other layouts than y's."""
    x, weight, exponent, grad = PACKS.tensors(torch.float32, layout, implementation.device)
    other = {
        "contiguous": grad.contiguous(),
        "channels_last": grad.contiguous(memory_format=torch.channels_last),
        "expanded": grad[:, :, :1, :1].expand_as(grad),
        "every second": grad.repeat_interleave(2, dim=3)[..., ::2],
    }[kind]
    saved = implementation.forward(PACKS, x, weight, exponent)
    found = implementation.backward(PACKS, other, x, weight, exponent, saved)
    expected = formula_gradients(*on_cpu(x, weight, exponent, other), PACKS)
    for actual, value in zip(found, expected, strict=False):
        assert_close(actual, value, sums=True)


def test_repeats_bit_for_bit(device):
    sample = Sample("", 64, 64, (17, 13), 4, padding=(1, 1))
    x, weight, _, grad = sample.tensors(torch.float32, "channels_last", device)
    operators = replace(CPU, device=device)

    def call():
        saved = operators.forward(sample, x, weight, None)
        return [*saved, *operators.backward(sample, grad, x, weight, None, saved)]

    first = call()
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, call(), strict=True))


def test_inputs_stay_as_they_were(sample, device):
    tensors = sample.tensors(torch.float32, "channels_last", device)
    copies = [t if t is None else t.clone() for t in tensors]
    x, weight, exponent, grad = tensors
    operators = replace(CPU, device=device)
    saved = operators.forward(sample, x, weight, exponent)
    kept = [t.clone() for t in saved]
    operators.backward(sample, grad, x, weight, exponent, saved)
    for tensor, copy in zip((*tensors, *saved), (*copies, *kept), strict=True):
        assert tensor is copy or torch.equal(tensor, copy)


GOOD = {
    "x": torch.zeros(2, 4, 5, 5),
    "weight": torch.ones(8, 4, 3, 3),
    "b": 2.0,
    "stride": [1, 1],
    "padding": [1, 1],
    "dilation": [1, 1],
    "groups": 1,
    "max_out": 1,
}
BAD = [
    ({"b": 0.5}, "b: expected a finite number >= 1, got 0.5"),
    ({"b": float("nan")}, "b: expected a finite number >= 1, got nan"),
    ({"b": float("inf")}, "b: expected a finite number >= 1, got inf"),
    ({"x": torch.zeros(4, 5, 5)}, "x.*: expected 4 dimensions"),
    ({"weight": torch.zeros(8, 4)}, "weight: expected 4 dimensions"),
    ({"x": torch.zeros(2, 4, 5, 5).double()}, "weight: expected the dtype of x, .*(Double|float64).*got .*(F|f)loat"),
    ({"x": torch.zeros(2, 4, 5, 5).int()}, "x.*: expected f.*got .*(Int|int32)"),
    ({"x": torch.zeros(2, 5, 5, 5)}, "x: expected 4 channels"),
    ({"groups": 3}, "groups: expected a positive divisor of the 4 input channels and the 8 outputs, got 3"),
    ({"groups": 0}, "groups: expected a positive divisor of the 4 input channels and the 8 outputs, got 0"),
    ({"max_out": 3}, "max_out: expected a.* divisor of the 8 filters.*got 3"),
    ({"max_out": 0}, "max_out: expected a.* divisor of the 8 filters.*got 0"),
    ({"stride": [1]}, "stride: expected two numbers"),
    ({"stride": [1, 0]}, "stride: expected .*got .*0"),
    ({"padding": [-1, 1]}, "padding: expected .*got .*-1"),
    ({"dilation": [1, 0]}, "dilation: expected .*got .*0"),
    ({"padding": [0, 0], "dilation": [3, 1]}, r"weight: its window .*does not fit into x of shape \(2, 4, 5, 5\)"),
]
BAD_EXPONENTS = [
    (torch.ones(7), r"expected .*shape \(\) or \(8,?\), got shape \(7,?\)"),
    (torch.ones(8).half(), "expected .*float32 or float64, got .*(H|h|float16)"),
]


@pytest.mark.parametrize(("change", "message"), [*BAD, ({"padding": 1}, "padding: expected two numbers.*got 1")])
def test_conv2d_rejects(change, message):
    arguments = GOOD | change
    with pytest.raises(ValueError, match=message):
        bcos_kernels.conv2d(arguments.pop("x"), arguments.pop("weight"), **arguments)


@pytest.mark.parametrize(("exponent", "message"), BAD_EXPONENTS)
def test_exponents_are_checked(exponent, message):
    with pytest.raises(ValueError, match=f"b: {message}"):
        bcos_kernels.conv2d(**GOOD | {"b": exponent})
    with pytest.raises(ValueError, match=f"b: {message}"):
        bcos_kernels.linear(torch.zeros(3, 4), torch.zeros(8, 4), b=exponent)
    needs_compiled()
    with pytest.raises(RuntimeError, match=f"exponent: {message}"):
        OPERATORS.linear(torch.zeros(3, 4), torch.zeros(8, 4), exponent, 0.0, 1, False, EPS)


@pytest.mark.parametrize(
    ("x", "weight", "options", "message"),
    [
        ((3, 4), (8, 5), {}, "x: expected 5 channels"),
        ((3, 4), (8, 4, 1), {}, r"expected shapes \(..., F\) and \(O, F\)"),
        ((), (8, 1), {}, r"expected shapes \(..., F\) and \(O, F\), got \(\)"),
        ((3, 4), (8, 4), {"b": 0}, "b: expected a finite number >= 1, got 0"),
        ((3, 4), (8, 4), {"max_out": 5}, "max_out: expected a positive divisor of the 8 filters"),
    ],
)
def test_linear_rejects(x, weight, options, message):
    with pytest.raises(ValueError, match=message):
        bcos_kernels.linear(torch.zeros(x), torch.zeros(weight), **options)


def needs_compiled():
    if not torch._C._dispatch_has_kernel_for_dispatch_key("bcos_kernels::conv2d", "CPU"):
        pytest.skip("no compiled CPU kernel: the twin is called, and it leaves the checks to the public functions")


@pytest.mark.parametrize(("change", "message"), BAD)
def test_the_operator_itself_rejects(change, message):
    """torch.ops can be called by anyone; an unchecked argument would read out of bounds."""
    needs_compiled()
    x, weight, b, *window, max_out = (GOOD | change).values()
    with pytest.raises(RuntimeError, match=message):
        OPERATORS.conv2d(x, weight, None, b, *window, max_out, False, EPS)
    grad, norm, winner = torch.zeros(2, 8, 5, 5), torch.ones(2, 1, 5, 5), torch.zeros(0, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match=message):
        OPERATORS.conv2d_backward(
            grad, x, weight, None, grad, norm, winner, b, *window, max_out, False, True, True, True
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad": torch.zeros(2, 8, 5, 4)}, "grad: expected shape (2, 8, 5, 5), got (2, 8, 5, 4)"),
        ({"grad": torch.zeros(2, 8, 5, 5).double()}, "grad: expected dtype Float, got Double"),
        ({"y": torch.zeros(2, 8, 5, 4)}, "y: expected shape (2, 8, 5, 5), got (2, 8, 5, 4)"),
        ({"norm": torch.zeros(2, 2, 5, 5)}, "norm: expected shape (2, 1, 5, 5), got (2, 2, 5, 5)"),
        ({"norm": torch.zeros(2, 1, 5, 5).double()}, "norm: expected dtype Float, got Double"),
    ],
)
def test_the_backward_operator_itself_rejects(change, message):
    needs_compiled()
    saved = {"y": torch.zeros(2, 8, 5, 5), "norm": torch.ones(2, 1, 5, 5)}
    grad, y, norm = ({"grad": torch.zeros(2, 8, 5, 5)} | saved | change).values()
    x, weight, b, *window, max_out = GOOD.values()
    winner = torch.zeros(0, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match=re.escape(message)):
        OPERATORS.conv2d_backward(grad, x, weight, None, y, norm, winner, b, *window, max_out, False, *[True] * 3)
    winner = torch.zeros(2, 4, 5, 4, dtype=torch.uint8)
    half = [t[:, : 4 if t.shape[1] == 8 else 1] for t in (torch.zeros(2, 8, 5, 5), saved["y"], saved["norm"])]
    with pytest.raises(RuntimeError, match=re.escape("winner: expected shape (2, 4, 5, 5), got (2, 4, 5, 4)")):
        OPERATORS.conv2d_backward(half[0], x, weight, None, half[1], half[2], winner, b, *window, 2, False, *[True] * 3)


def test_mixed_devices_are_rejected():
    with pytest.raises(ValueError, match="weight: expected the device of x, meta, got cpu"):
        bcos_kernels.conv2d(**GOOD | {"x": GOOD["x"].to("meta")})


def test_flops_are_those_of_the_products():
    from torch.utils.flop_counter import FlopCounterMode

    x, weight = torch.randn(2, 6, 7, 5), torch.randn(8, 6, 3, 3)
    counts = []
    for function in (lambda: bcos_kernels.conv2d(x, weight), lambda: torch.nn.functional.conv2d(x, weight)):
        with FlopCounterMode(display=False) as counter:
            function()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_reference_and_public_names_agree():
    assert reference.COSINE_OFFSET == 1e-6
    assert {"conv2d", "linear", "uncentred_batch_norm", "build_report"} <= set(bcos_kernels.__all__)
