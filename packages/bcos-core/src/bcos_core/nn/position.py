"""Constants beside the input, such as where a token stands: an explanation keeps them apart from it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SinCosPosition(nn.Module):
    """Add sines and cosines of a token's column and row (Beyer et al., arXiv 2205.01580, sec. 3).

    The first half of the features tells the column, the second the row, with D/4 wavelengths from 2π to 2π·10,000.
    No input is responsible for them: they stand in an explanation's remainder. The grid may have any size.

    Args:
        temperature: Ratio of the longest wavelength to the shortest.

    Example:
        >>> SinCosPosition()(torch.zeros(1, 2, 2, 8))[0, 1, 0, :2]  # column 0: sin 0
        tensor([0., 0.])
    """

    def __init__(self, temperature: float = 10_000.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, tokens: Float[Tensor, "n h w dim"]) -> Float[Tensor, "n h w dim"]:
        """Tokens of a grid, shape (N, H, W, D), with their positions added.

        Raises:
            ValueError: If D is not a multiple of 4, or 4 itself.
        """
        h, w, dim = tokens.shape[1:]
        if dim % 4 or dim < 8:
            raise ValueError(f"tokens: expected a multiple of 4 features, at least 8, got {dim}")
        # in float32 whatever the tokens: the same constants as in training, in every precision
        steps = torch.arange(dim // 4, device=tokens.device) / (dim // 4 - 1)
        frequency = 1 / self.temperature**steps
        column = torch.arange(w, device=tokens.device)[:, None] * frequency
        row = torch.arange(h, device=tokens.device)[:, None] * frequency
        columns = torch.cat([column.sin(), column.cos()], 1).expand(h, w, -1)
        rows = torch.cat([row.sin(), row.cos()], 1)[:, None].expand(h, w, -1)
        return tokens + torch.cat([columns, rows], -1).to(tokens.dtype)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature:g}"


class Constant(nn.Module):
    """A parameter that a network adds to its input, or puts beside it: a learnt position, a class token.

    It answers what it gets. Explanations count in the remainder what reaches a logit from here, and know of a parameter
    only so. Where the module that owns it is not to be changed, ``torch.nn.utils.parametrize`` registers this one.

    Example:
        >>> from torch.nn.utils.parametrize import register_parametrization
        >>> network = nn.Module()
        >>> network.token = nn.Parameter(torch.ones(1, 1, 2))
        >>> register_parametrization(network, "token", Constant()).token.shape
        torch.Size([1, 1, 2])
    """

    def forward(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return value.view_as(value)
