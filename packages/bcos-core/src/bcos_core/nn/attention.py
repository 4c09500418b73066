"""Attention whose explanation runs through the values."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .detachable import Detachable


class SelfAttention(Detachable):
    """Multi-head self-attention, softmax(q kᵀ / √d) v, without biases (Vaswani et al., NeurIPS 2017, eq. 1).

    In explanation mode q and k, and with them the softmax, are constants: the output is linear in v, a weighted sum of
    what the tokens say (Böhle et al., TPAMI 2024, arXiv 2306.10898, sec. 3). PyTorch's fused attention computes both.

    Args:
        dim: Features D of a token.
        heads: Number of heads, a divisor of D.
        projection: From the concatenated heads to the output, D to D; B-cos or plain.

    Raises:
        ValueError: If ``heads`` does not divide ``dim``.

    Example:
        >>> import torch
        >>> from bcos_core.nn import BcosLinear
        >>> SelfAttention(8, 2, BcosLinear(8, 8))(torch.rand(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, dim: int, heads: int, projection: nn.Module) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads: expected a divisor of {dim} features, got {heads}")
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = projection

    def forward(self, x: Float[Tensor, "n tokens dim"]) -> Float[Tensor, "n tokens dim"]:
        n, tokens, dim = x.shape
        q, k, v = self.to_qkv(x).view(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        if self.detach:
            q, k = q.detach(), k.detach()
        heads = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(heads.transpose(1, 2).reshape(n, tokens, dim))

    def extra_repr(self) -> str:
        return f"heads={self.heads}"
