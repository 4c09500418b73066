"""The protocol that every attribution method follows."""

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Attribution:
    """How much each pixel of N images speaks for a class, by one method."""

    map: Float[Tensor, "n h w"]
    """Signed where the method is: channels of the encoded input summed."""
    target: Int[Tensor, "n"]
    residual: Float[Tensor, "n"] | None
    """How far the map is from what its method promises it to add up to, p: |sum - p| / max(1, |p|), where p is
    f(x) - f(baseline). For "bcos", p is the logit, and the remainder, what no pixel is responsible for, is added to the
    sum. None where the method promises no sum."""


class Attributor(Protocol):
    """A method, ready to use on one model."""

    name: str

    def attribute(self, images: Float[Tensor, "n c h w"], target: Int[Tensor, "n"]) -> Attribution:
        """Attribute the logit of class ``target[i]`` on ``images[i]``; images in [0, 1], not yet encoded."""
        ...
