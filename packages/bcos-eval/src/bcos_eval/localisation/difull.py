"""DiFull (Rao et al., CVPR 2022, arXiv 2205.10435): a model on whose grids the truth is known."""

from bcos_vision.models import ImageClassifier
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from .mosaic import untile


class DisconnectedModel(nn.Module):
    """A classifier applied to each cell of a mosaic by itself: no other cell can have influenced a cell's logits.

    A map that credits another cell is wrong, whatever the network is like. Methods that follow the gradient alone
    (contributions, input x gradient, integrated gradients) score 1 by construction: the game tests the others, such as
    those that perturb and those that scale features up. It is no contest between models.

    Args:
        model: The classifier.
        side: Cells along a side of the mosaic.

    Example:
        >>> import bcos_vision, torch
        >>> model = DisconnectedModel(bcos_vision.create_model("resnet20", num_classes=10), side=2)
        >>> model(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 40])
    """

    def __init__(self, model: ImageClassifier, side: int) -> None:
        super().__init__()
        self.in_channels = model.in_channels
        self.num_classes = model.num_classes * side**2
        self.description = model.description
        self.encoding = model.encoding
        self.network = _Cells(model.network, side)

    def encode(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h w"]:
        """What the first layers see: encodings act pixel by pixel, so that of a mosaic is that of its cells."""
        return self.encoding(images)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits of every class in every cell: class k in cell j is number j K + k."""
        return self.network(self.encode(images))


class _Cells(nn.Module):
    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network = network
        self.side = side

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return rearrange(self.network(untile(x, self.side)), "(n cells) k -> n (cells k)", cells=self.side**2)
