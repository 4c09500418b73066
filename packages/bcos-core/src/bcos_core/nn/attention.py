"""Attention whose explanation runs through the values."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .detachable import Detachable


class SelfAttention(Detachable):
    """Multi-head self-attention, softmax(q kᵀ / √d) v, biases if asked for (Vaswani et al., NeurIPS 2017, eq. 1).

    In explanation mode q and k, and with them the softmax, are constants: the output is linear in v, a weighted sum of
    what the tokens say (Böhle et al., TPAMI 2024, arXiv 2306.10898, sec. 3). PyTorch's fused attention computes both.

    Args:
        dim: Features D of a token.
        heads: Number of heads, a divisor of D.
        projection: From the concatenated heads to the output, D to D; B-cos or plain.
        bias: Whether q, k and v have biases. That of v is a part of the output that no input is responsible for.
        dropout: Probability that a token's weight is dropped in training.

    Raises:
        ValueError: If ``heads`` does not divide ``dim``, or ``dropout`` is no probability below 1.

    Example:
        >>> import torch
        >>> from bcos_core.nn import BcosLinear
        >>> SelfAttention(8, 2, BcosLinear(8, 8))(torch.rand(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(
        self, dim: int, heads: int, projection: nn.Module, *, bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads: expected a divisor of {dim} features, got {heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a probability below 1, got {dropout}")
        self.heads = heads
        self.dropout = dropout
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.to_out = projection

    def forward(
        self, x: Float[Tensor, "n tokens dim"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "n tokens dim"]:
        """Tokens that have seen each other; the masks are those of ``F.scaled_dot_product_attention``."""
        q, k, v = self._queries_keys_values(x)
        dropout = self.dropout if self.training else 0.0
        return self._project(F.scaled_dot_product_attention(q, k, v, attn_mask, dropout, is_causal))

    def _queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each of shape (N, heads, tokens, D / heads); q and k constants in explanation mode."""
        n, tokens, dim = x.shape
        q, k, v = self.to_qkv(x).view(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        return (q.detach(), k.detach(), v) if self.detach else (q, k, v)

    def _project(self, heads: Tensor) -> Tensor:
        return self.to_out(heads.transpose(1, 2).flatten(2))

    def extra_repr(self) -> str:
        return f"heads={self.heads}" + (f", dropout={self.dropout:g}" if self.dropout else "")


class MultiheadAttention(SelfAttention):
    """Self-attention that is called as ``torch.nn.MultiheadAttention`` is, and answers as that does.

    It takes the place of PyTorch's in a converted network. Query, key and value must be one tensor, and there are no
    masks.

    Args:
        dim: Features D of a token.
        heads: Number of heads, a divisor of D.
        projection: From the concatenated heads to the output, D to D; B-cos or plain.
        bias: Whether q, k and v have biases.
        dropout: Probability that a token's weight is dropped in training.
        batch_first: Whether inputs are (N, tokens, D), not (tokens, N, D).

    Example:
        >>> import torch
        >>> layer, x = MultiheadAttention(8, 2, nn.Linear(8, 8), batch_first=True), torch.rand(3, 5, 8)
        >>> y, weights = layer(x, x, x)
        >>> y.shape, weights.shape
        (torch.Size([3, 5, 8]), torch.Size([3, 5, 5]))
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        projection: nn.Module,
        *,
        bias: bool = False,
        dropout: float = 0.0,
        batch_first: bool = False,
    ) -> None:
        super().__init__(dim, heads, projection, bias=bias, dropout=dropout)
        self.batch_first = batch_first

    def forward(  # type: ignore[override] - called as PyTorch's is
        self,
        query: Float[Tensor, "a b dim"],
        key: Float[Tensor, "a b dim"],
        value: Float[Tensor, "a b dim"],
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Float[Tensor, "a b dim"], Tensor | None]:
        """The output and, if needed, the weights: (N, tokens, tokens), or (N, heads, tokens, tokens) if not averaged.

        Raises:
            ValueError: If query, key and value are not one tensor of three dimensions, or there is a mask.
        """
        if query is not key or key is not value or query.dim() != 3:
            raise ValueError("query, key, value: expected one tensor of three dimensions for all (self-attention)")
        if key_padding_mask is not None or attn_mask is not None or is_causal:
            raise ValueError("key_padding_mask, attn_mask, is_causal: expected no mask")
        if not need_weights:
            y, weights = super().forward(query if self.batch_first else query.transpose(0, 1)), None
        else:
            q, k, v = self._queries_keys_values(query if self.batch_first else query.transpose(0, 1))
            weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
            weights = F.dropout(weights, self.dropout, self.training)
            y = self._project(weights @ v)
            weights = weights.mean(1) if average_attn_weights else weights
        return y if self.batch_first else y.transpose(0, 1), weights

    def extra_repr(self) -> str:
        return super().extra_repr() + f", batch_first={self.batch_first}"
