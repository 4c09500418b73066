"""The three variants of a network: one definition, three sets of layers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from bcos_core.nn import (
    GELU,
    BatchNorm2d,
    BatchNormUncentered2d,
    BcosConv2d,
    BcosLinear,
    GroupNorm2d,
    GroupNormUncentered2d,
    InstanceNorm2d,
    InstanceNormUncentered2d,
    LayerNorm2d,
    LayerNormUncentered2d,
    LogitLayer,
    PositionNorm2d,
    PositionNormUncentered2d,
)
from bcos_core.run.error import InputError, unknown_name
from jaxtyping import Float
from torch import Tensor, nn


def _grouped(kind: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The papers' 32 groups, or as many of at least two channels as there are."""
    return lambda c, **options: kind(max((g for g in range(1, 33) if c % (2 * g) == 0), default=1), c, **options)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch_uncentered": BatchNormUncentered2d,
    "layer_uncentered": LayerNormUncentered2d,
    "group_uncentered": _grouped(GroupNormUncentered2d),
    "instance_uncentered": InstanceNormUncentered2d,
    "position_uncentered": PositionNormUncentered2d,
    "batch": BatchNorm2d,
    "layer": LayerNorm2d,
    "group": _grouped(GroupNorm2d),
    "instance": InstanceNorm2d,
    "position": PositionNorm2d,
    "none": lambda _c, **_options: nn.Identity(),
}


@dataclass(frozen=True)
class Layers:
    """What a network is built of.

    - ``bcos``: B-cos layers, norms without bias, no activation, average pooling, a B-cos classifier before the global
      pooling;
    - ``baseline``: the same network with plain layers and activations, no bias in layer or norm: the difference to
      ``bcos`` is the B-cos transform;
    - ``standard``: as published: biases, max pooling, a linear classifier after the global pooling.
    """

    variant: str
    b: float = 2.0
    max_out: int = 1
    norm_name: str | None = None
    logit_bias: float | None = None
    temperature: float = 1.0
    bias: bool = False

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
        if not self.is_bcos and self.bias:
            raise InputError(f'bias: belongs to variant "bcos", not "{self.variant}"')
        if self.is_standard and (self.logit_bias is not None or self.temperature != 1):
            raise InputError('logit_bias, temperature: they belong to variants "bcos" and "baseline"')

    @property
    def is_bcos(self) -> bool:
        return self.variant == "bcos"

    @property
    def is_standard(self) -> bool:
        return self.variant == "standard"

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        groups: int = 1,
        padding: int | None = None,
        bias: bool = False,
    ) -> nn.Module:
        """A convolution, by default one that keeps the size (at stride 1); ``bias`` is the standard variant's alone."""
        padding = kernel_size // 2 if padding is None else padding
        if self.is_bcos:
            options = {"groups": groups, "b": self.b, "max_out": self.max_out, "bias": self.bias}
            return BcosConv2d(in_channels, out_channels, kernel_size, stride, padding, **options)
        bias = bias and self.is_standard
        layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        return layer

    def linear(self, in_features: int, out_features: int, *, bias: bool = True) -> nn.Module:
        """A linear layer; ``bias`` is the standard variant's alone."""
        if self.is_bcos:
            return BcosLinear(in_features, out_features, b=self.b, max_out=self.max_out, bias=self.bias)
        return nn.Linear(in_features, out_features, bias=bias and self.is_standard)

    def norm(self, channels: int, *, default: str | None = None, eps: float = 1e-5, pooled: bool = False) -> nn.Module:
        """A norm layer for (N, C, H, W): the one asked for, else the network's ``default``, else batch norm.

        Of ``pooled`` features, (N, C, 1, 1), an instance norm would leave nothing: they get a position norm.
        """
        name = self.norm_name or default or ("batch_uncentered" if self.is_bcos else "batch")
        if pooled:
            name = name.replace("instance", "position")
        return NORMS[name](channels, bias=self.is_standard or self.bias, eps=eps)

    def activation(self, kind: Literal["relu", "gelu"] = "relu") -> nn.Module:
        if self.is_bcos:
            return nn.Identity()
        return nn.ReLU(inplace=True) if kind == "relu" else GELU()

    def pool(self, kernel_size: int, stride: int, padding: int = 0) -> nn.Module:
        """Pooling within the network: of averages, or as published of maxima."""
        kind = nn.MaxPool2d if self.is_standard else nn.AvgPool2d
        return kind(kernel_size, stride, padding)

    def classifier(self, channels: int, num_classes: int) -> nn.Module:
        """What :func:`pool_and_classify` takes: a 1x1 convolution, or as published a linear layer."""
        if self.is_standard:
            return nn.Linear(channels, num_classes)
        return self.conv(channels, num_classes, 1)

    def logits(self, num_classes: int) -> nn.Module:
        """The constants at the end of a network; nothing in the standard variant."""
        if self.is_standard:
            return nn.Identity()
        bias = LogitLayer.prior_bias(num_classes) if self.logit_bias is None else self.logit_bias
        return LogitLayer(bias=bias, temperature=self.temperature)


def pool_and_classify(
    features: Float[Tensor, "n c h w"], classifier: nn.Module, logits: nn.Module
) -> Float[Tensor, "n k"]:
    """Global average pooling and classification: a convolution classifies first, pixel by pixel."""
    if isinstance(classifier, (nn.Linear, BcosLinear)):
        return logits(classifier(F.adaptive_avg_pool2d(features, 1).flatten(1)))
    return logits(F.adaptive_avg_pool2d(classifier(features), 1).flatten(1))


def channels_last(model: nn.Module) -> nn.Module:
    """Lay the filters out as the kernels like them: channels innermost."""
    return model.to(memory_format=torch.channels_last)
