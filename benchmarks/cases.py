"""The layers whose speed counts, with batches small enough that two cores finish the table in under two minutes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One layer: a convolution, or with ``linear`` the same numbers as a matrix product over ``batch`` rows."""

    name: str
    batch: int
    channels: int
    size: int
    out_channels: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    linear: bool = False

    @property
    def padding(self) -> int:
        return self.kernel_size // 2


CASES = [
    Case("resnet56 16 3x3 @32", 32, 16, 32, 16, 3),
    Case("resnet56 32 3x3 @16", 32, 32, 16, 32, 3),
    Case("resnet56 64 3x3 @8", 32, 64, 8, 64, 3),
    Case("resnet50 stem 6-64 7x7/2 @224", 2, 6, 224, 64, 7, 2),
    Case("resnet50 64-256 1x1 @56", 4, 64, 56, 256),
    Case("resnet50 256-64 1x1 @56", 4, 256, 56, 64),
    Case("resnet50 64 3x3 @56", 4, 64, 56, 64, 3),
    Case("resnet50 128 3x3 @28", 4, 128, 28, 128, 3),
    Case("resnet50 256 3x3 @14", 4, 256, 14, 256, 3),
    Case("resnet50 512 3x3 @7", 4, 512, 7, 512, 3),
    Case("resnet50 256-512 1x1/2 @56", 4, 256, 56, 512, stride=2),
    Case("resnet50 1024-256 1x1 @14", 4, 1024, 14, 256),
    Case("densenet121 256-128 1x1 @28", 4, 256, 28, 128),
    Case("densenet121 128-32 3x3 @28", 4, 128, 28, 32, 3),
    Case("vgg16 64 3x3 @224", 1, 64, 224, 64, 3),
    Case("vgg16 512 3x3 @28", 1, 512, 28, 512, 3),
    Case("convnext depthwise 96 7x7 @56", 2, 96, 56, 96, 7, groups=96),
    Case("vit_s qkv 384-1152", 4 * 197, 384, 1, 1152, linear=True),
    Case("vit_s mlp 384-1536", 4 * 197, 384, 1, 1536, linear=True),
    Case("vit_s mlp 1536-384", 4 * 197, 1536, 1, 384, linear=True),
]
