"""ConvNeXt (Liu et al., CVPR 2022, arXiv 2201.03545)."""

import torch
from bcos_core.nn import BcosConv2d, BcosLinear
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from .variant import Layers


def _norm(layers: Layers, channels: int, *, pooled: bool = False) -> nn.Module:
    """A norm of each pixel's channels unless another is asked for; batch norms keep an eps of their own."""
    batch = (layers.norm_name or "").startswith("batch")
    return layers.norm(channels, default="position", eps=1e-5 if batch else 1e-6, pooled=pooled)


class ConvNeXtBlock(nn.Module):
    """7x7 depthwise convolution, norm, and two 1x1 convolutions around a shortcut.

    Args:
        layers: The variant's layers.
        channels: Channels of input and output.
        drop: Probability that the block is left out for an image in training (stochastic depth).
    """

    def __init__(self, layers: Layers, channels: int, drop: float) -> None:
        super().__init__()
        self.depthwise = layers.conv(channels, channels, 7, groups=channels, bias=True)
        self.norm = _norm(layers, channels)
        self.expand = layers.conv(channels, 4 * channels, 1, bias=True)
        self.activation = layers.activation("gelu")
        self.project = layers.conv(4 * channels, channels, 1, bias=True)
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), 1e-6))
        self.stochastic_depth = StochasticDepth(drop, "row")

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        y = self.project(self.activation(self.expand(self.norm(self.depthwise(x)))))
        return self.stochastic_depth(self.layer_scale * y) + x


class ConvNeXt(nn.Module):
    """A ConvNeXt.

    Args:
        layers: The variant's layers.
        in_channels: Channels of the encoded images.
        num_classes: Number of logits.
        blocks: Number of blocks in each stage.
        width: Channels of the first stage; each further stage halves the size and doubles them.
        drop: Stochastic depth of the last block; it rises linearly from 0.
        small: A 3x3 stem at stride 1, for small images.
    """

    def __init__(
        self,
        layers: Layers,
        in_channels: int,
        num_classes: int,
        *,
        blocks: tuple[int, ...],
        width: int,
        drop: float,
        small: bool,
    ) -> None:
        super().__init__()
        stem = (3, 1) if small else (4, 4)
        first = layers.conv(in_channels, width, *stem, padding=1 if small else 0, bias=True)
        self.features = nn.Sequential(nn.Sequential(first, _norm(layers, width)))
        depth, total = 0, sum(blocks)
        for stage, num_blocks in enumerate(blocks):
            channels = width * 2**stage
            if stage:
                halve = layers.conv(channels // 2, channels, 2, 2, padding=0, bias=True)
                self.features.append(nn.Sequential(_norm(layers, channels // 2), halve))
            drops = [drop * (depth + index) / (total - 1) for index in range(num_blocks)]
            self.features.append(nn.Sequential(*(ConvNeXtBlock(layers, channels, d) for d in drops)))
            depth += num_blocks
        channels = width * 2 ** (len(blocks) - 1)
        self.norm = _norm(layers, channels, pooled=layers.is_standard)
        self.classifier = layers.classifier(channels, num_classes)
        self.logits = layers.logits(num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear, BcosConv2d)):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        x = self.features(x)
        if isinstance(self.classifier, (nn.Linear, BcosLinear)):  # as published: the norm is of the pooled features
            return self.classifier(self.norm(x.mean((2, 3), keepdim=True)).flatten(1))
        return self.logits(self.classifier(self.norm(x)).mean((2, 3)))
