"""VGG networks (Simonyan & Zisserman, ICLR 2015, arXiv 1409.1556). Module names are torchvision's.

The standard variant has no norm unless asked ("batch": torchvision's vgg*_bn); the others have batch norm, as the
public B-cos v2 vgg11_bnu. They turn the first linear layer into a 7x7 convolution and pool last.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .variant import Layers


class VGG(nn.Module):
    """A VGG network.

    Args:
        layers: The variant's layers.
        in_channels: Channels of the encoded images.
        num_classes: Number of logits.
        convs: Number of 3x3 convolutions in each of the five stages, which have 64 to 512 channels.
        small: A single linear layer (or 1x1 convolution) as classifier, for small images.
    """

    def __init__(
        self, layers: Layers, in_channels: int, num_classes: int, *, convs: tuple[int, ...], small: bool
    ) -> None:
        super().__init__()
        self._small = small
        self.features = nn.Sequential()
        channels = in_channels
        for stage, num_convs in enumerate(convs):
            for _ in range(num_convs):
                width = min(64 * 2**stage, 512)
                self.features.append(layers.conv(channels, width, 3, bias=True))
                norm = layers.norm(width, default="none" if layers.is_standard else None)
                self._append(norm, layers.activation())
                channels = width
            self.features.append(layers.pool(2, 2))
        self._pools_first = layers.is_standard
        if small:
            self.classifier = layers.classifier(channels, num_classes)
        elif layers.is_standard:
            hidden = (nn.Linear(channels * 7 * 7, 4096), nn.ReLU(True), nn.Dropout(), nn.Linear(4096, 4096))
            self.classifier = nn.Sequential(*hidden, nn.ReLU(True), nn.Dropout(), nn.Linear(4096, num_classes))
            for module in self.classifier:
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, 0, 0.01)
                    nn.init.zeros_(module.bias)
        else:
            self.classifier = nn.Sequential()
            for width, kernel_size in ((4096, 7), (4096, 1), (num_classes, 1)):
                self.classifier.append(layers.conv(channels, width, kernel_size))
                if width == 4096 and not layers.is_bcos:
                    self.classifier.append(layers.activation())
                channels = width
        self.logits = layers.logits(num_classes)

    def _append(self, *modules: nn.Module) -> None:
        """Append what there is: the indices of the modules are part of published files."""
        self.features.extend(module for module in modules if not isinstance(module, nn.Identity))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        x = self.features(x)
        if self._pools_first:
            return self.classifier(F.adaptive_avg_pool2d(x, 1 if self._small else 7).flatten(1))
        return self.logits(F.adaptive_avg_pool2d(self.classifier(x), 1).flatten(1))
