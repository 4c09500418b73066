"""Time as an image that a network sees beside its own: a constant, which an explanation keeps apart from the input."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TimeChannel(nn.Module):
    """Append one channel that is t everywhere: C -> C + 1.

    No input is responsible for the time: what it adds to a logit stands in an explanation's remainder.

    Example:
        >>> TimeChannel()(torch.zeros(1, 2, 1, 1), 0.5).flatten()
        tensor([0.0000, 0.0000, 0.5000])
    """

    def forward(self, x: Float[Tensor, "n c h w"], t: float) -> Float[Tensor, "n c1 h w"]:
        n, _, h, w = x.shape
        return torch.cat([x, x.new_full((n, 1, h, w), t)], 1)
