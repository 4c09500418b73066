"""The transform written out over unfolded patches in float64: what functional and layers are held against."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

EXPONENTS = (1, 1.25, 1.5, 2, 2.5, 3)


def pytest_generate_tests(metafunc):
    if "b" in metafunc.fixturenames:
        metafunc.parametrize("b", EXPONENTS, ids=lambda b: f"b={b:g}")


@pytest.fixture(autouse=True)
def one_thread_one_seed():
    """Tensors this small gain nothing from a second thread; each test draws the same numbers, alone or in the suite."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def _factor(lin: Tensor, energy: Tensor, b: float, eps: float) -> Tensor:
    offset = 0.0 if b in (1, 2) else 1e-6
    return (lin.abs() / (energy + eps).sqrt() + offset) ** (b - 1)


def _unit(weight: Tensor) -> Tensor:
    """Rows of norm one by a loop, a row of zeros as it is."""
    return torch.stack([row / row.norm() if row.detach().any() else row for row in weight.flatten(1)])


@pytest.fixture(scope="session")
def oracle_conv2d():
    """(x, weight, ...) -> y in float64; "same" padding is torch's own, asked of a plain convolution's indices."""

    def compute(
        x, weight, *, b=2.0, stride=1, padding=0, dilation=1, groups=1, max_out=1, detach=False, eps=1e-6, parts=False
    ):
        x, weight = x.double(), weight.double()
        kernel = weight.shape[2:]
        stride, dilation = _pair(stride), _pair(dilation)
        if padding == "same":
            total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            x = F.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
            padding = 0
        elif padding == "valid":
            padding = 0
        padding = _pair(padding)
        n, c, h, w = x.shape
        size = [(s + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i, s in enumerate((h, w))]
        patches = F.unfold(x, tuple(kernel), dilation, padding, stride)  # (n, c kh kw, positions)
        patches = patches.view(n, groups, c // groups * kernel[0] * kernel[1], -1)
        filters = _unit(weight).view(groups, -1, patches.shape[2])
        lin = torch.einsum("gof,ngfp->ngop", filters, patches).flatten(1, 2)
        lin = lin.view(n, lin.shape[1] // max_out, max_out, -1).max(2).values
        energy = patches.square().sum(2).repeat_interleave(lin.shape[1] // groups, dim=1)
        factor = torch.ones_like(lin) if b == 1 else _factor(lin, energy, b, eps)
        factor = factor.detach() if detach else factor
        lin, factor = (t.view(n, -1, *size) for t in (lin, factor))
        return (lin, factor) if parts else lin * factor

    return compute


@pytest.fixture(scope="session")
def oracle_linear():
    """(x, weight, ...) -> y in float64, row by row of the formula."""

    def compute(x, weight, *, b=2.0, max_out=1, detach=False, eps=1e-6, parts=False):
        x, weight = x.double(), weight.double()
        lin = torch.einsum("...f,of->...o", x, _unit(weight))
        lin = lin.unflatten(-1, (len(weight) // max_out, max_out)).max(-1).values
        factor = torch.ones_like(lin) if b == 1 else _factor(lin, x.square().sum(-1, keepdim=True), b, eps)
        factor = factor.detach() if detach else factor
        return (lin, factor) if parts else lin * factor

    return compute


@pytest.fixture(scope="session")
def assert_close():
    """Largest difference against the largest expected value: 1e-12 in float64, 3e-6 in float32, 2^-7 in bfloat16."""

    def check(actual, expected, tolerance=None):
        allowed = tolerance or {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 2**-7}[actual.dtype]
        assert actual.shape == expected.shape
        actual, expected = actual.detach().double(), expected.detach().double()
        assert actual.isfinite().all()
        if expected.numel():
            scale = expected.abs().max().clamp(min=1e-300)
            assert (actual - expected).abs().max() <= allowed * scale

    return check
