"""The one list of samples that every kernel test joins, and the oracle they are held against."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from bcos_kernels import reference
from torch import Tensor

EPS = 1e-6
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


@dataclass(frozen=True)
class Sample:
    """One call of the operators: the shapes, and the window by the operators' own names."""

    name: str
    channels: int = 6
    out_channels: int = 8
    size: tuple[int, int] = (7, 5)
    batch: int = 2
    kernel_size: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    b: float = 2.0

    @property
    def options(self) -> tuple:
        """(b, kernel_size, stride, padding, dilation, groups), in the operators' order."""
        return self.b, self.kernel_size, self.stride, self.padding, self.dilation, self.groups

    @property
    def window(self) -> dict:
        names = ("b", "kernel_size", "stride", "padding", "dilation", "groups")
        return dict(zip(names, self.options, strict=True))

    def tensors(self, dtype=torch.float64, layout="contiguous", device="cpu") -> tuple[Tensor, Tensor, Tensor]:
        """(grad, lin, x) with reproducible values; lin is a real convolution's response."""
        generator = torch.Generator().manual_seed(len(self.name))
        x = torch.randn(self.batch, self.channels, *self.size, generator=generator, dtype=torch.float64)
        weight = torch.randn(self.out_channels, self.channels // self.groups, *self.kernel_size, generator=generator)
        weight = F.normalize(weight.double().flatten(1)).view_as(weight)
        lin = F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)
        grad = torch.randn(lin.shape, generator=generator, dtype=torch.float64)
        return tuple(ARRANGEMENTS[layout](t.to(device, dtype)) for t in (grad, lin, x))


GEOMETRIES = [
    Sample("3x3", padding=(1, 1)),
    Sample("1x1", kernel_size=(1, 1)),
    Sample("1x1 stride", kernel_size=(1, 1), stride=(2, 2)),
    Sample("1x1 padding", kernel_size=(1, 1), padding=(1, 2)),
    Sample("uneven", kernel_size=(3, 2), stride=(2, 1), padding=(1, 2)),
    Sample("tuple dilation", dilation=(2, 1), padding=(2, 1)),
    Sample("leftover", size=(11, 9), stride=(3, 2), padding=(0, 1), dilation=(1, 2)),  # pixels no window reaches
    Sample("groups", groups=2, padding=(1, 1)),
    Sample("depthwise", out_channels=6, groups=6, padding=(1, 1), stride=(2, 1)),
    Sample("depthwise x2", out_channels=12, groups=6),
    Sample("linear", channels=40, out_channels=33, size=(1, 1), batch=5, kernel_size=(1, 1)),
    Sample(
        "wide groups", channels=70, out_channels=72, groups=2, size=(4, 3), kernel_size=(2, 2)
    ),  # > a warp per group
    Sample("many pixels", size=(37, 29), padding=(1, 1)),  # more than one tile of the CPU kernel
    Sample("one channel", channels=1, out_channels=1, size=(6, 6)),
    Sample("one row", size=(1, 9), kernel_size=(1, 3)),
    Sample("empty batch", batch=0, padding=(1, 1)),
]
SAMPLES = [
    *GEOMETRIES,
    *(replace(s, name=f"{s.name}, b={b}", b=b) for s in GEOMETRIES[:1] for b in (1, 1.25, 1.5, 2.5, 3)),
    *(replace(s, name=f"{s.name}, b=1.5", b=1.5) for s in GEOMETRIES if s.name in ("uneven", "groups", "wide groups")),
]

ARRANGEMENTS = {
    "contiguous": lambda t: t.contiguous(),
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "channel slice": lambda t: F.pad(t, (0, 0, 0, 0, 1, 2))[:, 1:-2],
    "crop": lambda t: F.pad(t, (1, 1, 2, 0))[:, :, 2:, 1:-1],  # rows are not adjacent
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "strided": lambda t: t.repeat_interleave(2, dim=3)[..., ::2],
}
"""Layouts a caller may come with; each keeps the values."""

COMBINATIONS = [
    *((torch.float32, layout) for layout in ARRANGEMENTS),
    *((torch.float64, layout) for layout in ("contiguous", "channels_last")),
    (torch.bfloat16, "channels_last"),
    (torch.float16, "contiguous"),
]


@dataclass(frozen=True)
class Implementation:
    """The two operators of one implementation, on one device."""

    name: str
    device: str
    scale: object
    scale_backward: object


_OPERATORS = torch.ops.bcos_kernels
IMPLEMENTATIONS = [
    pytest.param(Implementation("operator", "cpu", _OPERATORS.scale, _OPERATORS.scale_backward), id="operator-cpu"),
    pytest.param(Implementation("twin", "cpu", reference.scale, reference.scale_backward), id="twin-cpu"),
    pytest.param(
        Implementation("operator", "cuda", _OPERATORS.scale, _OPERATORS.scale_backward),
        id="operator-cuda",
        marks=NO_GPU,
    ),
]


def pytest_generate_tests(metafunc):
    """`sample`, `combination` (dtype, layout), `implementation` and `device` in a test's signature are these lists."""
    if "sample" in metafunc.fixturenames:
        metafunc.parametrize("sample", SAMPLES, ids=lambda s: s.name)
    if "combination" in metafunc.fixturenames:
        metafunc.parametrize("combination", COMBINATIONS, ids=lambda c: f"{c[0]}-{c[1]}".removeprefix("torch."))
    if "implementation" in metafunc.fixturenames:
        metafunc.parametrize("implementation", IMPLEMENTATIONS)
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu", pytest.param("cuda", marks=NO_GPU)])


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small gain nothing from a second thread, and lose much beside another busy process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def oracle():
    """The formula over unfolded patches in float64, independent of the package: (lin, x, sample, detach) -> (y, n)."""

    def compute(lin: Tensor, x: Tensor, sample: Sample, detach: bool = False) -> tuple[Tensor, Tensor]:
        lin, x = lin.double(), x.double()
        num, groups, area = len(x), sample.groups, sample.kernel_size[0] * sample.kernel_size[1]
        if num:
            patches = F.unfold(x, sample.kernel_size, sample.dilation, sample.padding, sample.stride)
            energy = patches.view(num, groups, sample.channels // groups * area, -1).square().sum(2)
        else:  # unfold takes no empty batch
            energy = x.sum() + lin.new_zeros(0, groups, lin.shape[2] * lin.shape[3])
        norm = (energy + EPS).sqrt().view(num, groups, *lin.shape[2:])
        spread = norm.repeat_interleave(sample.out_channels // groups, dim=1)
        offset = 0.0 if sample.b in (1, 2) else 1e-6
        factor = (lin.abs() / spread + offset) ** (sample.b - 1)
        return lin * (factor.detach() if detach else factor), norm

    return compute


@pytest.fixture
def gradients(oracle):
    """The oracle's gradients with respect to lin and x by autograd: (grad, lin, x, sample, detach)."""

    def compute(grad, lin, x, sample, detach=False):
        lin, x = (t.detach().double().requires_grad_() for t in (lin, x))
        y, _ = oracle(lin, x, sample, detach)
        found = torch.autograd.grad(y, (lin, x), grad.double(), allow_unused=True)
        return [torch.zeros_like(t) if g is None else g for g, t in zip(found, (lin, x), strict=True)]

    return compute


@pytest.fixture
def assert_close():
    """Compare with the oracle's float64 result.

    float64: max |difference| <= 1e-12 max |expected|; float32: 2e-6 max |expected| (over the whole tensor, as sums
    cancel). Half precision: twice its own rounding of each element on top of what float32 may lose.
    """

    def check(actual: Tensor, expected: Tensor, dtype=None):
        dtype = dtype or actual.dtype
        assert actual.dtype == dtype
        assert actual.shape == expected.shape
        actual, expected = actual.detach().cpu().double(), expected.detach().cpu()
        scale = expected.abs().amax() if expected.numel() else expected.new_zeros(())
        allowed = (1e-12 if dtype == torch.float64 else 2e-6) * scale
        if dtype in (torch.bfloat16, torch.float16):
            info = torch.finfo(dtype)
            allowed = allowed + info.eps * expected.abs() + info.smallest_normal * info.eps
        excess = (actual - expected).abs() - allowed
        assert not excess.numel() or excess.max() <= 0, f"{excess.max():.3g} over the tolerance, largest {scale:.3g}"

    return check
