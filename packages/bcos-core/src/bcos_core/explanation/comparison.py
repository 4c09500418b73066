"""Why one class and not another: the difference of two explanations."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .contribution import Explanation, explain


@dataclass(frozen=True)
class Comparison:
    """Why a model gave N inputs more of one logit than of another.

    ``contributions`` and ``remainder`` add up to ``logit``, the difference of the two logits.
    """

    first: Explanation
    second: Explanation

    @property
    def contributions(self) -> Float[Tensor, "n *shape"]:
        """(W_first(x) - W_second(x)) times inputs: positive where an input decides for the first class."""
        return self.first.contributions - self.second.contributions

    @property
    def contribution_map(self) -> Float[Tensor, "n h w"]:
        """Contribution of each pixel to the difference: contributions summed over channels (images only)."""
        return self.contributions.sum(1)

    @property
    def logits(self) -> Float[Tensor, "n k"]:
        """All logits."""
        return self.first.logits

    @property
    def logit(self) -> Float[Tensor, "n"]:
        """The first class's logit minus the second's."""
        return self.first.logit - self.second.logit

    @property
    def remainder(self) -> Float[Tensor, "n"]:
        """Part of the difference that no input is responsible for; 0 for a bias that all classes share."""
        return self.first.remainder - self.second.remainder

    @property
    def completeness_error(self) -> Float[Tensor, "n"]:
        """|sum of contributions + remainder - logit| / max(1, |either logit|): it is they that were rounded."""
        error = self.contributions.double().flatten(1).sum(1) + self.remainder - self.logit
        scale = torch.maximum(self.first.logit.abs(), self.second.logit.abs()).clamp(min=1)
        return (error.abs() / scale).to(self.logit.dtype)

    def at(self, i: int) -> "Comparison":
        """The comparison of input ``i`` alone, N = 1."""
        return Comparison(self.first.at(i), self.second.at(i))

    def cpu(self) -> "Comparison":
        """The comparison in the memory of the CPU."""
        return Comparison(self.first.cpu(), self.second.cpu())


def compare(model: nn.Module, x: Float[Tensor, "n *shape"], first: int, second: int) -> Comparison:
    """Explain why each input has more of one logit than of another, exactly, as :func:`explain` explains one logit.

    Args:
        model: Any module that maps (N, ...) to logits (N, K).
        x: Inputs, shape (N, ...), floating point.
        first: The class to speak for.
        second: The class to speak against; another one.

    Raises:
        ValueError: If the classes are the same, or :func:`explain` refuses the rest.

    Example:
        >>> from bcos_core.nn import BcosLinear
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), BcosLinear(32, 10))
        >>> found = compare(model, torch.rand(4, 2, 4, 4), 3, 7)
        >>> total = found.contributions.flatten(1).sum(1) + found.remainder
        >>> torch.allclose(total, found.logits[:, 3] - found.logits[:, 7], atol=1e-5)
        True
    """
    if first == second:
        raise ValueError(f"second: expected another class than the first, {first}")
    return Comparison(explain(model, x, first), explain(model, x, second))
