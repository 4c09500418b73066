"""DiFull (Rao et al., CVPR 2022, arXiv 2205.10435): a model on whose grids the truth is known."""

from functools import partial

from bcos_vision.models import ImageClassifier
from jaxtyping import Float
from torch import Tensor, nn

from bcos_eval.attribution.cam import through_grid

from .mosaic import tile, untile


class DisconnectedModel(nn.Module):
    """A classifier applied to each cell of a mosaic by itself: no other cell can have influenced a cell's logits.

    A map that credits another cell is wrong, whatever the network is like. Methods that follow the gradient back to the
    input (contributions, input x gradient, integrated gradients) credit no other by construction: the game tests the
    others, those that perturb regions across cells' borders and those that weight whole feature maps (Grad-CAM). It is
    no contest between models.

    Args:
        model: The classifier.
        side: Cells along a side of the mosaic.
        layer: Name of a module of ``model.network`` that gives feature maps or tokens. Those of all cells pass, as
            one mosaic, through :data:`FEATURES`, which is where Grad-CAM has to look.

    Example:
        >>> import bcos_vision, torch
        >>> model = DisconnectedModel(bcos_vision.create_model("resnet20", num_classes=10), side=2)
        >>> model(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 40])
    """

    def __init__(self, model: ImageClassifier, side: int, layer: str | None = None) -> None:
        super().__init__()
        self.encoding = model.encoding
        self.network = _Cells(model.network, side, layer)

    def encode(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h w"]:
        """What the first layers see: encodings act pixel by pixel, so that of a mosaic is that of its cells."""
        return self.encoding(images)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits of every class in every cell: class k in cell j is number j K + k."""
        return self.network(self.encode(images))


FEATURES = "features"
"""Name, in a disconnected model's network, of the module that the feature maps of all cells pass through."""


class _Cells(nn.Module):
    def __init__(self, network: nn.Module, side: int, layer: str | None) -> None:
        super().__init__()
        self.network = network
        self.side = side
        self.layer = layer
        self.features = nn.Identity()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        cells = untile(x, self.side)
        if self.layer is None:
            logits = self.network(cells)
        else:
            # for this pass only: the network is the classifier's own, which others may be using
            handle = self.network.get_submodule(self.layer).register_forward_hook(
                partial(self._through_features, (cells.shape[2], cells.shape[3]))
            )
            try:
                logits = self.network(cells)
            finally:
                handle.remove()
        return logits.unflatten(0, (-1, self.side**2)).flatten(1)

    def _through_features(self, size: tuple[int, int], _module: nn.Module, _args: object, output: Tensor) -> Tensor:
        def through(maps: Tensor) -> Tensor:
            return untile(self.features(tile(maps, self.side)), self.side)

        return through_grid(output, size, through) if output.dim() == 3 else through(output)
