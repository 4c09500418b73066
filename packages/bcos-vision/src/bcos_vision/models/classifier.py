"""A classifier takes images in [0, 1] and encodes them itself."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


class ImageClassifier(nn.Module):
    """Encoding and network: ``model(images) == model.network(model.encode(images))``.

    Args:
        encoding: From images in [0, 1] to what the first layer sees.
        network: From encoded images to logits.
        in_channels: Channels of an image.
        num_classes: Number of logits.
        description: The arguments of :func:`bcos_vision.create_model` that build this model again.
    """

    def __init__(
        self,
        encoding: nn.Module,
        network: nn.Module,
        *,
        in_channels: int,
        num_classes: int,
        description: dict[str, Any],
    ) -> None:
        super().__init__()
        self.encoding = encoding
        self.network = network
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.description = description

    @property
    def is_bcos(self) -> bool:
        """Whether it is a B-cos network, built as one or converted."""
        return self.description["variant"] == "bcos" or "conversion" in self.description

    @property
    def kind(self) -> str:
        """What it is to a reader: its variant, or "bcos" for one that was converted from another."""
        return "bcos" if self.is_bcos else self.description["variant"]

    def encode(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h w"]:
        """What the first layer sees: [x, 1-x] for variant bcos, standardised images for the others.

        Raises:
            ValueError: If the shape is not (N, in_channels, H, W).
        """
        is_tensor = isinstance(images, Tensor)  # and no stand-in of torch.fx, which has no shape
        if is_tensor and (images.dim() != 4 or images.shape[1] != self.in_channels):
            raise ValueError(f"images: expected shape (N, {self.in_channels}, H, W), got {tuple(images.shape)}")
        return self.encoding(images)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.network(self.encode(images))
