"""The operators, compiled or not, against the formula written out over patches in float64."""

import contextlib
import re

import pytest
import torch
from bcos_kernels import reference, scale

EPS = 1e-6
OPERATORS = torch.ops.bcos_kernels


def test_forward(sample, combination, implementation, oracle, assert_close):
    dtype, layout = combination
    _, lin, x = sample.tensors(dtype, layout, implementation.device)
    y, norm = implementation.scale(lin, x, *sample.options, False, EPS)
    expected_y, expected_norm = oracle(lin.cpu(), x.cpu(), sample)
    assert_close(y, expected_y, dtype)
    assert_close(norm, expected_norm, torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
def test_backward(sample, combination, implementation, detach, gradients, assert_close):
    dtype, layout = combination
    grad, lin, x = sample.tensors(dtype, layout, implementation.device)
    _, norm = implementation.scale(lin, x, *sample.options, detach, EPS)
    expected_lin, expected_x = gradients(grad.cpu(), lin.cpu(), x.cpu(), sample, detach)
    for need_x in (True, False):
        grad_lin, grad_x = implementation.scale_backward(grad, lin, x, norm, *sample.options, detach, need_x)
        assert_close(grad_lin, expected_lin, dtype)
        if need_x and not detach:
            assert_close(grad_x, expected_x, dtype)
        else:  # not asked for, or zero by definition
            assert grad_x.shape == (0,)
            assert grad_x.dtype == dtype


@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_autograd(sample, device, layout, detach, gradients, assert_close):
    grad, lin, x = (t.requires_grad_() for t in sample.tensors(torch.float64, layout, device))
    y = scale(lin, x, **sample.window, detach=detach)
    found = torch.autograd.grad(y, (lin, x), grad, allow_unused=True)
    expected = gradients(grad.cpu(), lin.cpu(), x.cpu(), sample, detach)
    assert_close(found[0], expected[0])
    assert (found[1] is None) == detach
    if not detach:
        assert_close(found[1], expected[1])


def test_grad_of_another_layout(sample, device, gradients, assert_close):
    """What the next layer sends back need not have our layout: channels-last against contiguous, and expanded."""
    _, lin, x = sample.tensors(torch.float32, "channels_last", device)
    for grad in (sample.tensors(torch.float32, "contiguous", device)[0], lin.new_ones(()).expand(lin.shape)):
        _, norm = OPERATORS.scale(lin, x, *sample.options, False, EPS)
        found = OPERATORS.scale_backward(grad, lin, x, norm, *sample.options, False, True)
        for actual, expected in zip(found, gradients(grad.cpu(), lin.cpu(), x.cpu(), sample), strict=True):
            assert_close(actual, expected)


def test_fake_has_the_layout_of_the_real_one(sample, combination, device):
    from torch._subclasses.fake_tensor import FakeTensorMode

    tensors = sample.tensors(*combination, device)

    def call(grad, lin, x):
        y, norm = OPERATORS.scale(lin, x, *sample.options, False, EPS)
        backward = (OPERATORS.scale_backward(grad, lin, x, norm, *sample.options, d, True) for d in (False, True))
        return [y, norm, *next(backward), *next(backward)]

    real = call(*tensors)
    with FakeTensorMode() as mode:
        fake = call(*(mode.from_tensor(t) for t in tensors))
    for actual, expected in zip(real, fake, strict=True):
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        if actual.numel():  # torch's own empty_like differs from its fake in the strides of nothing
            assert actual.stride() == expected.stride()


def test_registration_passes_opcheck(sample, device):
    grad, lin, x = sample.tensors(torch.float64, "channels_last", device)
    _, norm = OPERATORS.scale(lin, x, *sample.options, False, EPS)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    inputs = (lin.requires_grad_(), x.requires_grad_(), *sample.options, False, EPS)
    torch.library.opcheck(OPERATORS.scale.default, inputs, test_utils=checks)
    backward = (grad, lin.detach(), x.detach(), norm, *sample.options, False, True)
    torch.library.opcheck(OPERATORS.scale_backward.default, backward, test_utils=checks)


# opcheck reads .grad of every output, y included
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")
@pytest.mark.parametrize("detach", [False, True])
def test_dynamic_shapes_pass_opcheck(device, detach):
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64, device=device, requires_grad=True)
    lin = torch.randn(2, 6, 6, 5, dtype=torch.float64, device=device, requires_grad=True)
    window = ((3, 3), (1, 1), (1, 1), (1, 1), 2)
    torch.library.opcheck(OPERATORS.scale.default, (lin, x, 1.5, *window, detach, EPS))


@pytest.mark.parametrize("b", [1, 1.5, 2, 3])
def test_gradcheck_and_gradgradcheck(device, b):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):  # away from zero, where |l|^(b-1) has no second derivative
        t = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.3
        signs = torch.randint(2, shape, generator=generator) * 2 - 1
        return (t * signs).to(device).requires_grad_()

    lin, x = draw(1, 4, 2, 2), draw(1, 2, 2, 3)
    window = {"kernel_size": (2, 2), "stride": (2, 1), "padding": (1, 0), "groups": 2, "b": b}
    assert torch.autograd.gradcheck(lambda lin, x: scale(lin, x, **window), (lin, x))
    assert torch.autograd.gradgradcheck(lambda lin, x: scale(lin, x, **window), (lin, x))


def test_detached_factor_stays_constant_in_the_second_derivative(device):
    """y = s l with s constant: the gradient of l is s, and s has no gradient of its own."""
    x, lin = torch.randn(2, 4, 5, 5, device=device), torch.randn(2, 6, 5, 5, device=device, requires_grad=True)
    y = scale(lin, x, b=2, kernel_size=(3, 3), padding=(1, 1), detach=True)
    weights = torch.ones_like(y, requires_grad=True)
    (first,) = torch.autograd.grad(y, lin, weights, create_graph=True)
    torch.testing.assert_close(first * lin, y)
    assert torch.autograd.grad(first.sum(), lin, allow_unused=True, retain_graph=True)[0] is None
    torch.testing.assert_close(torch.autograd.grad(first.sum(), weights)[0], first)


def test_only_one_input_needs_a_gradient(device, gradients, assert_close):
    x, lin = torch.randn(2, 4, 5, 5, device=device), torch.randn(2, 6, 5, 5, device=device)
    window = {"b": 2, "kernel_size": (3, 3), "padding": (1, 1)}
    both = [t.clone().requires_grad_() for t in (lin, x)]
    scale(*both, **window).square().sum().backward()
    for index in range(2):
        inputs = [lin, x]
        inputs[index] = inputs[index].clone().requires_grad_()
        scale(*inputs, **window).square().sum().backward()
        torch.testing.assert_close(inputs[index].grad, both[index].grad, rtol=0, atol=0)


@pytest.mark.parametrize("detach", [False, True])
def test_compile_in_one_graph(device, detach):
    """No graph break, and the same numbers; aot_eager traces forward and backward without generating code."""

    def layer(lin, x):
        return scale(lin * 1.5, x, b=2, kernel_size=(3, 3), padding=(1, 1), detach=detach).relu().sum()

    results = []
    for call in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 4, 6, 5, generator=generator).to(device).requires_grad_()
        lin = torch.randn(2, 8, 6, 5, generator=generator).to(device).requires_grad_()
        value = call(lin, x)
        results.append((value, *torch.autograd.grad(value, (lin, x), allow_unused=True)))
    for eager, compiled in zip(*results, strict=True):
        if eager is None:  # autograd says none, the compiled graph says none or zero
            assert compiled is None or not compiled.any()
        else:
            torch.testing.assert_close(compiled, eager, rtol=0, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["lin", "x"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("b", [1, 1.5, 2])
def test_not_finite_values_propagate_as_in_the_formula(implementation, value, where, layout, b):
    memory_format = getattr(torch, layout.replace("contiguous", "contiguous_format"))
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, c, 6, 5, generator=generator).double() for c in (8, 8, 4)]
    tensors[1 if where == "lin" else 2][1, 2, 3, 4] = value
    window = (b, (3, 3), (1, 1), (1, 1), (1, 1), 2)
    kinds = []
    for scale_, backward, device in (
        (implementation.scale, implementation.scale_backward, implementation.device),
        (reference.scale, reference.scale_backward, "cpu"),
    ):
        grad, lin, x = (t.to(device).contiguous(memory_format=memory_format) for t in tensors)
        y, norm = scale_(lin, x, *window, False, EPS)
        results = [y, norm]
        for detach in (False, True):
            results += backward(grad, lin, x, norm, *window, detach, True)
        kinds.append([(t.isnan().cpu(), t.isposinf().cpu(), t.isneginf().cpu()) for t in results])
        assert y.isfinite()[0].all(), "another image was affected"
        assert not y.isfinite().all() or not norm.isfinite().all()  # n = inf: y = 0; b = 1: nan to the power of 0 is 1
    for found, expected in zip(*kinds, strict=True):
        for actual, wanted in zip(found, expected, strict=True):
            assert torch.equal(actual, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_zero_input_gives_zero_and_finite_gradients(sample, dtype, implementation):
    grad, lin, x = sample.tensors(dtype, "channels_last", implementation.device)
    lin, x = torch.zeros_like(lin), torch.zeros_like(x)
    y, norm = implementation.scale(lin, x, *sample.options, False, EPS)
    assert not y.any()
    torch.testing.assert_close(norm, torch.full_like(norm, EPS**0.5))
    for detach in (False, True):
        grad_lin, grad_x = implementation.scale_backward(grad, lin, x, norm, *sample.options, detach, True)
        assert grad_lin.isfinite().all()
        assert not grad_x.any()


def test_result_does_not_depend_on_the_number_of_threads():
    x, lin = torch.randn(3, 48, 33, 31), torch.randn(3, 64, 33, 31)
    grad, window = torch.randn_like(lin), (1.5, (3, 3), (1, 1), (1, 1), (1, 1), 2)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        results = []
        for num_threads in (1, 2, 3):
            with threads(num_threads):
                tensors = [t.contiguous(memory_format=memory_format) for t in (grad, lin, x)]
                y, norm = OPERATORS.scale(*tensors[1:], *window, False, EPS)
                results.append((y, norm, *OPERATORS.scale_backward(*tensors, norm, *window, False, True)))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_repeats_bit_for_bit(device):
    x, lin = torch.randn(4, 64, 17, 13, device=device), torch.randn(4, 64, 17, 13, device=device)
    x, lin = (t.contiguous(memory_format=torch.channels_last) for t in (x, lin))
    window = (2.0, (3, 3), (1, 1), (1, 1), (1, 1), 1)
    y, norm = OPERATORS.scale(lin, x, *window, False, EPS)
    first = [y, norm, *OPERATORS.scale_backward(y, lin, x, norm, *window, False, True)]
    for _ in range(3):
        again_y, again_norm = OPERATORS.scale(lin, x, *window, False, EPS)
        again = [again_y, again_norm, *OPERATORS.scale_backward(y, lin, x, norm, *window, False, True)]
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_inputs_stay_as_they_were(sample, device):
    tensors = sample.tensors(torch.float32, "channels_last", device)
    copies = [t.clone() for t in tensors]
    _, norm = OPERATORS.scale(*tensors[1:], *sample.options, False, EPS)
    OPERATORS.scale_backward(*tensors, norm, *sample.options, False, True)
    assert all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))


GOOD = {
    "lin": torch.zeros(2, 8, 5, 5),
    "x": torch.zeros(2, 4, 5, 5),
    "b": 2.0,
    "kernel_size": [3, 3],
    "stride": [1, 1],
    "padding": [1, 1],
    "dilation": [1, 1],
    "groups": 1,
}
BAD = [
    ({"b": 0.5}, "b: expected a finite number >= 1, got 0.5"),
    ({"b": float("nan")}, "b: expected a finite number >= 1, got nan"),
    ({"b": float("inf")}, "b: expected a finite number >= 1, got inf"),
    ({"x": torch.zeros(4, 5, 5)}, "expected 4 dimensions"),
    ({"lin": torch.zeros(8, 5, 5)}, "expected 4 dimensions"),
    ({"x": torch.zeros(2, 4, 5, 5).double()}, "expected (one floating-point dtype|dtype Float, got Double)"),
    (
        {"lin": torch.zeros(2, 8, 5, 5).int(), "x": torch.zeros(2, 4, 5, 5).int()},
        "(one floating-point|float32.*got Int)",
    ),
    ({"groups": 3}, "groups: expected a divisor of the channels of x and lin, got 3 for 4 and 8"),
    ({"groups": 0}, "groups: expected a divisor of the channels of x and lin, got 0 for 4 and 8"),
    ({"padding": [0, 0]}, r"lin: expected shape \(2, 8, 3, 3\).*got \(2, 8, 5, 5\)"),
    ({"lin": torch.zeros(1, 8, 5, 5)}, r"lin: expected shape \(2, 8, 5, 5\).*got \(1, 8, 5, 5\)"),
]
BAD_WINDOWS = [
    ({"kernel_size": [3]}, "kernel_size: expected two numbers (height, width), got 1"),
    ({"kernel_size": [0, 3]}, "kernel_size: expected numbers >= 1, got 0"),
    ({"stride": [1, 0]}, "stride: expected numbers >= 1, got 0"),
    ({"padding": [-1, 1]}, "padding: expected numbers >= 0, got -1"),
    ({"dilation": [1, 0]}, "dilation: expected numbers >= 1, got 0"),
    ({"kernel_size": [9, 3]}, "kernel_size: the window does not fit into x of shape (2, 4, 5, 5)"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_scale_rejects(change, message):
    arguments = GOOD | change
    with pytest.raises(ValueError, match=message):
        scale(arguments.pop("lin"), arguments.pop("x"), **arguments)


def needs_compiled():
    if not torch._C._dispatch_has_kernel_for_dispatch_key("bcos_kernels::scale", "CPU"):
        pytest.skip("no compiled CPU kernel: the twin is called, and it leaves the checks to scale()")


@pytest.mark.parametrize(("change", "message"), BAD + [(c, re.escape(m)) for c, m in BAD_WINDOWS])
def test_the_operator_itself_rejects(change, message):
    """torch.ops can be called by anyone; an unchecked argument would read out of bounds."""
    needs_compiled()
    arguments = GOOD | change
    with pytest.raises(RuntimeError, match=message):
        OPERATORS.scale(*arguments.values(), False, EPS)
    grad, norm = torch.zeros(2, 8, 5, 5), torch.ones(2, 1, 5, 5)
    lin, x, *options = arguments.values()
    with pytest.raises(RuntimeError, match=message):
        OPERATORS.scale_backward(grad, lin, x, norm, *options, False, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad": torch.zeros(2, 8, 5, 4)}, "grad: expected shape (2, 8, 5, 5), got (2, 8, 5, 4)"),
        ({"grad": torch.zeros(2, 8, 5, 5).double()}, "grad: expected dtype Float, got Double"),
        ({"norm": torch.zeros(2, 2, 5, 5)}, "norm: expected shape (2, 1, 5, 5), got (2, 2, 5, 5)"),
        ({"norm": torch.zeros(2, 1, 5, 5).double()}, "norm: expected dtype Float, got Double"),
    ],
)
def test_the_backward_operator_itself_rejects(change, message):
    needs_compiled()
    tensors = {"grad": GOOD["lin"], "lin": GOOD["lin"], "x": GOOD["x"], "norm": torch.ones(2, 1, 5, 5)} | change
    with pytest.raises(RuntimeError, match=re.escape(message)):
        OPERATORS.scale_backward(*tensors.values(), *list(GOOD.values())[2:], False, True)


def test_mixed_devices_are_rejected():
    with pytest.raises(ValueError, match="expected one device, got cpu and meta"):
        scale(GOOD["lin"], GOOD["x"].to("meta"), b=2, kernel_size=(3, 3), padding=(1, 1))


@contextlib.contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
