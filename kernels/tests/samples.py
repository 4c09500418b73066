"""The layers that every kernel test goes through, and the formula in float64 that they are held against."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import bcos_kernels.ops as twin
import pytest
import torch
import torch.nn.functional as F
from bcos_kernels import build_report
from torch import Tensor

EPS = 1e-6
CUDA_ON_CPU = build_report().cpu == "CUDA on the CPU"
"""In the build that runs the CUDA kernels on CPU tensors."""
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
OPERATORS = torch.ops.bcos_kernels


@dataclass(frozen=True)
class Sample:
    """One call of a layer: the shapes, and its options by the operators' own names."""

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
    exponent: tuple[int, ...] | None = None
    """Shape of B as a tensor; its values lie about ``b``."""
    max_out: int = 1
    linear: bool = False
    """A linear layer over ``batch * size`` rows."""

    @property
    def window(self) -> tuple:
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def is_steep(self) -> bool:
        """Whether the scale is infinitely steep where the response is zero."""
        return 1 < self.b < 2 or (self.exponent is not None and self.b < 2)

    @property
    def out_size(self) -> tuple[int, ...]:
        sides = zip(self.size, self.padding, self.dilation, self.kernel_size, self.stride, strict=True)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in sides)

    @property
    def x_shape(self) -> tuple[int, ...]:
        shape = (self.batch, self.channels, *self.size)
        return (self.batch, *self.size, self.channels) if self.linear else shape

    @property
    def weight_shape(self) -> tuple[int, ...]:
        filters = (self.out_channels * self.max_out, self.channels // self.groups)
        return filters if self.linear else (*filters, *self.kernel_size)

    @property
    def y_shape(self) -> tuple[int, ...]:
        if self.linear:
            return self.batch, *self.size, self.out_channels
        return self.batch, self.out_channels, *self.out_size

    def tensors(self, dtype=torch.float64, layout="contiguous", device="cpu", weight_dtype=None):
        """(x, weight, exponent or None, grad) with reproducible values; the filters have many norms."""
        generator = torch.Generator().manual_seed(len(self.name))

        def draw(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        x, weight, grad = draw(*self.x_shape), draw(*self.weight_shape), draw(*self.y_shape)
        weight = weight * (1 + draw(weight.shape[0], *[1] * (weight.dim() - 1)).abs())
        exponent = None
        if self.exponent is not None:
            exponent = (self.b + 0.4 * torch.rand(self.exponent, generator=generator)).to(device)
            exponent = exponent.double() if dtype == torch.float64 else exponent
        x, grad = (ARRANGEMENTS[layout](t.to(device, dtype)) for t in (x, grad))
        weight = weight.to(device, weight_dtype or dtype)
        if layout == "channels_last" and weight.dim() == 4:
            weight = weight.contiguous(memory_format=torch.channels_last)
        return x, weight, exponent, grad


PACKS = Sample("packs", channels=16, out_channels=24, size=(8, 16), padding=(1, 1))  # 16-byte words on a GPU
CONVOLUTIONS = [
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
    Sample("wide groups", channels=70, out_channels=72, groups=2, size=(4, 3), kernel_size=(2, 2)),  # > a warp
    Sample("many pixels", size=(37, 29), padding=(1, 1)),  # more than one tile of the CPU kernel
    Sample("many images", batch=37, channels=5, padding=(1, 1)),
    Sample("one channel", channels=1, out_channels=1, size=(6, 6)),
    PACKS,
    Sample("packs of groups", channels=32, out_channels=32, size=(4, 4), groups=2, padding=(1, 1)),
    Sample("many packs", channels=264, out_channels=272, size=(4, 2), batch=3, kernel_size=(1, 1)),  # > one a lane
    Sample("one row", size=(1, 9), kernel_size=(1, 3)),
    Sample("large window", 4, 6, (15, 12), 2, (5, 7), (2, 1), (3, 4), (2, 1), groups=2),  # one axis after the other
    Sample("long window", 3, 4, (2, 21), 2, (1, 17), (1, 2), (0, 3)),
    Sample("empty batch", batch=0, padding=(1, 1)),
]
LINEARS = [
    Sample("linear", channels=40, out_channels=33, size=(2, 3), linear=True),
    Sample("long filters", channels=1030, out_channels=5, size=(2, 2), linear=True),
    Sample("one row linear", channels=5, out_channels=3, size=(1, 1), batch=1, linear=True),
    Sample("empty linear", channels=5, out_channels=3, size=(2, 0), linear=True),
]
_OPTIONS = [
    *({"b": b} for b in (1, 1.25, 1.5, 2.5, 3)),
    {"b": 1.3, "exponent": ()},
    {"b": 1.8, "exponent": (8,)},
    {"max_out": 2},
    {"max_out": 3, "b": 1.5},
    {"max_out": 2, "b": 1},
]
SAMPLES = [
    *CONVOLUTIONS,
    *LINEARS,
    *(replace(CONVOLUTIONS[0], name=f"3x3, {o}", **o) for o in _OPTIONS),
    *(replace(LINEARS[0], name=f"linear, {o}", out_channels=8, **o) for o in _OPTIONS),
    *(
        replace(s, name=f"{s.name}, b=1.5", b=1.5)
        for s in CONVOLUTIONS
        if s.name in ("uneven", "groups", "wide groups")
    ),
    *(
        replace(s, name=f"{s.name}, per-output B", b=1.5, exponent=(s.out_channels,))
        for s in CONVOLUTIONS
        if s.name == "packs"
    ),
    replace(CONVOLUTIONS[7], name="groups, max_out, per-output B", max_out=2, b=1.5, exponent=(8,)),
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


def shifted(t: Tensor) -> Tensor:
    """The same values and strides one element further on, where no word's address is a multiple of its size."""
    return t.new_empty(t.numel() + 1)[1:].as_strided(t.shape, t.stride()).copy_(t)


COMBINATIONS = [
    *((torch.float32, layout) for layout in ARRANGEMENTS),
    *((torch.float64, layout) for layout in ("contiguous", "channels_last")),
    (torch.bfloat16, "channels_last"),
    (torch.bfloat16, "contiguous"),
    (torch.float16, "channels_last"),
    (torch.float16, "contiguous"),
]


@dataclass(frozen=True)
class Implementation:
    """The operators of one implementation, on one device."""

    device: str
    kernels: str
    """"CUDA", also where a CPU runs them, "C++" or "PyTorch"."""
    conv2d: Callable
    conv2d_backward: Callable
    linear: Callable
    linear_backward: Callable

    def forward(self, sample: Sample, x, weight, exponent, detach=False):
        """(y, norm, winner)"""
        if sample.linear:
            return self.linear(x, weight, exponent, sample.b, sample.max_out, detach, EPS)
        return self.conv2d(x, weight, exponent, sample.b, *sample.window, sample.max_out, detach, EPS)

    def backward(self, sample: Sample, grad, x, weight, exponent, saved, detach=False, needs=(True, True, True)):
        """Gradients of x, weight and exponent"""
        tensors = (grad, x, weight, exponent, *saved, sample.b)
        if sample.linear:
            return self.linear_backward(*tensors, sample.max_out, detach, *needs)
        return self.conv2d_backward(*tensors, *sample.window, sample.max_out, detach, *needs)


def operators_of(device: str) -> Implementation:
    kernels = "CUDA" if device == "cuda" or CUDA_ON_CPU else "C++"
    return Implementation(
        device, kernels, OPERATORS.conv2d, OPERATORS.conv2d_backward, OPERATORS.linear, OPERATORS.linear_backward
    )


IMPLEMENTATIONS = [
    pytest.param(operators_of("cpu"), id="operator-cpu"),
    pytest.param(
        Implementation(
            "cpu",
            "PyTorch",
            twin._twin_conv2d,
            twin._twin_conv2d_backward,
            twin._twin_linear,
            twin._twin_linear_backward,
        ),
        id="twin-cpu",
    ),
    pytest.param(operators_of("cuda"), id="operator-cuda", marks=NO_GPU),
]


def formula(x, weight, exponent, sample: Sample, detach: bool = False, winner=None) -> tuple[Tensor, Tensor]:
    """(y, norm) in float64 from the patches, written out; independent of the package.

    With MaxOut of the largest responses, or of the given ones: in a short format two can be equal that differ here.
    """
    s = sample
    x, weight = x.double(), weight.double()
    if s.linear:
        patches = x.reshape(1, 1, -1, s.channels).mT
    elif len(x):
        patches = F.unfold(x, s.kernel_size, s.dilation, s.padding, s.stride).unflatten(1, (s.groups, -1))
    else:  # unfold takes no empty batch
        length = weight[0].numel()
        patches = x.sum() + x.new_zeros(0, s.groups, length, s.out_size[0] * s.out_size[1])
    filters = weight.flatten(1)
    lengths = filters.norm(dim=1, keepdim=True)
    unit = (filters / torch.where(lengths > 0, lengths, 1)).unflatten(0, (s.groups, -1))
    lin = torch.einsum("gok,ngkl->ngol", unit, patches)
    lin = lin.unflatten(2, (-1, s.max_out))
    if winner is None or s.max_out == 1:
        lin = lin.max(3).values
    else:
        of_patches = winner.reshape(-1, s.out_channels).mT if s.linear else winner
        lin = lin.take_along_dim(of_patches.reshape(*lin.shape[:3], 1, -1).long(), 3).squeeze(3)
    norm = (patches.square().sum(2, keepdim=True) + EPS).sqrt()
    y = lin
    if exponent is not None:
        b = exponent.double().expand(s.out_channels).view(s.groups, -1, 1)
        cosine = lin.abs() / norm
        y = lin * ((cosine.detach() if detach else cosine) + 1e-6) ** (b - 1)
    elif s.b != 1:
        cosine = lin.abs() / norm
        factor = (cosine + (0 if s.b == 2 else 1e-6)) ** (s.b - 1)
        y = lin * (factor.detach() if detach else factor)
    if s.linear:
        return y[0, 0].mT.reshape(s.y_shape), norm[0, 0].mT.reshape(*s.y_shape[:-1], 1)
    return y.reshape(s.y_shape), norm.reshape(len(x), s.groups, *s.out_size)


def formula_gradients(x, weight, exponent, grad, sample: Sample, detach: bool = False, winner=None) -> list[Tensor]:
    """Gradients of x, weight and, where there is one, exponent, by autograd through :func:`formula`."""
    leaves = [t.detach().double().requires_grad_() for t in (x, weight, exponent) if t is not None]
    y, _ = formula(*leaves[:2], leaves[2] if exponent is not None else None, sample, detach, winner)
    return list(torch.autograd.grad(y, leaves, grad.double()))
