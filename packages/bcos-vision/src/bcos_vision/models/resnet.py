"""Residual networks (He et al., CVPR 2016, arXiv 1512.03385).

The CIFAR family has 6n+2 layers: a 3x3 stem, three stages of n basic blocks with 16, 32 and 64 channels, global
pooling. Shortcuts that change the shape are 1x1 convolutions with a norm, as in the public B-cos v2 code (the paper's
own CIFAR networks pad with zeros instead). Module names are torchvision's.
"""

from jaxtyping import Float
from torch import Tensor, nn

from .variant import Layers


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, layers: Layers, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = layers.conv(in_channels, channels, 3, stride)
        self.bn1 = layers.norm(channels)
        self.relu1 = layers.activation()
        self.conv2 = layers.conv(channels, channels, 3)
        self.bn2 = layers.norm(channels)
        self.relu2 = layers.activation()
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(layers.conv(in_channels, channels, 1, stride), layers.norm(channels))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d p q"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(y)) + shortcut)


class ResNet(nn.Module):
    """A residual network for small images.

    Args:
        layers: The variant's layers.
        in_channels: Channels of the encoded images.
        num_classes: Number of logits.
        blocks: Number of blocks in each stage; each stage after the first halves the size and doubles the channels.
        width: Channels of the first stage.
    """

    def __init__(
        self, layers: Layers, in_channels: int, num_classes: int, *, blocks: tuple[int, ...], width: int
    ) -> None:
        super().__init__()
        self.conv1 = layers.conv(in_channels, width, 3)
        self.bn1 = layers.norm(width)
        self.relu = layers.activation()
        stages = []
        channels = width
        for stage, num_blocks in enumerate(blocks):
            out_channels = width * 2**stage
            strides = [1 if stage == 0 else 2] + [1] * (num_blocks - 1)
            inputs = [channels] + [out_channels] * (num_blocks - 1)
            stages.append(
                nn.Sequential(*(BasicBlock(layers, i, out_channels, s) for i, s in zip(inputs, strides, strict=True)))
            )
            channels = out_channels
        self.stages = nn.Sequential(*stages)
        self.head = layers.head(channels, num_classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.head(self.stages(self.relu(self.bn1(self.conv1(x)))))
