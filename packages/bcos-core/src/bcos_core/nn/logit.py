"""The constants between a B-cos network's last response and its logits."""

import math

from jaxtyping import Float
from torch import Tensor, nn


class LogitLayer(nn.Module):
    """Divide by a fixed temperature and add a fixed bias: logits = x / temperature + bias.

    The bias starts training at the prior of one class in many, which keeps the sigmoids of binary cross-entropy out
    of saturation; no input is responsible for it, so it stands in an explanation's remainder.

    Args:
        bias: Added to every logit; see :meth:`prior_bias`.
        temperature: Positive divisor.

    Raises:
        ValueError: If the temperature is not positive, or a value is not finite.

    Example:
        >>> import torch
        >>> LogitLayer(bias=LogitLayer.prior_bias(10))(torch.zeros(1, 1))
        tensor([[-2.1972]])
    """

    def __init__(self, *, bias: float = 0.0, temperature: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(bias) and 0 < temperature < math.inf):
            raise ValueError(
                f"bias, temperature: expected finite numbers, temperature > 0; got {bias} and {temperature}"
            )
        self.bias = bias
        self.temperature = temperature

    @staticmethod
    def prior_bias(num_classes: int) -> float:
        """-log(K - 1), the logit of probability 1/K; zero for a single output."""
        return -math.log(num_classes - 1) if num_classes > 1 else 0.0

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x / self.temperature + self.bias

    def extra_repr(self) -> str:
        return f"bias={self.bias:.4g}, temperature={self.temperature:g}"
