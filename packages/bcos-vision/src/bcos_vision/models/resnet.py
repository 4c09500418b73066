"""Residual networks (He et al., CVPR 2016, arXiv 1512.03385) and ResNeXt (Xie et al., CVPR 2017, arXiv 1611.05431).

The ImageNet family has four stages and, from 50 layers on, bottleneck blocks with the stride in the 3x3 convolution.
The CIFAR family has 6n+2 layers: a 3x3 stem, three stages of n basic blocks with 16, 32 and 64 channels. Shortcuts that
change the shape are 1x1 convolutions with a norm, as in the public B-cos v2 code (the paper's own CIFAR networks pad
with zeros instead). Module names are torchvision's.
"""

from jaxtyping import Float
from torch import Tensor, nn

from .variant import Layers, pool_and_classify


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, layers: Layers, in_channels: int, channels: int, stride: int, groups: int, width: int) -> None:
        super().__init__()
        assert groups == 1, "only bottlenecks have groups"
        self.conv1 = layers.conv(in_channels, channels, 3, stride)
        self.bn1 = layers.norm(channels)
        self.relu1 = layers.activation()
        self.conv2 = layers.conv(channels, channels, 3)
        self.bn2 = layers.norm(channels)
        self.relu2 = layers.activation()
        self.downsample = _shortcut(layers, in_channels, channels, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d p q"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(y)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut.

    Args:
        layers: The variant's layers.
        in_channels: Channels of the input.
        channels: A quarter of the output's channels.
        stride: Of the 3x3 convolution.
        groups: Of the 3x3 convolution.
        width: Channels of a group where ``channels`` is 64.
    """

    expansion = 4

    def __init__(self, layers: Layers, in_channels: int, channels: int, stride: int, groups: int, width: int) -> None:
        super().__init__()
        inner, out_channels = channels * width // 64 * groups, channels * self.expansion
        self.conv1 = layers.conv(in_channels, inner, 1)
        self.bn1 = layers.norm(inner)
        self.relu1 = layers.activation()
        self.conv2 = layers.conv(inner, inner, 3, stride, groups=groups)
        self.bn2 = layers.norm(inner)
        self.relu2 = layers.activation()
        self.conv3 = layers.conv(inner, out_channels, 1)
        self.bn3 = layers.norm(out_channels)
        self.relu3 = layers.activation()
        self.downsample = _shortcut(layers, in_channels, out_channels, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d p q"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        return self.relu3(self.bn3(self.conv3(y)) + shortcut)


class ResNet(nn.Module):
    """A residual network.

    Args:
        layers: The variant's layers.
        in_channels: Channels of the encoded images.
        num_classes: Number of logits.
        block: Kind of block.
        blocks: Number of blocks in each stage; each stage after the first halves the size and doubles the channels.
        width: Channels of the stem, and a block's in the first stage.
        groups: Groups of a bottleneck's 3x3 convolution.
        group_width: Channels of a group in the first stage, for a width of 64.
        small: A 3x3 stem without pooling, for small images.
    """

    def __init__(
        self,
        layers: Layers,
        in_channels: int,
        num_classes: int,
        *,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, ...],
        width: int = 64,
        groups: int = 1,
        group_width: int = 64,
        small: bool,
    ) -> None:
        super().__init__()
        self.conv1 = layers.conv(in_channels, width, *((3, 1) if small else (7, 2)))
        self.bn1 = layers.norm(width)
        self.relu = layers.activation()
        self.pool = nn.Identity() if small else layers.pool(3, 2, 1)
        channels = width
        self.stages = [f"layer{k}" for k in range(1, len(blocks) + 1)]
        for k, (name, num_blocks) in enumerate(zip(self.stages, blocks, strict=True)):
            stage = nn.Sequential()
            for index in range(num_blocks):
                stride = 2 if k and not index else 1
                stage.append(block(layers, channels, width * 2**k, stride, groups, group_width))
                channels = width * 2**k * block.expansion
            self.add_module(name, stage)
        self.fc = layers.classifier(channels, num_classes)
        self.logits = layers.logits(num_classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return pool_and_classify(x, self.fc, self.logits)


def _shortcut(layers: Layers, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(layers.conv(in_channels, out_channels, 1, stride), layers.norm(out_channels))
