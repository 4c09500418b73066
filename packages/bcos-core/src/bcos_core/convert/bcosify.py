"""An ordinary network made into a B-cos network that keeps what it learned."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from .report import ConversionReport


class ConvertedModel(nn.Module):
    """Encoding and network: ``model(x) == model.network(model.encode(x))``."""

    encoding: nn.Module
    network: nn.Module

    def encode(self, x: Tensor) -> Tensor:
        return self.encoding(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.encode(x))


def bcosify(
    model: nn.Module,
    *,
    b: float = 2.0,
    biases: Literal["drop", "keep"] = "drop",
    pooling: Literal["average", "keep"] = "average",
    unit_weights: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    logit_bias: float = 0.0,
    strict: bool = True,
) -> tuple[nn.Module, ConversionReport]:
    """Make a B-cos network of a plain one."""
    raise NotImplementedError
