"""What learning the exponents answers to besides the loss: minimax problems over the weights and B.

The loss alone pulls B to where it is least, often 1; alignment wants B high. docs/maths.md, "Learning B", states the
problems, their optimality conditions and their limits.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

Kind = Literal["none", "max", "smooth_max", "at_most", "at_least"]
"""Of an objective: see :func:`create_objective`."""


class ExponentObjective(nn.Module):
    """A term that is added to the loss, and a step that its own variables take; here nothing.

    Example:
        >>> float(ExponentObjective()(torch.tensor([1.5, 2.0])))
        0.0
    """

    def forward(self, b: Float[Tensor, "exponents"]) -> Float[Tensor, ""]:
        """The term, differentiable in all learnt exponents ``b``."""
        return b.new_zeros(())

    def ascend(self, b: Float[Tensor, "exponents"]) -> None:
        """One step of the inner maximisation, after the weights and exponents took theirs."""


class LargestPenalty(ExponentObjective):
    """λ max B: min over weights and B, max over which exponent is charged.

    The gradient is a subgradient: λ for the largest exponent; those that tie share it. It moves one exponent a step:
    of hundreds, one for each channel, :class:`SmoothLargestPenalty` moves all that are near the largest.

    Args:
        strength: λ, at least 0.

    Example:
        >>> b = torch.tensor([1.5, 2.0], requires_grad=True)
        >>> LargestPenalty(0.5)(b).backward()
        >>> b.grad
        tensor([0.0000, 0.5000])
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = _at_least("strength", strength, 0)

    def forward(self, b: Tensor) -> Tensor:
        return self.strength * b.amax()


class SmoothLargestPenalty(ExponentObjective):
    """λ (1/β) log Σ exp(β B), which is between λ max B and λ (max B + log(n)/β).

    It is the maximum over distributions p of λ (Σ p B + entropy(p)/β): the charge is spread over exponents near the
    largest, as softmax(β B).

    Args:
        strength: λ, at least 0.
        sharpness: β, above 0.

    Example:
        >>> round(float(SmoothLargestPenalty(1.0, 20.0)(torch.tensor([2.0, 2.0]))), 4)  # 2 + log(2)/20
        2.0347
    """

    def __init__(self, strength: float, sharpness: float) -> None:
        super().__init__()
        self.strength = _at_least("strength", strength, 0)
        self.sharpness = _above("sharpness", sharpness, 0)

    def forward(self, b: Tensor) -> Tensor:
        return self.strength / self.sharpness * torch.logsumexp(self.sharpness * b, 0)


class Bound(ExponentObjective):
    """Σ μ g + (c/2) Σ max(0, g)² for constraints g <= 0, one for each exponent, and the ascent μ <- max(0, μ + η g).

    That every B is within the bound is that the extreme one is: with μ = Σ μ_i and p = μ_i / μ the sum is
    μ (Σ p B - τ), whose maximum over p is μ (max B - τ). A multiplier for each exponent lets all that violate the bound
    move at once, not one a step. The quadratic part vanishes where the constraint holds and so moves no solution; it
    damps the turning of weights and multipliers about each other (Platt & Barr, NeurIPS 1987).
    """

    multipliers: Tensor

    def __init__(self, size: int, bound: float, step: float, damping: float) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size: expected at least one exponent, got {size}")
        self.bound = _at_least("bound", bound, 1)
        self.step = _above("step", step, 0)
        self.damping = _at_least("damping", damping, 0)
        self.register_buffer("multipliers", torch.zeros(size))

    @property
    def multiplier(self) -> float:
        """μ, the sum of all: by how much the loss falls for each unit by which the bound gives way."""
        return float(self.multipliers.sum())

    def excess(self, b: Tensor) -> Tensor:
        """By how much each constraint is violated; negative where it holds."""
        raise NotImplementedError

    def forward(self, b: Tensor) -> Tensor:
        excess = self.excess(b)
        return (self.multipliers.to(b.dtype) * excess).sum() + self.damping / 2 * (excess.clamp(min=0) ** 2).sum()

    @torch.no_grad()
    def ascend(self, b: Tensor) -> None:
        self.multipliers.add_(self.step * self.excess(b).to(self.multipliers.dtype)).clamp_(min=0)

    def extra_repr(self) -> str:
        return f"bound={self.bound:g}, multiplier={self.multiplier:.4g}"


class UpperBound(Bound):
    """Max B <= τ by primal and dual steps: min over weights and B, max over μ >= 0, of loss + μ (max B - τ).

    Args:
        size: Number of exponents.
        bound: τ, at least 1.
        step: η, of the multipliers at each ascent.
        damping: c, of the quadratic term; 0 for the plain Lagrangian.

    Attributes:
        multipliers: Shape (size,).

    Example:
        >>> objective = UpperBound(2, bound=1.5, step=0.1)
        >>> objective.ascend(torch.tensor([1.2, 2.5]))
        >>> objective.multipliers
        tensor([0.0000, 0.1000])
    """

    def __init__(self, size: int, bound: float, step: float = 0.001, damping: float = 1.0) -> None:
        super().__init__(size, bound, step, damping)

    def excess(self, b: Tensor) -> Tensor:
        return b - self.bound


class LowerBound(Bound):
    """Min B >= τ, the mirror: a floor under alignment, since accuracy alone pulls B down.

    Arguments and attributes are those of :class:`UpperBound`; loss + μ (τ - min B).

    Example:
        >>> LowerBound(2, bound=1.5).excess(torch.tensor([1.25, 2.5]))
        tensor([ 0.2500, -1.0000])
    """

    def __init__(self, size: int, bound: float, step: float = 0.001, damping: float = 1.0) -> None:
        super().__init__(size, bound, step, damping)

    def excess(self, b: Tensor) -> Tensor:
        return self.bound - b


def create_objective(
    kind: Kind,
    size: int = 1,
    *,
    strength: float = 0.1,
    sharpness: float = 20.0,
    bound: float = 2.0,
    step: float = 0.001,
) -> ExponentObjective:
    """The objective of a name; arguments that it does not have are not looked at.

    Args:
        kind: "none"; "max" (:class:`LargestPenalty`), "smooth_max", "at_most" (:class:`UpperBound`) or "at_least".
        size: Number of exponents.
        strength: Of the penalties.
        sharpness: Of the smooth one.
        bound: Of the constraints.
        step: Of their multiplier.

    Raises:
        ValueError: If the name is unknown or a number out of range.

    Example:
        >>> create_objective("at_most", 3, bound=1.5)
        UpperBound(bound=1.5, multiplier=0)
    """
    match kind:
        case "none":
            return ExponentObjective()
        case "max":
            return LargestPenalty(strength)
        case "smooth_max":
            return SmoothLargestPenalty(strength, sharpness)
        case "at_most":
            return UpperBound(size, bound, step)
        case "at_least":
            return LowerBound(size, bound, step)
    raise ValueError(f'kind: expected one of {", ".join(get_args(Kind))}, got "{kind}"')


def _at_least(name: str, value: float, least: float) -> float:
    if not least <= value < torch.inf:
        raise ValueError(f"{name}: expected a finite number >= {least}, got {value}")
    return value


def _above(name: str, value: float, least: float) -> float:
    if not least < value < torch.inf:
        raise ValueError(f"{name}: expected a finite number > {least}, got {value}")
    return value
