"""The exponent B as something that a network learns, or that a schedule moves."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bcos_core.functional import check_exponent


class Exponent(nn.Module):
    """A learnt exponent, B = 1 + log(1 + exp(raw)): never below 1, whatever the optimiser does to ``raw``.

    One value, or one for each output channel. The derivative, dB/draw = 1 - exp(1 - B), is that of softplus: it falls
    to zero with B - 1, so that a B which is driven to 1 nears it ever more slowly (by Adam with a rate of 0.02 from 2:
    to 1.07 in 300 steps, to 1.01 in 1000), and never leaves the valid range.

    Args:
        initial: B at the start, above 1 (at 1 the derivative is zero, and B could never move).
        channels: Output channels that have a B each; None for one B.

    Attributes:
        raw: Shape () or (channels,).

    Raises:
        ValueError: If ``initial`` is not a finite number above 1.

    Example:
        >>> round(Exponent(1.5)().item(), 6)
        1.5
        >>> Exponent(2.0, channels=3)().shape
        torch.Size([3])
    """

    def __init__(self, initial: float = 2.0, channels: int | None = None) -> None:
        super().__init__()
        if not 1 < initial < math.inf:
            raise ValueError(
                f"b: a learnt exponent starts at a finite number above 1, where it can move; got {initial}"
            )
        raw = initial - 1 + math.log(-math.expm1(1 - initial))  # log(exp(B-1) - 1), without overflow
        self.raw = nn.Parameter(torch.full(() if channels is None else (channels,), raw))

    def forward(self) -> Float[Tensor, "..."]:
        """B, float32 or float64, shape () or (channels,)."""
        raw = self.raw if self.raw.dtype == torch.float64 else self.raw.float()
        return 1 + F.softplus(raw)

    def extra_repr(self) -> str:
        b = self().detach()
        return f"{b.item():.4g}" if b.dim() == 0 else f"{len(b)} channels, {b.min():.4g} to {b.max():.4g}"


def exponent_text(b: float | Exponent) -> str:
    """For a layer's ``repr``: the value of a fixed exponent; what a learnt one is, its own line says."""
    return "learnt" if isinstance(b, Exponent) else f"{b:g}"


def check_fixed_or_learnt(b: float | Exponent, outputs: int) -> None:
    """Raise ValueError unless b is a number of at least 1, or an exponent for one or for each of ``outputs``."""
    if not isinstance(b, Exponent):
        check_exponent(b)
    elif b.raw.shape not in ((), (outputs,)):
        raise ValueError(f"b: expected one exponent, or one for each of {outputs} outputs, got {len(b.raw)}")
