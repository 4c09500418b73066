"""Vision transformers: SimpleViT (Beyer et al., arXiv 2205.01580) and ViT_C, with a convolutional stem (Xiao et al.,
NeurIPS 2021, arXiv 2106.14881).

Tokens are averaged, there is no class token, and positions are fixed sines and cosines, so that images may have any
size that the patches divide.
"""

from bcos_core.nn import SelfAttention, SinCosPosition
from bcos_core.run.error import InputError
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from .variant import Layers

Tokens = Float[Tensor, "n tokens dim"]


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each after a norm and around a shortcut."""

    def __init__(self, layers: Layers, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = layers.norm(dim, default="position")
        self.attention = SelfAttention(dim, heads, layers.linear(dim, dim, bias=False))
        self.norm2 = layers.norm(dim, default="position")
        self.expand = layers.linear(dim, 4 * dim)
        self.activation = layers.activation("gelu")
        self.project = layers.linear(4 * dim, dim)

    def forward(self, x: Tokens) -> Tokens:
        x = x + self.attention(normalise_tokens(self.norm1, x))
        return x + self.project(self.activation(self.expand(normalise_tokens(self.norm2, x))))


class VisionTransformer(nn.Module):
    """A SimpleViT or ViT_C.

    Args:
        layers: The variant's layers. A norm that is asked for by name sees tokens as a picture's pixels.
        in_channels: Channels of the encoded images.
        num_classes: Number of logits.
        dim: Features of a token.
        depth: Number of blocks.
        heads: Heads of attention.
        patch: Side of a patch, in pixels of the image or of what the stem makes of it.
        stem: Channels of the 3x3 convolutions before it.
        halvings: How many of those, counted from the last, have stride 2.
    """

    def __init__(
        self,
        layers: Layers,
        in_channels: int,
        num_classes: int,
        *,
        dim: int,
        depth: int,
        heads: int,
        patch: int,
        stem: tuple[int, ...] = (),
        halvings: int = 0,
    ) -> None:
        super().__init__()
        self.patch = patch
        self._multiple = patch * 2**halvings
        self.stem = nn.Sequential()
        channels = in_channels
        growing = [width > before for before, width in zip((0, *stem), stem, strict=False)]
        for k, width in enumerate(stem):
            stride = 2 if growing[k] and sum(growing[k:]) <= halvings else 1
            self.stem.append(layers.conv(channels, width, 3, stride, bias=True))
            self.stem.append(layers.norm(width, default="layer"))
            self.stem.append(layers.activation("gelu"))
            channels = width
        self.embed = layers.linear(channels * patch * patch, dim)
        self.position = SinCosPosition()
        self.blocks = nn.Sequential(*(TransformerBlock(layers, dim, heads) for _ in range(depth)))
        self.norm = layers.norm(dim, default="position", pooled=True)
        self.head = layers.linear(dim, num_classes)
        self.logits = layers.logits(num_classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits of encoded images.

        Raises:
            InputError: If a side of the images is no multiple of the patch.
        """
        if x.shape[2] % self._multiple or x.shape[3] % self._multiple:
            raise InputError(
                f"images: this network takes sides that are multiples of {self._multiple} pixels, "
                f"got {x.shape[2]}x{x.shape[3]}"
            )
        x = self.stem(x)
        x = rearrange(x, "n c (h p) (w q) -> n h w (p q c)", p=self.patch, q=self.patch)
        x = self.position(self.embed(x)).flatten(1, 2)
        x = self.blocks(x).mean(1, keepdim=True)
        return self.logits(self.head(normalise_tokens(self.norm, x)[:, 0]))


def normalise_tokens(norm: nn.Module, x: Tokens) -> Tokens:
    """A norm of (N, C, H, W), applied to tokens as to the pixels of a picture of one column."""
    return norm(x.transpose(1, 2).unsqueeze(3)).squeeze(3).transpose(1, 2)
