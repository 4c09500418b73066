"""What a classifier's first layer sees of an image in [0, 1]."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class InverseEncoding(nn.Module):
    """Append the inverse channels: x -> [x, 1 - x], C -> 2C (Böhle et al., CVPR 2022, sec. 3.3).

    Every colour, black included, then has a direction of its own and a norm above zero, so that a B-cos unit can
    align with it and an explanation can show it. The constant is part of the input, and is explained with it.

    Example:
        >>> InverseEncoding()(torch.rand(1, 3, 8, 8)).shape
        torch.Size([1, 6, 8, 8])
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h w"]:
        return torch.cat([x, 1 - x], dim=1)


class Standardise(nn.Module):
    """Subtract a mean and divide by a standard deviation for each channel, as plain networks expect.

    Args:
        mean: One value for each channel.
        std: One positive value for each channel.

    Raises:
        ValueError: If the lengths differ or a standard deviation is not positive.

    Example:
        >>> Standardise([0.5], [0.25])(torch.ones(1, 1, 2, 2)).unique()
        tensor([2.])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not mean or len(mean) != len(std) or not all(0 < s < math.inf for s in std):
            raise ValueError(
                f"mean, std: expected one value each for every channel, std > 0; got {list(mean)}, {list(std)}"
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.get_default_dtype()).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.get_default_dtype()).view(-1, 1, 1))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"
