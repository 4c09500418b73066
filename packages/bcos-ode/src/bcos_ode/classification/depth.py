"""Evidence over depth time: how a logit grew along the trajectory of states that it was read from.

The head is, in explanation mode, an affine map: logit = remainder + ⟨w, h(1)⟩. With this w the logit is also
remainder + ⟨w, h(0)⟩ + Σ ⟨w, h_{n+1} - h_n⟩, and each step of the integrator has its share of it. The w is that of the
final state: evidence at an earlier time is how far the state has come towards what the head reads, not what the
head would answer to that state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from bcos_core import explain
from bcos_core.run.error import InputError
from jaxtyping import Float, Int
from torch import Tensor

from .classifier import DepthBlock, OdeClassifier


@dataclass(frozen=True)
class DepthEvidence:
    """Evidence for one class of each of N images, at the T + 1 times of the integrator."""

    times: Float[Tensor, "t1"]
    """From 0 to 1."""
    logits: Float[Tensor, "n k"]
    target: Int[Tensor, "n"]
    """Class that is explained."""
    start: Float[Tensor, "n"]
    """⟨w, h(0)⟩: what the stem alone says."""
    steps: Float[Tensor, "n t"]
    """⟨w, h_{n+1} - h_n⟩: what each step adds."""
    remainder: Float[Tensor, "n"]
    """The head's constants."""
    completeness_error: Float[Tensor, "n"]
    """|start + steps + remainder - logit| / max(1, |logit|)."""

    @property
    def evidence(self) -> Float[Tensor, "n t1"]:
        """Remainder, start and all steps so far, at each time; the last is the logit."""
        return (self.remainder + self.start)[:, None] + torch.cat([0 * self.start[:, None], self.steps.cumsum(1)], 1)


@torch.no_grad()
def depth_evidence(
    model: OdeClassifier, images: Float[Tensor, "n c h w"], target: int | Sequence[int] | Int[Tensor, "n"] | None = None
) -> DepthEvidence:
    """Say when along the depth an image's logit was decided.

    Args:
        model: A classifier with a field (block ode or residual), variant bcos or vanilla; evaluated as it is.
        images: In [0, 1], shape (N, C, H, W).
        target: Class to explain: one for all images, one for each, or None for the predicted ones.

    Raises:
        InputError: If the model has no depth block.

    Example:
        >>> from bcos_ode.classification.config import ClassificationConfig
        >>> model = OdeClassifier(ClassificationConfig(channels=8), classes="ab", in_channels=1)
        >>> found = depth_evidence(model, torch.rand(3, 1, 8, 8))
        >>> found.evidence.shape, torch.allclose(found.evidence[:, -1], found.logits.amax(1), atol=1e-5)
        (torch.Size([3, 5]), True)
    """
    block = model.network.get_submodule("block")
    if not isinstance(block, DepthBlock):
        raise InputError('block: evidence over depth needs a field; this model was built with block "none"')
    states = block.trajectory(model.network.get_submodule("stem")(model.encode(images)))
    head = explain(model.network.get_submodule("head"), states[-1], target)
    # in float64: the sum below is then a check of the head, not of the order of additions
    w = head.weights.double()
    start, *steps = ((w * part.double()).flatten(1).sum(1) for part in (states[0], *torch.stack(states).diff(dim=0)))
    logit = head.logit.double()
    total = start + sum(steps) + head.remainder.double()
    like = head.logits.dtype
    return DepthEvidence(
        times=torch.linspace(0, 1, len(states)),
        logits=head.logits,
        target=head.target,
        start=start.to(like),
        steps=torch.stack(steps, 1).to(like),
        remainder=head.remainder,
        completeness_error=((total - logit).abs() / logit.abs().clamp(min=1)).to(like),
    )
