"""What a network's first layer sees of named variables, and what each channel of it is called.

Variables are scaled and never centred: a centred variable is zero at its mean, where a B-cos network would have nothing
to say, and its contribution would be that of a deviation.
"""

import abc
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

CONSTANT = "1"
"""Name of the constant channel: what it contributes is inflow and offset."""


class Encoding(nn.Module, abc.ABC):
    """From variables (..., d) to channels (..., m)."""

    @abc.abstractmethod
    def forward(self, z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]: ...

    @abc.abstractmethod
    def channels(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names of the channels of variables with these names."""

    @abc.abstractmethod
    def rates(self) -> Float[Tensor, "m d"]:
        """∂ channel / ∂ variable, a constant: every encoding is affine."""


def _row(values: Sequence[float] | Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).clone()


class ConstantChannel(Encoding):
    """[z / scale, κ]; with κ = 0, [z / scale] alone.

    A B-cos network without bias is odd and homogeneous of degree one; with the channel "1" it is not, in z.

    Args:
        scale: Of each variable, positive.
        constant: κ, in units of the scaled variables.

    Example:
        >>> ConstantChannel([2.0], 1.0)(torch.tensor([[4.0]], dtype=torch.float64))
        tensor([[2., 1.]], dtype=torch.float64)
    """

    scale: Tensor

    def __init__(self, scale: Sequence[float] | Tensor, constant: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("scale", _row(scale))
        self.constant = constant

    def forward(self, z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        scaled = z / self.scale
        if not self.constant:
            return scaled
        return torch.cat([scaled, scaled.new_full((*scaled.shape[:-1], 1), self.constant)], -1)

    def channels(self, names: Sequence[str]) -> tuple[str, ...]:
        return (*names, CONSTANT) if self.constant else tuple(names)

    def rates(self) -> Float[Tensor, "m d"]:
        own = torch.diag(1 / self.scale)
        return torch.cat([own, own.new_zeros(1, own.shape[1])]) if self.constant else own

    def extra_repr(self) -> str:
        return f"scale={self.scale.tolist()}, constant={self.constant:g}"


class InverseChannels(Encoding):
    """[u, 1 - u] with u = (z - low) / (high - low): for variables with bounds.

    What a variable contributes is then the sum of its two channels, an offset of it included.

    Args:
        low: Lower bound of each variable.
        high: Upper bound, above it.

    Example:
        >>> InverseChannels([0.0], [4.0])(torch.tensor([[1.0]], dtype=torch.float64))
        tensor([[0.2500, 0.7500]], dtype=torch.float64)
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Sequence[float] | Tensor, high: Sequence[float] | Tensor) -> None:
        super().__init__()
        self.register_buffer("low", _row(low))
        self.register_buffer("high", _row(high))

    def forward(self, z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        u = (z - self.low) / (self.high - self.low)
        return torch.cat([u, 1 - u], -1)

    def channels(self, names: Sequence[str]) -> tuple[str, ...]:
        return (*names, *(f"1 - {name}" for name in names))

    def rates(self) -> Float[Tensor, "m d"]:
        own = torch.diag(1 / (self.high - self.low))
        return torch.cat([own, -own])


class Standardised(Encoding):
    """(z - mean) / std, as plain networks are given their input.

    Args:
        mean: Of each variable.
        std: Of each variable, positive.

    Example:
        >>> Standardised([1.0], [2.0])(torch.tensor([[5.0]], dtype=torch.float64))
        tensor([[2.]], dtype=torch.float64)
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", _row(mean))
        self.register_buffer("std", _row(std))

    def forward(self, z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        return (z - self.mean) / self.std

    def channels(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(names)

    def rates(self) -> Float[Tensor, "m d"]:
        return torch.diag(1 / self.std)
