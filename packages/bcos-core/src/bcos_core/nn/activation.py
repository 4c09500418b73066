"""Activation functions of plain networks that an explanation can follow: x times a gate, which it holds constant."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .detachable import Detachable


class GELU(Detachable):
    """y = x Φ(x), with Φ the distribution function of the normal (Hendrycks & Gimpel, arXiv 1606.08415, eq. 1).

    In explanation mode the gate Φ(x) is a constant, and the layer linear.

    Args:
        approximate: "none", or "tanh" for the approximation of Φ by a hyperbolic tangent (the same paper, sec. 2).

    Raises:
        ValueError: If ``approximate`` is neither.

    Example:
        >>> GELU()(torch.tensor([0.0, 1.0]))
        tensor([0.0000, 0.8413])
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ValueError(f'approximate: expected "none" or "tanh", got {approximate!r}')
        self.approximate = approximate

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.detach:
            return F.gelu(x, approximate=self.approximate)
        z = x.detach()
        if self.approximate == "none":
            return x * torch.special.ndtr(z)
        return x * torch.sigmoid(math.sqrt(8 / math.pi) * (z + 0.044715 * z**3))  # (1 + tanh(t))/2 = sigmoid(2t)

    def extra_repr(self) -> str:
        return "" if self.approximate == "none" else f"approximate={self.approximate!r}"


class SiLU(Detachable):
    """y = x σ(x), with σ the logistic function (Hendrycks & Gimpel, arXiv 1606.08415, sec. 2); also called swish.

    In explanation mode the gate σ(x) is a constant, and the layer linear.

    Example:
        >>> SiLU()(torch.tensor([0.0, 1.0]))
        tensor([0.0000, 0.7311])
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x * torch.sigmoid(x.detach()) if self.detach else F.silu(x)


class Hardswish(Detachable):
    """y = x min(max(x + 3, 0), 6)/6 (Howard et al., ICCV 2019, arXiv 1905.02244, sec. 5.2).

    In explanation mode the factor of x is a constant, and the layer linear.

    Example:
        >>> Hardswish()(torch.tensor([0.0, 1.0, 4.0]))
        tensor([0.0000, 0.6667, 4.0000])
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x * F.hardsigmoid(x.detach()) if self.detach else F.hardswish(x)
