"""bcos_conv2d and bcos_linear against the formula over unfolded patches, float64."""

import math
import os
import re

import pytest
import torch
import torch.nn.functional as F
from bcos_core.functional import _written_out, bcos_conv2d, bcos_linear, thin_product, written_out
from torch.utils._python_dispatch import TorchDispatchMode

TORCHS_ADVICE = "ignore:Using padding='same' with even kernel"

GEOMETRIES = {
    "plain": {},
    "padded": {"padding": 1},
    "1x1": {"kernel": (1, 1)},
    "uneven": {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 2)},
    "dilated": {"dilation": (2, 1), "padding": (2, 1)},
    "leftover": {"stride": 3, "padding": (0, 1), "dilation": (1, 2)},  # pixels that no window reaches
    "groups": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 4, "padding": 1, "stride": (1, 2)},
    "valid": {"padding": "valid"},
    "same": {"padding": "same"},
    "same, even": {"kernel": (4, 2), "padding": "same"},
    "same, even, dilated": {"kernel": (2, 4), "padding": "same", "dilation": (3, 1)},
    "max_out": {"max_out": 3, "padding": 1},
    "max_out, groups": {"max_out": 2, "groups": 2, "stride": 2, "padding": 1, "dilation": 2},
    "all": {"kernel": (3, 2), "max_out": 2, "groups": 4, "stride": (1, 2), "padding": (2, 1), "dilation": (2, 1)},
}


@pytest.fixture(params=GEOMETRIES.values(), ids=GEOMETRIES)
def case(request):
    """x (2, 4, 9, 8), weight for 8 outputs, options."""
    options = dict(request.param)
    kernel = options.pop("kernel", (3, 3))
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    weight = torch.randn(8 * options.get("max_out", 1), 4 // options.get("groups", 1), *kernel, dtype=torch.float64)
    return x, weight, options


def gradients(function, x, weight, grad, **options):
    leaves = [t.detach().clone().requires_grad_() for t in (x, weight)]
    y = function(*leaves, **options)
    return torch.autograd.grad(y, leaves, grad.to(y.dtype))


class TestConv2d:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
    def test_values(self, case, b, dtype, layout, oracle_conv2d, assert_close):
        x, weight, options = case
        y = bcos_conv2d(x.to(dtype, memory_format=layout), weight.to(dtype), b=b, **options)
        assert y.dtype == dtype
        assert_close(y, oracle_conv2d(x.to(dtype), weight.to(dtype), b=b, **options))

    @pytest.mark.filterwarnings(TORCHS_ADVICE)
    def test_shape_is_that_of_torchs_convolution(self, case):
        x, weight, options = case
        max_out = options.pop("max_out", 1)
        plain = F.conv2d(x, weight[::max_out], **options)
        assert bcos_conv2d(x, weight, max_out=max_out, **options).shape == plain.shape

    @pytest.mark.filterwarnings(TORCHS_ADVICE)
    @pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (4, 1), (2, 2)])
    @pytest.mark.parametrize("dilation", [1, 2, (1, 3)])
    def test_same_padding_puts_zeros_where_torch_does(self, kernel, dilation):
        """l and the patch's energy both by F.conv2d's own "same"."""
        x, weight = torch.randn(1, 2, 9, 9).double(), torch.randn(3, 2, *kernel).double()
        lin = F.conv2d(x, weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1), None, 1, "same", dilation)
        energy = F.conv2d(x.square(), torch.ones(1, 2, *kernel).double(), None, 1, "same", dilation)
        options = {"padding": "same", "dilation": dilation}
        torch.testing.assert_close(bcos_conv2d(x, weight, b=1, **options), lin)
        torch.testing.assert_close(bcos_conv2d(x, weight, b=2, **options), lin * lin.abs() / (energy + 1e-6).sqrt())

    def test_default_is_b_2(self):
        x, weight = torch.randn(1, 3, 5, 5), torch.randn(2, 3, 3, 3)
        assert torch.equal(bcos_conv2d(x, weight), bcos_conv2d(x, weight, b=2.0))

    @pytest.mark.parametrize("eps", [1e-12, 1e-6, 0.5])
    def test_eps_is_added_to_the_sum_of_squares(self, eps, oracle_conv2d, assert_close):
        x, weight = 0.01 * torch.randn(2, 3, 5, 5).double(), torch.randn(2, 3, 3, 3).double()
        assert_close(bcos_conv2d(x, weight, eps=eps), oracle_conv2d(x, weight, eps=eps))

    @pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
    def test_gradients(self, case, b, detach, oracle_conv2d, assert_close):
        x, weight, options = case
        grad = torch.randn_like(bcos_conv2d(x, weight, **options))
        found = gradients(bcos_conv2d, x, weight, grad, b=b, detach=detach, **options)
        expected = gradients(oracle_conv2d, x, weight, grad, b=b, detach=detach, **options)
        for actual, right in zip(found, expected, strict=True):
            assert_close(actual, right)

    @pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
    def test_gradients_float32(self, case, b, detach, oracle_conv2d, assert_close):
        x, weight, options = case
        grad = torch.randn_like(bcos_conv2d(x, weight, **options))
        x, weight = x.float(), weight.float()
        found = gradients(bcos_conv2d, x, weight, grad, b=b, detach=detach, **options)
        expected = gradients(oracle_conv2d, x, weight, grad, b=b, detach=detach, **options)
        for actual, right in zip(found, expected, strict=True):
            assert_close(actual, right)

    def test_gradcheck(self, b):
        x = torch.randn(1, 4, 5, 4, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(8, 2, 2, 3, dtype=torch.float64, requires_grad=True)
        options = {"b": b, "groups": 2, "max_out": 2, "padding": 1, "stride": (2, 1)}
        assert torch.autograd.gradcheck(lambda x, w: bcos_conv2d(x, w, **options), (x, weight))

    def test_detached_gradient_is_that_of_a_constant_scale(self, b, assert_close):
        """By hand: y/l measured, frozen, and multiplied to a plain convolution."""
        x, weight = torch.randn(2, 3, 6, 6).double().requires_grad_(), torch.randn(5, 3, 3, 3).double()
        unit = weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        lin = F.conv2d(x, unit, padding=1)
        y = bcos_conv2d(x, weight, b=b, padding=1, detach=True)
        grad = torch.randn_like(y)
        (found,) = torch.autograd.grad(y, x, grad)
        (expected,) = torch.autograd.grad(lin * (y / lin).detach(), x, grad)
        assert_close(found, expected)

    def test_detach_does_not_change_values(self, case, b):
        x, weight, options = case
        assert torch.equal(bcos_conv2d(x, weight, b=b, **options), bcos_conv2d(x, weight, b=b, detach=True, **options))

    def test_norm_of_filters_does_not_matter(self, b, assert_close):
        x, weight = torch.randn(2, 3, 5, 5).double(), torch.randn(4, 3, 3, 3).double()
        scaled = weight * torch.tensor([1e-3, 0.5, 7, 1e4]).view(-1, 1, 1, 1)
        assert_close(bcos_conv2d(x, scaled, b=b), bcos_conv2d(x, weight, b=b))

    def test_a_response_never_exceeds_the_norm_and_reaches_it_when_aligned(self, b):
        weight = torch.randn(3, 2, 3, 3).double()
        x = 5 * weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        y = bcos_conv2d(x, weight, b=b).flatten(1)
        torch.testing.assert_close(y.diagonal(), torch.full((3,), 5.0).double(), rtol=1e-5, atol=0)
        assert (y.abs() <= 5 + 1e-4).all()

    @pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
    def test_zero_filter_and_zero_input(self, b, detach):
        x, weight = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
        x[1] = 0
        weight[2] = 0
        x.requires_grad_(), weight.requires_grad_()
        y = bcos_conv2d(x, weight, b=b, detach=detach)
        assert (y[:, 2] == 0).all()
        assert (y[1] == 0).all()
        y.sum().backward()
        assert x.grad.isfinite().all()
        assert weight.grad.isfinite().all()
        assert (weight.grad[[0, 1, 3]] != 0).any()

    def test_max_out_takes_the_largest_signed_response(self):
        """Not the largest in magnitude: a strong negative response loses to a weak positive one."""
        x = torch.ones(1, 2, 1, 1)
        weight = torch.tensor([[-1.0, -1.0], [1.0, 0.0]]).view(2, 2, 1, 1)
        assert bcos_conv2d(x, weight, max_out=2).item() == pytest.approx(1 / math.sqrt(2), abs=1e-5)

    def test_max_out_filters_of_one_output_lie_side_by_side(self):
        x, weight = torch.randn(2, 3, 5, 5), torch.randn(6, 3, 3, 3)
        both = torch.stack([bcos_conv2d(x, weight[i::2], b=1) for i in range(2)]).amax(0)
        torch.testing.assert_close(bcos_conv2d(x, weight, b=1, max_out=2), both)

    def test_empty_batch(self, b):
        x, weight = torch.randn(0, 3, 5, 5, requires_grad=True), torch.randn(4, 3, 3, 3)
        y = bcos_conv2d(x, weight, b=b, max_out=2)
        assert y.shape == (0, 2, 3, 3)
        y.sum().backward()
        assert x.grad.shape == x.shape

    def test_autocast(self, b, oracle_conv2d, assert_close):
        x, weight = torch.randn(2, 3, 6, 6, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            y = bcos_conv2d(x, weight, b=b, max_out=2, padding=1)
        assert y.dtype == torch.bfloat16
        assert_close(y, oracle_conv2d(x, weight, b=b, max_out=2, padding=1), tolerance=0.02)
        y.float().square().sum().backward()
        expected = gradients(oracle_conv2d, x, weight, 2 * y.double(), b=b, max_out=2, padding=1)
        assert x.grad.dtype == weight.grad.dtype == torch.float32
        for found, right in zip((x.grad, weight.grad), expected, strict=True):
            assert (found - right).norm() <= 0.05 * right.norm()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_half_precision(self, b, dtype, oracle_conv2d, assert_close):
        x, weight = torch.randn(2, 3, 6, 6).to(dtype), torch.randn(4, 3, 3, 3).to(dtype)
        y = bcos_conv2d(x, weight, b=b)
        assert y.dtype == dtype
        assert_close(y, oracle_conv2d(x, weight, b=b), tolerance=0.02)

    def test_half_precision_survives_squares_above_its_range(self):
        y = bcos_conv2d(torch.full((1, 4, 3, 3), 300.0).half(), torch.ones(1, 4, 3, 3).half())
        assert y.item() == pytest.approx(1800, rel=2e-3)  # 6 * 300, where 300² is beyond float16

    @pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
    def test_compiled_whole(self, detach, assert_close):
        def network(x, weight, matrix):
            y = bcos_conv2d(x, weight, b=1.5, padding="same", groups=2, max_out=2, detach=detach)
            return bcos_linear(y.flatten(1), matrix, detach=detach)

        tensors = [torch.randn(s).double() for s in ((2, 4, 5, 5), (8, 2, 2, 3), (3, 100))]
        results = []
        for function in (network, torch.compile(network, fullgraph=True, backend="aot_eager")):
            leaves = [t.clone().requires_grad_() for t in tensors]
            y = function(*leaves)
            results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
        for found, expected in zip(results[1], results[0], strict=True):
            assert_close(found, expected)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"b": 0.99}, "b: expected a finite number >= 1, got 0.99"),
            ({"b": -2}, "b: expected a finite number >= 1, got -2"),
            ({"b": math.nan}, "b: expected a finite number >= 1, got nan"),
            ({"b": math.inf}, "b: expected a finite number >= 1, got inf"),
            ({"max_out": 0}, "max_out: expected a positive divisor of the 6 filters, up to 255, got 0"),
            ({"max_out": 4}, "max_out: expected a positive divisor of the 6 filters, up to 255, got 4"),
            ({"groups": 0}, "groups: expected a positive divisor of the 4 input channels and the 6 outputs, got 0"),
            ({"groups": 3}, "groups: expected a positive divisor of the 4 input channels and the 6 outputs, got 3"),
            ({"groups": 2}, "x: expected 8 channels for a weight of shape (6, 4, 3, 3) in 2 group(s), got 4"),
            ({"max_out": 2, "groups": 2}, "3 outputs, got 2"),
            ({"padding": "full"}, 'padding: expected an integer, a pair, "valid" or "same", got "full"'),
            ({"padding": "same", "stride": 2}, 'padding: "same" needs stride 1, got stride (2, 2)'),
        ],
    )
    def test_errors_name_the_argument(self, options, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            bcos_conv2d(torch.randn(1, 4, 8, 8), torch.randn(6, 4, 3, 3), **options)

    @pytest.mark.parametrize(("x", "weight"), [((4, 8, 8), (6, 4, 3, 3)), ((1, 4, 8, 8), (6, 4))])
    def test_dimensions(self, x, weight):
        with pytest.raises(ValueError, match="x, weight: expected 4 dimensions each"):
            bcos_conv2d(torch.randn(x), torch.randn(weight))

    def test_channels(self):
        with pytest.raises(ValueError, match="x: expected 4 channels for a weight"):
            bcos_conv2d(torch.randn(1, 5, 8, 8), torch.randn(6, 4, 3, 3))

    def test_arguments_beyond_the_weight_are_keyword_only(self):
        with pytest.raises(TypeError):
            bcos_conv2d(torch.randn(1, 4, 8, 8), torch.randn(6, 4, 3, 3), 2.0)


class TestLinear:
    @pytest.mark.parametrize("batch", [(), (5,), (2, 3), (2, 1, 3), (0,), (2, 0)], ids=str)
    @pytest.mark.parametrize("max_out", [1, 2])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    def test_values_and_gradients(self, batch, b, max_out, dtype, oracle_linear, assert_close):
        x, weight = torch.randn(*batch, 7, dtype=dtype), torch.randn(6, 7, dtype=dtype)
        options = {"b": b, "max_out": max_out}
        y = bcos_linear(x, weight, **options)
        assert y.dtype == dtype
        assert y.shape == (*batch, 6 // max_out)
        assert_close(y, oracle_linear(x, weight, **options))
        grad = torch.randn(y.shape)
        for detach in (False, True):
            found = gradients(bcos_linear, x, weight, grad, detach=detach, **options)
            expected = gradients(oracle_linear, x, weight, grad, detach=detach, **options)
            for actual, right in zip(found, expected, strict=True):
                assert_close(actual, right)

    def test_gradcheck(self, b):
        x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x, w: bcos_linear(x, w, b=b, max_out=2), (x, weight))

    def test_one_pixel_of_a_convolution(self, b):
        x, weight = torch.randn(4, 5), torch.randn(6, 5)
        pixels = bcos_conv2d(x[:, :, None, None], weight[:, :, None, None], b=b, max_out=3)[:, :, 0, 0]
        torch.testing.assert_close(bcos_linear(x, weight, b=b, max_out=3), pixels)

    @pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
    def test_zeros(self, b, detach):
        x, weight = torch.randn(3, 5), torch.randn(4, 5)
        x[0], weight[1] = 0, 0
        x.requires_grad_(), weight.requires_grad_()
        y = bcos_linear(x, weight, b=b, detach=detach)
        assert (y[0] == 0).all()
        assert (y[:, 1] == 0).all()
        y.sum().backward()
        assert x.grad.isfinite().all()
        assert weight.grad.isfinite().all()

    def test_autocast(self, b, oracle_linear, assert_close):
        x, weight = torch.randn(3, 5, requires_grad=True), torch.randn(4, 5)
        with torch.autocast("cpu", torch.bfloat16):
            y = bcos_linear(x, weight, b=b)
        assert y.dtype == torch.bfloat16
        assert_close(y, oracle_linear(x, weight, b=b), tolerance=0.02)
        y.sum().backward()
        assert x.grad.isfinite().all()

    @pytest.mark.parametrize(
        ("x", "weight", "options", "message"),
        [
            ((3, 5), (4, 6), {}, "x: expected 6 channels for a weight of shape (4, 6) in 1 group(s), got 5"),
            ((3, 5), (4, 5), {"b": 0.5}, "b: expected a finite number >= 1, got 0.5"),
            ((3, 5), (4, 5), {"b": math.nan}, "b: expected a finite number >= 1, got nan"),
            ((3, 5), (4, 5), {"max_out": 3}, "max_out: expected a positive divisor of the 4 filters, up to 255, got 3"),
            ((3, 5), (4, 5, 1), {}, "x, weight: expected shapes (..., F) and (O, F)"),
            ((), (4, 5), {}, "x, weight: expected shapes (..., F) and (O, F)"),
        ],
    )
    def test_errors_name_the_argument(self, x, weight, options, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            bcos_linear(torch.randn(x), torch.randn(weight), **options)


class TestWrittenOut:
    """By PyTorch's own operators: the kernels' values and gradients, and none of their operators."""

    @pytest.mark.parametrize("detach", [False, True])
    @pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0, torch.tensor([1.25, 3.0] * 4, dtype=torch.float64)], ids=str)
    @pytest.mark.parametrize("options", [{"max_out": 2}, {"groups": 2, "stride": 2, "padding": 1}], ids=str)
    def test_layers(self, exponent, detach, options, assert_close):
        filters = 8 * options.get("max_out", 1)
        x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
        conv = torch.randn(filters, 4 // options.get("groups", 1), 3, 3, dtype=torch.float64)
        linear = torch.randn(filters, 8, dtype=torch.float64)
        units = {"max_out": options.get("max_out", 1)}
        for function, weight, arguments in ((bcos_conv2d, conv, options), (bcos_linear, linear, units)):
            arguments = {**arguments, "b": exponent, "detach": detach}
            y = function(x, weight, **arguments)
            grad = torch.randn_like(y)
            expected = gradients(function, x, weight, grad, **arguments)
            with written_out(), Recorded() as recorded:
                assert_close(function(x, weight, **arguments), y)
                for found, known in zip(gradients(function, x, weight, grad, **arguments), expected, strict=True):
                    assert_close(found, known)
            assert recorded.namespaces <= {"aten", "prim"}
        assert not _written_out.get()


class Recorded(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.namespaces = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.namespaces.add(func.namespace)
        return func(*args, **(kwargs or {}))


# ---- products with few features or outputs ----

THIN = [(3, 8), (8, 2), (4, 4), (5, 5), (1, 1)]  # out, features


def _thin(out, features):
    x = torch.randn(2, 7, features, dtype=torch.float64)
    weight = torch.randn(out, features, dtype=torch.float64)
    return x, weight, torch.randn(2, 7, out, dtype=torch.float64)


@pytest.mark.parametrize("shape", THIN, ids=str)
@pytest.mark.parametrize("compiling", [False, True])
def test_a_thin_product_is_a_product(monkeypatch, shape, compiling):
    """Called, and written as the sum that a compiler is given."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    x, weight, grad = _thin(*shape)
    torch.testing.assert_close(thin_product(x, weight), torch.einsum("nif,of->nio", x, weight))
    by_x = torch.einsum("nio,of->nif", grad, weight)
    by_weight = torch.einsum("nio,nif->of", grad, x)
    for found, expected in zip(gradients(thin_product, x, weight, grad), (by_x, by_weight), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.skipif(
    not os.environ.get("BCOS_TEST_COMPILE"), reason="compiles for a minute; BCOS_TEST_COMPILE=1 runs it"
)
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
@pytest.mark.parametrize("shape", THIN, ids=str)
def test_a_compiled_thin_product_is_the_same(shape):
    x, weight, grad = _thin(*shape)
    compiled = torch.compile(thin_product, fullgraph=True)
    torch.testing.assert_close(compiled(x, weight), thin_product(x, weight), rtol=1e-13, atol=1e-13)
    both = (gradients(f, x, weight, grad) for f in (compiled, thin_product))
    torch.testing.assert_close(*both, rtol=1e-13, atol=1e-13)
