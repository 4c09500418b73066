"""B-cos linear layer."""

import torch.fx
from jaxtyping import Float
from torch import Tensor, nn

from bcos_core.functional import bcos_linear

from .exponent import Exponent
from .layer import BcosLayer

torch.fx.wrap("bcos_linear")  # see conv.py


class BcosLinear(BcosLayer):
    """Linear layer whose response is scaled by the cosine between weight and input to the power B-1.

    y = |cos(x, w)|^(B-1) (w/|w|)ᵀ x (Böhle et al., CVPR 2022, eq. 3), without bias.

    Args:
        in_features: Size of the input's last dimension.
        out_features: Size of the output's last dimension.
        b: Exponent B, at least 1; or an :class:`Exponent`, which is learnt.
        max_out: Units that compete for one output (MaxOut).
        eps: Added to the input's sum of squares.
        unit_weights: Divide each row by its norm. False keeps the norm as a factor of the response, as B-cosification
            does for layers that were trained so (Arya et al., NeurIPS 2024, arXiv 2411.00715, sec. 3).
        bias: Add a bias to each output: a part of it that no input is responsible for.

    Attributes:
        weight: Shape (out_features * max_out, in_features).
        bias: Shape (out_features,), or None.

    Raises:
        ValueError: If b or max_out is below 1, or max_out above 1 without unit weights.

    Example:
        >>> import torch
        >>> BcosLinear(16, 4)(torch.rand(2, 16)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        b: float | Exponent = 2.0,
        max_out: int = 1,
        eps: float = 1e-6,
        unit_weights: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__(
            (out_features, in_features), b=b, max_out=max_out, eps=eps, unit_weights=unit_weights, bias=bias
        )
        self.in_features = in_features
        self.out_features = out_features
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as ``nn.Linear`` does; only their directions matter where they are unit weights."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch out"]:
        y = bcos_linear(x, self.weight, b=self.exponent, max_out=self.max_out, detach=self.detach, eps=self.eps)
        return self._complete(y, (-1,))

    def extra_repr(self) -> str:
        units = f", max_out={self.max_out}" if self.max_out > 1 else ""
        return f"{self.in_features}, {self.out_features}{units}{self._options_text()}"
