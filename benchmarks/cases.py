"""Every layer and network whose speed is measured.

The layers are those of the networks the papers use. ``batch`` suits a CPU; a GPU would measure launches with it, and
takes ``cuda_batch``.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Case:
    """One layer: a convolution, or with ``linear`` the same numbers as a matrix product over ``batch`` rows."""

    name: str
    batch: int
    cuda_batch: int
    channels: int
    size: int
    out_channels: int
    kernel_size: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    linear: bool = False
    b: float = 2.0
    trainable_b: bool = False
    """B is a tensor that wants a gradient."""
    max_out: int = 1
    contiguous: bool = False
    """In planes (NCHW), not channels-last."""

    @property
    def padding(self) -> int:
        return self.dilation * (self.kernel_size // 2)

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.padding - self.dilation * (self.kernel_size - 1) - 1) // self.stride + 1

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.batch, self.channels) if self.linear else (self.batch, self.channels, self.size, self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        filters = (self.out_channels * self.max_out, self.channels // self.groups)
        return filters if self.linear else (*filters, self.kernel_size, self.kernel_size)

    @property
    def y_shape(self) -> tuple[int, ...]:
        image = () if self.linear else (self.out_size, self.out_size)
        return (self.batch, self.out_channels, *image)

    @property
    def is_pointwise(self) -> bool:
        """A 1x1 convolution or linear layer: limited by memory, where larger windows are limited by arithmetic."""
        return self.kernel_size == 1

    @property
    def is_small(self) -> bool:
        """So little to compute that the call itself takes longer: the vector field of an ODE, a classifier's head."""
        rows = math.prod(self.y_shape) // self.out_channels
        return rows * math.prod(self.weight_shape) < 1e6

    @property
    def kind(self) -> str:
        """The family whose layers have one limit: calls, memory or arithmetic."""
        return "small" if self.is_small else "1x1+linear" if self.is_pointwise else "kxk"

    @property
    def has_options(self) -> bool:
        """Asks for more than a dense layer with B = 2."""
        options = (self.b, self.max_out, self.groups, self.dilation, self.trainable_b, self.contiguous)
        return options != (2.0, 1, 1, 1, False, False)

    def on(self, device: str) -> "Case":
        """The case with the batch that suits the device."""
        return replace(self, batch=self.cuda_batch) if device == "cuda" else self

    def reduced(self, factor: int) -> "Case":
        return replace(self, batch=max(1, self.batch // factor))


TOKENS = 197
"""Of one image in a ViT with patches of 16 pixels, the class token included."""

CASES = [
    Case("resnet56 16 3x3 @32", 128, 128, 16, 32, 16, 3),
    Case("resnet56 16-32 3x3/2 @32", 128, 128, 16, 32, 32, 3, 2),
    Case("resnet56 32 3x3 @16", 128, 128, 32, 16, 32, 3),
    Case("resnet56 32-64 3x3/2 @16", 128, 128, 32, 16, 64, 3, 2),
    Case("resnet56 64 3x3 @8", 128, 128, 64, 8, 64, 3),
    Case("resnet50 stem 6-64 7x7/2 @224", 16, 64, 6, 224, 64, 7, 2),
    Case("resnet50 64-256 1x1 @56", 16, 64, 64, 56, 256),
    Case("resnet50 256-64 1x1 @56", 16, 64, 256, 56, 64),
    Case("resnet50 64 3x3 @56", 16, 64, 64, 56, 64, 3),
    Case("resnet50 128 3x3 @28", 16, 64, 128, 28, 128, 3),
    Case("resnet50 256 3x3 @14", 16, 64, 256, 14, 256, 3),
    Case("resnet50 512 3x3 @7", 16, 64, 512, 7, 512, 3),
    Case("resnet50 256-512 1x1/2 @56", 16, 64, 256, 56, 512, stride=2),
    Case("resnet50 1024-256 1x1 @14", 16, 64, 1024, 14, 256),
    Case("densenet121 256-128 1x1 @28", 16, 64, 256, 28, 128),
    Case("densenet121 128-32 3x3 @28", 16, 64, 128, 28, 32, 3),
    Case("vgg16 64 3x3 @224", 4, 32, 64, 224, 64, 3),
    Case("vgg16 512 3x3 @28", 4, 32, 512, 28, 512, 3),
    Case("vit_s qkv 384-1152", 16 * TOKENS, 64 * TOKENS, 384, 1, 1152, linear=True),
    Case("vit_s mlp 384-1536", 16 * TOKENS, 64 * TOKENS, 384, 1, 1536, linear=True),
    Case("vit_s mlp 1536-384", 16 * TOKENS, 64 * TOKENS, 1536, 1, 384, linear=True),
    Case("small: 32-32, 128 rows", 128, 128, 32, 1, 32, linear=True),
    Case("small: 64-64, one row", 1, 1, 64, 1, 64, linear=True),
    Case("convnext depthwise 96 7x7 @56", 16, 64, 96, 56, 96, 7, groups=96),
    Case("b 1.25: 64-256 1x1 @56", 16, 64, 64, 56, 256, b=1.25),
    Case("b 1.25: 128 3x3 @28", 16, 64, 128, 28, 128, 3, b=1.25),
    Case("trainable b: 64-256 1x1 @56", 16, 64, 64, 56, 256, b=1.75, trainable_b=True),
    Case("trainable b: 128 3x3 @28", 16, 64, 128, 28, 128, 3, b=1.75, trainable_b=True),
    Case("max_out 2: 64-256 1x1 @56", 16, 64, 64, 56, 256, max_out=2),
    Case("max_out 2: 128 3x3 @28", 16, 64, 128, 28, 128, 3, max_out=2),
    Case("groups 2: 128 3x3 @28", 16, 64, 128, 28, 128, 3, groups=2),
    Case("groups 32: resnext50 128 3x3 @56", 16, 64, 128, 56, 128, 3, groups=32),
    Case("groups 32: resnext50 512 3x3 @14", 16, 64, 512, 14, 512, 3, groups=32),
    Case("dilation 2: 256 3x3 @14", 16, 64, 256, 14, 256, 3, dilation=2),
    Case("contiguous: 64-256 1x1 @56", 16, 64, 64, 56, 256, contiguous=True),
    Case("contiguous: 128 3x3 @28", 16, 64, 128, 28, 128, 3, contiguous=True),
]


@dataclass(frozen=True)
class NetworkCase:
    """A network whose training step is measured, B-cos against the same network with plain layers."""

    name: str
    """Of a builder in networks.py."""
    batch: int
    cuda_batch: int
    size: int
    num_classes: int

    def on(self, device: str) -> "NetworkCase":
        return replace(self, batch=self.cuda_batch) if device == "cuda" else self


NETWORKS = [
    NetworkCase("resnet56", 128, 128, 32, 10),
    NetworkCase("resnet50", 16, 64, 224, 1000),
    NetworkCase("resnext50_32x4d", 16, 64, 224, 1000),
    NetworkCase("convnext_tiny", 16, 64, 224, 1000),
]
