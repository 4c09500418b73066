"""Uncentred batch norm, compiled or not, against its formula and autograd in float64."""

import os
import re
import subprocess
import sys

import bcos_kernels
import pytest
import torch
from bcos_kernels import uncentred_batch_norm
from bcos_kernels.batch_norm import twin, twin_backward
from samples import shifted

EPS = 1e-5
OPERATORS = torch.ops.bcos_kernels
CHANNELS_LAST = torch.channels_last
SHAPES = [
    (2, 1, 6, 5),
    (3, 3, 7, 9),
    (4, 16, 5, 5),
    (2, 100, 3, 4),
    (3, 2048, 2, 1),
    (5, 6, 1, 1),  # both layouts at once
    (1, 5, 1, 1),  # one value for each channel
    (9, 1, 70, 71),
    (2, 3, 150, 140),  # several blocks of a plane, and a rest
    (17, 40, 21, 19),  # several blocks of channels-last rows, and a rest
]
LAYOUTS = {
    "contiguous": lambda t: t.contiguous(),
    "channels_last": lambda t: t.contiguous(memory_format=CHANNELS_LAST),
    "channel slice": lambda t: torch.cat([t, t], 1)[:, : t.shape[1]],
    "crop": lambda t: torch.nn.functional.pad(t, (1, 1, 2, 0))[:, :, 2:, 1:-1],
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "batch inside": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
}
IMPLEMENTATIONS = {
    "operator": (OPERATORS.batch_norm, OPERATORS.batch_norm_backward),
    "twin": (twin, twin_backward),
}


def draw(shape, dtype=torch.float64, layout="contiguous", device="cpu"):
    """(grad, x, weight, bias); the mean of x differs between channels and is not small beside the spread."""
    generator = torch.Generator().manual_seed(sum(shape))
    grad, x = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    weight, bias = (torch.randn(shape[1], generator=generator, dtype=torch.float64) for _ in range(2))
    x = x * (1.5 + weight.cos()).view(-1, 1, 1) + 2 * bias.view(-1, 1, 1)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    grad, x = (LAYOUTS[layout](t.to(device, dtype)) for t in (grad, x))
    return grad, x, weight.to(device, wide), bias.to(device, wide)


def formula(x, weight, bias, detach=False):
    """(y, mean, var) in float64, written out; differentiable."""
    x = x.double()
    count = x.shape[0] * x.shape[2] * x.shape[3]
    mean = x.sum((0, 2, 3)) / count
    var = (x - mean.view(-1, 1, 1)).square().sum((0, 2, 3)) / count
    y = x / ((var.detach() if detach else var) + EPS).sqrt().view(-1, 1, 1)
    if weight is not None:
        y = y * weight.double().view(-1, 1, 1)
    if bias is not None:
        y = y + bias.double().view(-1, 1, 1)
    return y, mean, var


def gradients(grad, x, weight, bias, detach=False):
    inputs = [t.detach().cpu().double().requires_grad_() for t in (x, weight, bias)]
    return torch.autograd.grad(formula(*inputs, detach)[0], inputs, grad.cpu().double())


def assert_sum_close(actual, expected, terms, dtype):
    """Where terms cancel, a sum is as exact as its terms are large: their norm, the size of a sum of random signs."""
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    size = max(expected.abs().max(), terms.square().sum((0, 2, 3)).sqrt().max())
    assert (actual.cpu().double() - expected).abs().max() <= (1e-12 if dtype == torch.float64 else 2e-6) * size


@pytest.fixture(params=IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def operators(request):
    return request.param


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


@pytest.fixture(params=[(torch.float32, name) for name in LAYOUTS]
    + [(dtype, name) for dtype in (torch.float64, torch.bfloat16, torch.float16) for name in list(LAYOUTS)[:2]],
    ids=lambda p: f"{p[0]}-{p[1]}",
)  # fmt: skip
def kind(request):
    return request.param


@pytest.mark.parametrize("affine", ["", "weight", "weight bias"])
def test_forward(shape, kind, operators, device, affine, assert_close):
    _, x, weight, bias = draw(shape, *kind, device)
    weight, bias = weight if "weight" in affine else None, bias if "bias" in affine else None
    y, mean, var = operators[0](x, weight, bias, EPS, False)
    expected = formula(*(t if t is None else t.cpu() for t in (x, weight, bias)))
    assert_close(y, expected[0], kind[0])
    assert_close(mean, expected[1], weight.dtype if affine else mean.dtype)
    assert_close(var, expected[2], mean.dtype)


@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
def test_backward(shape, kind, operators, device, detach, assert_close):
    grad, x, weight, bias = draw(shape, *kind, device)
    _, mean, var = operators[0](x, weight, bias, EPS, detach)
    found = operators[1](grad, x, weight, mean, var, EPS, detach, True, True, True)
    expected = gradients(grad, x, weight, bias, detach)
    assert_close(found[0], expected[0], kind[0])
    grad, x, var = grad.cpu().double(), x.cpu().double(), var.cpu().double()
    assert_sum_close(found[1], expected[1], grad * x / (var + EPS).sqrt().view(-1, 1, 1), mean.dtype)
    assert_sum_close(found[2], expected[2], grad, mean.dtype)


@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("needs", [(x, w, b) for x in (0, 1) for w in (0, 1) for b in (0, 1)], ids=str)
def test_only_what_is_needed(needs, operators, device, detach, assert_close):
    grad, x, weight, bias = draw((4, 16, 5, 5), torch.float64, "channels_last", device)
    _, mean, var = operators[0](x, weight, bias, EPS, detach)
    found = operators[1](grad, x, weight, mean, var, EPS, detach, *map(bool, needs))
    for need, actual, wanted in zip(needs, found, gradients(grad, x, weight, bias, detach), strict=True):
        if need:
            assert_close(actual, wanted)
        else:
            assert actual.shape == (0,)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(8, 16, 31, 33), (4, 100, 9, 9), (2, 1, 150, 140), (64, 3, 1, 1)], ids=str)
def test_large_mean(shape, layout, operators, device, assert_close):
    """Mean 1000, spread 1, in float32: E[x²] - E[x]² would keep one digit of the variance."""
    generator = torch.Generator().manual_seed(0)
    x = LAYOUTS[layout]((1000 + torch.randn(shape, generator=generator)).to(device))
    grad = torch.randn(shape, generator=generator).to(device)
    weight = torch.ones(shape[1], device=device)
    y, mean, var = operators[0](x, weight, None, EPS, False)
    for actual, expected in zip((y, mean, var), formula(x.cpu(), weight.cpu(), None), strict=True):
        assert_close(actual, expected)
    grad_x, _, _ = operators[1](grad, x, weight, mean, var, EPS, False, True, False, False)
    expected = gradients(grad, x, weight, torch.zeros_like(weight))[0]
    # x - mean is as exact as a float32 mean of 1000 is, 3e-5 of the spread, and the sum of grad x as float32 products
    assert (grad_x.cpu().double() - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("odd", ["x", "grad"])
def test_tensors_that_begin_anywhere(odd, layout, operators, device, assert_close):
    grad, x, weight, bias = draw((2, 16, 4, 8), torch.float32, layout, device)
    x, grad = shifted(x) if odd == "x" else x, shifted(grad) if odd == "grad" else grad
    y, mean, var = operators[0](x, weight, bias, EPS, False)
    found = [y, mean, var, *operators[1](grad, x, weight, mean, var, EPS, False, True, True, True)]
    expected = [*formula(*(t.cpu() for t in (x, weight, bias))), *gradients(grad, x, weight, bias)]
    for actual, value in zip(found, expected, strict=True):
        assert_close(actual, value, sums=True)


def test_autograd(shape, device, assert_close):
    grad, *inputs = draw(shape, torch.float64, "channels_last", device)
    inputs = [t.requires_grad_() for t in inputs]
    found = torch.autograd.grad(uncentred_batch_norm(*inputs)[0], inputs, grad)
    for actual, expected in zip(found, gradients(grad, *inputs), strict=True):
        assert_close(actual, expected)


def test_statistics_have_no_gradient(device):
    _, mean, var = uncentred_batch_norm(torch.randn(2, 3, 4, 4, device=device, requires_grad=True))
    assert not mean.requires_grad
    assert not var.requires_grad


def test_grad_of_another_layout(shape, device, assert_close):
    """What the next layer sends back need not have our layout: contiguous against channels-last, and expanded."""
    grad, x, weight, bias = draw(shape, torch.float32, "channels_last", device)
    for other in (
        grad.contiguous(),
        grad.new_ones(()).expand(shape),
        grad[:1].expand(shape),
        grad[..., :1].expand(shape),
    ):
        _, mean, var = OPERATORS.batch_norm(x, weight, bias, EPS, False)
        found = OPERATORS.batch_norm_backward(other, x, weight, mean, var, EPS, False, True, True, True)
        for actual, expected in zip(found, gradients(other, x, weight, bias), strict=True):
            # with a constant grad the gradient is a difference of nearly equal terms: its scale is theirs
            slack = (weight.abs() / (var + EPS).sqrt()).max().item() if actual.dim() == 4 else 0
            assert_close(actual + slack, expected + slack)


def test_keeps_x_and_two_numbers_per_channel(device):
    kept = []
    x = torch.randn(4, 6, 8, 8, device=device, requires_grad=True)
    weight = torch.ones(6, device=device, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        uncentred_batch_norm(x, weight)
    assert sum(t.numel() for t in kept) == x.numel() + 3 * 6
    assert any(t.data_ptr() == x.data_ptr() for t in kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_parameters_of_another_dtype(dtype, device, assert_close):
    """float32 parameters beside half inputs, half beside float32: each gradient in the dtype of its tensor."""
    other = torch.float32 if dtype != torch.float32 else torch.bfloat16
    grad, x, weight, bias = draw((4, 16, 5, 5), dtype, "channels_last", device)
    inputs = [t.requires_grad_() for t in (x, weight.to(other), bias.to(other))]
    y, mean, var = uncentred_batch_norm(*inputs)
    assert (y.dtype, mean.dtype, var.dtype) == (dtype, torch.float32, torch.float32)
    found = torch.autograd.grad(y, inputs, grad)
    for t, actual, expected in zip(inputs, found, gradients(grad, *inputs), strict=True):
        assert_close(actual, expected, t.dtype)


def test_autocast_changes_nothing(device):
    _, x, weight, bias = draw((4, 16, 5, 5), torch.bfloat16, "channels_last", device)
    expected = uncentred_batch_norm(x, weight, bias)
    with torch.autocast(device, torch.bfloat16):
        found = uncentred_batch_norm(x, weight, bias)
    for actual, wanted in zip(found, expected, strict=True):
        assert actual.dtype == wanted.dtype
        assert torch.equal(actual, wanted)


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_gradcheck_and_gradgradcheck(device, bias):
    _, *inputs = draw((2, 2, 3, 2), device=device)
    inputs = [t.requires_grad_() for t in inputs][: 3 if bias else 2]
    assert torch.autograd.gradcheck(lambda *t: uncentred_batch_norm(*t)[0], inputs)
    assert torch.autograd.gradgradcheck(lambda *t: uncentred_batch_norm(*t)[0], inputs)


def test_detached_variance_stays_constant_in_the_second_derivative(device):
    _, x, weight, _ = draw((2, 3, 4, 4), device=device)
    x.requires_grad_()
    y = uncentred_batch_norm(x, weight, detach=True)[0]
    weights = torch.ones_like(y, requires_grad=True)
    (first,) = torch.autograd.grad(y, x, weights, create_graph=True)
    torch.testing.assert_close(first * x, y)
    assert torch.autograd.grad(first.sum(), x, allow_unused=True, retain_graph=True)[0] is None
    torch.testing.assert_close(torch.autograd.grad(first.sum(), weights)[0], first)


def test_fake_has_the_layout_of_the_real_one(shape, kind, device):
    from torch._subclasses.fake_tensor import FakeTensorMode

    tensors = draw(shape, *kind, device)

    def call(grad, x, weight, bias):
        y, mean, var = OPERATORS.batch_norm(x, weight, bias, EPS, False)
        some = OPERATORS.batch_norm_backward(grad, x, weight, mean, var, EPS, True, False, True, False)
        return [y, mean, var, *some, *OPERATORS.batch_norm_backward(grad, x, weight, mean, var, EPS, *[True] * 4)]

    real = call(*tensors)
    with FakeTensorMode() as mode:
        fake = call(*(mode.from_tensor(t) for t in tensors))
    for actual, expected in zip(real, fake, strict=True):
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        # the step of a dimension of size 1 says nothing, and torch's own empty_like differs from its fake there
        assert [a for a, size in zip(actual.stride(), actual.shape, strict=True) if size > 1] == [
            e for e, size in zip(expected.stride(), expected.shape, strict=True) if size > 1
        ]


# opcheck reads .grad of every output, y included
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_registration_passes_opcheck(device, layout):
    grad, *inputs = draw((2, 4, 6, 5), torch.float64, layout, device)
    x, weight, bias = (t.requires_grad_() for t in inputs)
    for detach in (False, True):
        torch.library.opcheck(OPERATORS.batch_norm.default, (x, weight, bias, EPS, detach))
    torch.library.opcheck(OPERATORS.batch_norm.default, (x, None, None, EPS, False))
    _, mean, var = OPERATORS.batch_norm(x, weight, bias, EPS, False)
    backward = (grad, x.detach(), weight.detach(), mean, var, EPS, False)
    for needs in ((True, True, True), (True, False, False), (False, True, True)):
        torch.library.opcheck(OPERATORS.batch_norm_backward.default, (*backward, *needs))


@pytest.mark.parametrize("detach", [False, True])
def test_compile_in_one_graph(device, detach):
    """No graph break, and the same numbers; aot_eager traces forward and backward without generating code."""

    def layer(x, weight, bias):
        y, _, var = uncentred_batch_norm(x * 1.5, weight, bias, detach=detach)
        return y.relu().sum(), var

    _, *inputs = draw((4, 16, 5, 5), torch.float32, "channels_last", device)
    inputs = [t.requires_grad_() for t in inputs]
    results = []
    for call in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        value, var = call(*inputs)
        results.append((value, var, *torch.autograd.grad(value, inputs)))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=0, atol=0)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_values_stay_in_their_channel(operators, device, layout, value):
    grad, x, weight, bias = draw((4, 16, 9, 9), torch.float32, layout, device)
    x[1, 5, 3, 4] = value
    y, mean, var = operators[0](x, weight, bias, EPS, False)
    grad_x, grad_weight, grad_bias = operators[1](grad, x, weight, mean, var, EPS, *[False] + [True] * 3)
    others = torch.arange(16, device=device) != 5
    assert not var[5].isfinite()
    for t in (y, grad_x):
        assert t[:, others].isfinite().all()
        assert t[:, 5].isnan().all()
    for t in (mean, var, grad_weight, grad_bias):
        assert t[others].isfinite().all()


@pytest.mark.parametrize("constant", [0.0, 3.0])
@pytest.mark.parametrize("size", [(1, 4, 1, 1), (3, 4, 5, 5)], ids=str)
def test_constant_input_is_finite(operators, device, size, constant):
    """Variance zero: y = weight x / sqrt(eps)."""
    x = torch.full(size, constant, device=device)
    weight = torch.ones(4, device=device)
    y, mean, var = operators[0](x, weight, None, EPS, False)
    assert not var.any()
    torch.testing.assert_close(y, x / EPS**0.5)
    grads = operators[1](torch.ones_like(x), x, weight, mean, var, EPS, *[False] + [True] * 3)
    torch.testing.assert_close(grads[0], torch.full_like(x, EPS**-0.5))
    assert all(g.isfinite().all() for g in grads)


def test_result_does_not_depend_on_the_number_of_threads():
    for layout in ("contiguous", "channels_last"):
        grad, x, weight, bias = draw((17, 40, 37, 29), torch.float32, layout)
        results = []
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)  # the fixture one_thread puts it back
            y, mean, var = OPERATORS.batch_norm(x, weight, bias, EPS, False)
            back = OPERATORS.batch_norm_backward(grad, x, weight, mean, var, EPS, *[False] + [True] * 3)
            results.append((y, mean, var, *back))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_repeats_bit_for_bit_and_leaves_its_inputs(device):
    tensors = draw((17, 40, 21, 19), torch.float32, "channels_last", device)
    copies = [t.clone() for t in tensors]
    results = []
    for _ in range(3):
        grad, *inputs = tensors
        y, mean, var = OPERATORS.batch_norm(*inputs, EPS, False)
        back = OPERATORS.batch_norm_backward(grad, *inputs[:2], mean, var, EPS, *[False] + [True] * 3)
        results.append((y, mean, var, *back))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))


INSTRUCTION_SETS = """
import torch
from bcos_kernels import uncentred_batch_norm
assert torch.backends.cpu.get_cpu_capability().lower() == {wanted!r}
for dtype, tolerance in ((torch.float32, 2e-6), (torch.bfloat16, 8e-3), (torch.float16, 2e-3)):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x, grad = (torch.randn(9, 20, 11, 13).to(dtype, memory_format=memory_format) for _ in range(2))
        x.requires_grad_()
        y = uncentred_batch_norm(x)[0]
        wide = x.detach().double().requires_grad_()
        expected = wide / (wide.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        for actual, wanted in ((y, expected), (torch.autograd.grad(y, x, grad)[0],
                                               torch.autograd.grad(expected, wide, grad.double())[0])):
            assert (actual - wanted).abs().max() <= tolerance * wanted.abs().max(), (dtype, memory_format)
"""


@pytest.mark.parametrize("name", ["default", "avx2", "avx512"])
def test_each_instruction_set(name):
    """PyTorch's switch is ours too; a set that this processor lacks is left out, for nothing would be checked."""
    best = torch.backends.cpu.get_cpu_capability().lower()
    order = ["default", "avx2", "avx512"]
    if best not in order or order.index(name) > order.index(best):
        pytest.skip(f"this processor has {best}")
    environment = os.environ | {"ATEN_CPU_CAPABILITY": name}
    environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(os.path.dirname(bcos_kernels.__file__)), *sys.path])
    code = INSTRUCTION_SETS.format(wanted=name)
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_half_precision_number(dtype, layout):
    """Each of the 65536, subnormals and infinities too, is read and written as PyTorch converts it."""
    values = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).view(1, 1, 256, 256)
    x = LAYOUTS[layout](values.expand(1, 4, 256, 256))
    weight, zeros, ones = torch.tensor([1.0, 0.3, 1e-5, 1e4]), torch.zeros(4), torch.ones(4)
    # with var + eps = 1 and the variance constant, the gradient is grad * weight
    found = OPERATORS.batch_norm_backward(x, torch.zeros_like(x), weight, zeros, ones, 0.0, True, True, False, False)[0]
    expected = (x.float() * weight.view(-1, 1, 1)).to(dtype)
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found[~found.isnan()], expected[~expected.isnan()])


X, PER_CHANNEL = torch.zeros(2, 4, 5, 5), torch.ones(4)
BAD = [
    ({"x": torch.zeros(4, 5, 5)}, "x: expected 4 dimensions (N, C, H, W), got shape (4, 5, 5)"),
    ({"x": torch.zeros(0, 4, 5, 5)}, "x: expected at least one value per channel, got shape (0, 4, 5, 5)"),
    ({"x": torch.zeros(2, 4, 0, 5)}, "x: expected at least one value per channel, got shape (2, 4, 0, 5)"),
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *BAD,
        ({"x": X.int()}, "x: expected a floating-point dtype, got torch.int32"),
        ({"weight": torch.ones(5)}, "weight: expected floats of shape (4,), got torch.float32 of (5,)"),
        ({"bias": torch.ones(4, 1)}, "bias: expected floats of shape (4,), got torch.float32 of (4, 1)"),
        ({"bias": torch.ones(4).int()}, "bias: expected floats of shape (4,), got torch.int32 of (4,)"),
        ({"weight": torch.ones(4, device="meta")}, "weight: expected the device of x, cpu, got meta"),
    ],
)
def test_batch_norm_rejects(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        uncentred_batch_norm(**({"x": X, "weight": PER_CHANNEL, "bias": PER_CHANNEL} | change))


def needs_compiled():
    if not torch._C._dispatch_has_kernel_for_dispatch_key("bcos_kernels::batch_norm", "CPU"):
        pytest.skip("no compiled CPU kernel: the twin is called, and it leaves the checks to uncentred_batch_norm()")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *BAD,
        ({"x": X.int()}, "x: expected float32, float64, float16 or bfloat16, got Int"),
        ({"weight": torch.ones(5)}, "weight: expected shape (4), got (5)"),
        ({"bias": torch.ones(4, 1)}, "bias: expected shape (4), got (4, 1)"),
    ],
)
def test_the_operator_itself_rejects(change, message):
    """torch.ops can be called by anyone; an unchecked argument would read out of bounds."""
    needs_compiled()
    arguments = {"x": X, "weight": PER_CHANNEL, "bias": PER_CHANNEL} | change
    with pytest.raises(RuntimeError, match=re.escape(message)):
        OPERATORS.batch_norm(*arguments.values(), EPS, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad": torch.zeros(2, 4, 5, 4)}, "grad: expected shape (2, 4, 5, 5), got (2, 4, 5, 4)"),
        ({"grad": X.double()}, "grad: expected dtype Float, got Double"),
        ({"mean": torch.ones(3)}, "mean: expected shape (4), got (3)"),
        ({"var": torch.ones(1, 4)}, "var: expected shape (4), got (1, 4)"),
        ({"x": torch.zeros(4, 5, 5)}, "x: expected 4 dimensions"),
    ],
)
def test_the_backward_operator_itself_rejects(change, message):
    needs_compiled()
    good = {"grad": X, "x": X, "weight": PER_CHANNEL, "mean": PER_CHANNEL, "var": PER_CHANNEL}
    with pytest.raises(RuntimeError, match=re.escape(message)):
        OPERATORS.batch_norm_backward(*(good | change).values(), EPS, False, True, True, True)
