"""The layer that sees the encoded input [x, 1-x], made of the one that saw the standardised input (x - m)/s."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bcos_core.nn import BcosConv2d, BcosLinear


class EncodedConv2d(BcosConv2d):
    """The first convolution of a converted network: it says so if its input is not encoded."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o p q"]:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(_not_encoded(f"{self.in_channels} channels", x))
        return super().forward(x)


class EncodedLinear(BcosLinear):
    """The first layer of a converted network that has no convolution: it says so if its input is not encoded."""

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch out"]:
        if x.shape[-1] != self.in_features:
            raise ValueError(_not_encoded(f"{self.in_features} features", x))
        return super().forward(x)


def _not_encoded(expected: str, x: Tensor) -> str:
    return (
        f"x: the converted network takes the encoded input, [x, 1-x], here {expected}, got shape {tuple(x.shape)}; "
        "call model(x) or model.network(model.encode(x))"
    )


def encoded_weight(
    weight: Float[Tensor, "o c *kernel"],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    innermost: int | None = None,
) -> Float[Tensor, "o c2 *kernel"]:
    """Weights for [x, 1-x] whose product is that of ``weight`` with (x - m)/s, also where x is padded with zeros.

    w (x - m)/s = (w/s)(1 - m) x - (w/s) m (1 - x): without a constant, so that padding the encoded input with zeros is
    padding the standardised one with zeros. With m = 1/2 it is the [w, -w]/(2s) of Arya et al. (NeurIPS 2024,
    arXiv 2411.00715, sec. 3); with m = 0 and s = 1, what a network has that takes x itself, [w, 0].

    Args:
        weight: Filters, or rows of a linear layer; their second dimension holds input channels or features.
        mean: One value for each channel; None for zeros. A linear layer may have several features to a channel, all of
            one channel after all of another, as a flattened image has them.
        std: One positive value for each channel; None for ones.
        innermost: Number of channels of a linear layer's input whose features are pixels with their channels side by
            side (flattened patches, channels last); the encoding then doubles each pixel's.

    Raises:
        ValueError: If there are neither as many values as channels, nor a number that divides the features.

    Example:
        >>> encoded_weight(torch.ones(1, 1, 1, 1), [0.5], [0.25]).flatten()
        tensor([ 2., -2.])
    """
    features = weight.shape[1]
    channels = innermost or (1 if mean is None else len(mean))
    m, s = (torch.as_tensor(v, dtype=torch.float64, device=weight.device) for v in (mean or [0.0], std or [1.0]))
    valid = len(m) == features if weight.dim() == 4 else features % channels == 0
    if mean is not None and not (valid and len(m) in (channels, features)):
        what = "channels" if weight.dim() == 4 else "features, or one for each channel"
        raise ValueError(f"mean, std: expected one value for each of {innermost or features} {what}, got {len(m)}")
    repeat = features // len(m)
    m, s = (v.repeat(repeat) if innermost else v.repeat_interleave(repeat) for v in (m, s))
    shape = (1, -1, *[1] * (weight.dim() - 2))
    scaled = weight.detach().double() / s.view(shape)
    halves = [scaled * (1 - m).view(shape), -scaled * m.view(shape)]
    if innermost:
        halves = [half.unflatten(1, (-1, innermost)) for half in halves]
        return torch.cat(halves, 2).flatten(1).to(weight.dtype)
    return torch.cat(halves, 1).to(weight.dtype)
