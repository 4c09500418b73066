"""Densely connected networks (Huang et al., CVPR 2017, arXiv 1608.06993). Module names are torchvision's."""

import torch
from bcos_core.nn import BcosConv2d
from jaxtyping import Float
from torch import Tensor, nn

from .variant import Layers, pool_and_classify


class DenseLayer(nn.Module):
    """Norm, 1x1, norm, 3x3: what it answers is appended to what it saw."""

    def __init__(self, layers: Layers, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = layers.norm(in_channels)
        self.relu1 = layers.activation()
        self.conv1 = layers.conv(in_channels, 4 * growth, 1)
        self.norm2 = layers.norm(4 * growth)
        self.relu2 = layers.activation()
        self.conv2 = layers.conv(4 * growth, growth, 3)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        y = self.conv1(self.relu1(self.norm1(x)))
        return torch.cat([x, self.conv2(self.relu2(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    """A DenseNet-BC.

    Args:
        layers: The variant's layers.
        in_channels: Channels of the encoded images.
        num_classes: Number of logits.
        blocks: Number of layers in each dense block.
        growth: Channels that each layer adds.
        small: A 3x3 stem without norm and pooling, for small images.
    """

    def __init__(
        self,
        layers: Layers,
        in_channels: int,
        num_classes: int,
        *,
        blocks: tuple[int, ...],
        growth: int,
        small: bool,
    ) -> None:
        super().__init__()
        channels = 2 * growth
        self.features = nn.Sequential()
        if small:
            self.features.add_module("conv0", layers.conv(in_channels, channels, 3))
        else:
            self.features.add_module("conv0", layers.conv(in_channels, channels, 7, 2))
            self.features.add_module("norm0", layers.norm(channels))
            self.features.add_module("relu0", layers.activation())
            self.features.add_module("pool0", layers.pool(3, 2, 1))
        for k, num_layers in enumerate(blocks, start=1):
            block = nn.Sequential()
            for index in range(1, num_layers + 1):
                block.add_module(f"denselayer{index}", DenseLayer(layers, channels, growth))
                channels += growth
            self.features.add_module(f"denseblock{k}", block)
            if k < len(blocks):
                transition = nn.Sequential()
                transition.add_module("norm", layers.norm(channels))
                transition.add_module("relu", layers.activation())
                channels //= 2
                transition.add_module("conv", layers.conv(2 * channels, channels, 1))
                transition.add_module("pool", nn.AvgPool2d(2, 2))
                self.features.add_module(f"transition{k}", transition)
        self.features.add_module("norm5", layers.norm(channels))
        self.features.add_module("relu5", layers.activation())
        self.classifier = layers.classifier(channels, num_classes)
        self.logits = layers.logits(num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, BcosConv2d)):
                nn.init.kaiming_normal_(module.weight)  # fan-in, as published

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return pool_and_classify(self.features(x), self.classifier, self.logits)
