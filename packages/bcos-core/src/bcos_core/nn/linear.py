"""B-cos linear layer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bcos_core.functional import bcos_linear, check_exponent

from .detachable import Detachable


class BcosLinear(Detachable):
    """Linear layer whose response is scaled by the cosine between weight and input to the power B-1.

    y = |cos(x, w)|^(B-1) (w/|w|)ᵀ x (Böhle et al., CVPR 2022, eq. 3), without bias.

    Args:
        in_features: Size of the input's last dimension.
        out_features: Size of the output's last dimension.
        b: Exponent B, at least 1.
        max_out: Units that compete for one output (MaxOut).
        eps: Added to the input's sum of squares.

    Attributes:
        weight: Shape (out_features * max_out, in_features).

    Raises:
        ValueError: If b or max_out is below 1.

    Example:
        >>> BcosLinear(16, 4)(torch.rand(2, 16)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self, in_features: int, out_features: int, *, b: float = 2.0, max_out: int = 1, eps: float = 1e-6
    ) -> None:
        super().__init__()
        check_exponent(b)
        if max_out < 1:
            raise ValueError(f"max_out: expected at least 1, got {max_out}")
        self.in_features = in_features
        self.out_features = out_features
        self.b = b
        self.max_out = max_out
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(out_features * max_out, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as ``nn.Linear`` does; only their directions matter."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch out"]:
        return bcos_linear(x, self.weight, b=self.b, max_out=self.max_out, detach=self.detach, eps=self.eps)

    def extra_repr(self) -> str:
        units = f", max_out={self.max_out}" if self.max_out > 1 else ""
        return f"{self.in_features}, {self.out_features}{units}, b={self.b:g}"
