"""The three variants of a network: one definition, three sets of layers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from bcos_core.nn import (
    BatchNorm2d,
    BatchNormUncentered2d,
    BcosConv2d,
    GroupNormUncentered2d,
    InstanceNormUncentered2d,
    LayerNormUncentered2d,
    LogitLayer,
    PositionNormUncentered2d,
)
from bcos_core.run.error import InputError, unknown_name
from torch import nn

NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch_uncentered": BatchNormUncentered2d,
    "layer_uncentered": LayerNormUncentered2d,
    # the papers' 32 groups, or as many as divide the channels
    "group_uncentered": lambda c, **options: GroupNormUncentered2d(
        max(g for g in range(1, 33) if c % g == 0), c, **options
    ),
    "instance_uncentered": InstanceNormUncentered2d,
    "position_uncentered": PositionNormUncentered2d,
    "batch": BatchNorm2d,
    "none": lambda _c, **_options: nn.Identity(),
}


@dataclass(frozen=True)
class Layers:
    """What a network is built of.

    - ``bcos``: B-cos convolutions, uncentred batch norm without bias, no activation, a B-cos 1x1 classifier before
      the pooling;
    - ``baseline``: the same network with plain convolutions and ReLU, no bias in convolution or norm: the difference
      to ``bcos`` is the B-cos transform;
    - ``standard``: as published: norms with bias, a linear classifier with bias after the pooling.
    """

    variant: str
    b: float = 2.0
    max_out: int = 1
    norm_name: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no variant has.

        Raises:
            InputError: Naming the argument and the nearest valid value.
        """
        if self.variant not in ("bcos", "baseline", "standard"):
            raise unknown_name("variant", self.variant, ("bcos", "baseline", "standard"))
        if self.norm_name is not None and self.norm_name not in NORMS:
            raise unknown_name("norm", self.norm_name, NORMS)
        if not self.is_bcos and (self.b != 2 or self.max_out != 1):
            raise InputError(f'b, max_out: they belong to variant "bcos", not "{self.variant}"')

    @property
    def is_bcos(self) -> bool:
        return self.variant == "bcos"

    def conv(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Module:
        """A convolution that keeps the size (at stride 1), without bias."""
        padding = kernel_size // 2
        if self.is_bcos:
            return BcosConv2d(in_channels, out_channels, kernel_size, stride, padding, b=self.b, max_out=self.max_out)
        layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        return layer

    def norm(self, channels: int) -> nn.Module:
        name = self.norm_name or ("batch_uncentered" if self.is_bcos else "batch")
        return NORMS[name](channels, bias=self.variant == "standard")

    def activation(self) -> nn.Module:
        return nn.Identity() if self.is_bcos else nn.ReLU(inplace=True)

    def head(self, channels: int, num_classes: int) -> nn.Module:
        """From the last feature map to logits."""
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
        if self.variant == "standard":
            return nn.Sequential(*pool, nn.Linear(channels, num_classes))
        bias = LogitLayer.prior_bias(num_classes)
        return nn.Sequential(self.conv(channels, num_classes, 1), *pool, LogitLayer(bias=bias))


def channels_last(model: nn.Module) -> nn.Module:
    """Lay the filters out as the kernels like them: channels innermost."""
    return model.to(memory_format=torch.channels_last)
