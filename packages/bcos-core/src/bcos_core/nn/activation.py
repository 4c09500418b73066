"""Activation functions of plain networks that an explanation can follow."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .detachable import Detachable


class GELU(Detachable):
    """y = x Φ(x), with Φ the distribution function of the normal (Hendrycks & Gimpel, arXiv 1606.08415, eq. 1).

    In explanation mode the gate Φ(x) is a constant, and the layer linear.

    Example:
        >>> GELU()(torch.tensor([0.0, 1.0]))
        tensor([0.0000, 0.8413])
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x * torch.special.ndtr(x.detach()) if self.detach else F.gelu(x)
