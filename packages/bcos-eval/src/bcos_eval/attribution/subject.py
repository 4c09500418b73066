"""A model as attribution methods see it: what encodes, what is attributed through, and the logits of classes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from bcos_core.explanation import EncodingModel
from bcos_core.run.error import InputError
from jaxtyping import Float, Int
from torch import Tensor, nn

Found = tuple[Tensor, Tensor | None]
"""A map, (N, H, W), and the relative completeness residuals, (N,), of a method that promises a sum."""


@dataclass(frozen=True)
class Subject:
    """The model that a method looks at.

    Attributes:
        model: From images to logits.
        rows: How many inputs one pass may hold; what a method finds does not depend on it, but for rounding.
    """

    model: nn.Module
    rows: int

    def encode(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h w"]:
        """What is attributed: the encoded images, or the images themselves where the model does not encode."""
        encoded = self.model.encode(images) if isinstance(self.model, EncodingModel) else images.clone()
        return encoded.detach().requires_grad_()

    @property
    def network(self) -> nn.Module:
        """From what :meth:`encode` gives to logits."""
        return self.model.network if isinstance(self.model, EncodingModel) else self.model

    @torch.no_grad()
    def total(
        self, encoded: Float[Tensor, "n e h w"], baseline: Float[Tensor, "n e h w"], target: Int[Tensor, "n"]
    ) -> Float[Tensor, "n"]:
        """f(x) - f(baseline): what the attributions of a method that promises a sum add up to."""
        difference = self.network(encoded.detach()).double() - self.network(baseline).double()
        return difference.gather(1, target[:, None])[:, 0]

    def gradient(
        self,
        forward_fn: Callable[..., Tensor],
        inputs: Any,
        target_ind: Any = None,
        additional_forward_args: object = None,
    ) -> tuple[Tensor, ...]:
        """What captum's gradient methods call to differentiate the target logit, at most ``rows`` inputs at a time.

        The names of the arguments are captum's (``GradientAttribution.gradient_func``).
        """
        parts = []
        (encoded,) = inputs
        for x, index in zip(encoded.split(self.rows), target_ind.expand(len(encoded)).split(self.rows), strict=True):
            with torch.enable_grad():  # the noise tunnel calls it without
                part = x.detach().requires_grad_()
                logit = forward_fn(part).gather(1, index[:, None])
                parts.append(torch.autograd.grad(logit.sum(), part)[0])
        return (torch.cat(parts),)


def relative_residual(total: Float[Tensor, "n"], found: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """|found - total| / max(1, |total|), as :class:`~bcos_eval.attribution.Attribution` defines it."""
    return (found.detach().double() - total).abs() / total.abs().clamp(min=1)


def at_least(least: int, name: str, value: int) -> int:
    """An option that is a number of things.

    Raises:
        InputError: Naming it, if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}: expected a whole number >= {least}, got {value!r}")
    return value
