"""The constants that a network adds on the way: biases and norm offsets, for which no input is responsible.

In explanation mode a logit is Σ W(x) x plus, for each constant c that a module adds to its output z, the part
⟨c, ∂logit/∂z⟩ of it that reaches the logit. The sum of these parts is an explanation's remainder. It is computed from
the constants themselves, never as logit minus contributions: so the completeness error is a check that can fail.
(For networks of ReLUs this is the bias term of Srinivas & Fleuret, NeurIPS 2019, arXiv 1905.00780, eq. 3.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bcos_core.nn import conv, encoding, linear, logit, norm, position, time

_CHANNEL_FIRST = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.GroupNorm, norm._ScaledNorm, conv.BcosConv2d),
)
_CHANNEL_LAST = (nn.Linear, nn.LayerNorm, norm.LayerNorm, linear.BcosLinear)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ELEMENTWISE = (logit.LogitLayer, encoding.Standardise, encoding.InverseEncoding)
_PER_POSITION = (position.SinCosPosition, time.TimeChannel)


@dataclass
class Offsets:
    """What was recorded in one forward pass: outputs of modules, and the constants that are part of them."""

    outputs: list[Tensor] = field(default_factory=list)
    constants: list[Tensor] = field(default_factory=list)

    def remainder(self, gradients: tuple[Tensor | None, ...], like: Tensor) -> Tensor:
        """Sum over modules of ⟨constant, gradient⟩, per sample: float64, shape (N,) as ``like``."""
        total = torch.zeros_like(like, dtype=torch.float64)
        for constant, gradient in zip(self.constants, gradients, strict=True):
            if gradient is not None:  # None: the module does not reach the logit
                part = gradient.double() * constant.double()
                total += part.flatten(1).sum(1) if part.dim() > 1 and part.shape[0] == total.shape[0] else part.sum()
        return total


@contextmanager
def recorded_offsets(model: nn.Module) -> Iterator[Offsets]:
    """Record the constants of every forward pass of ``model`` while the context is open."""
    tape = Offsets()

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        constant = _constant(module, *args, *kwargs.values())
        if constant is None:
            return output
        if isinstance(module, position.Constant):
            output = output[None]  # of no sample, whatever its own first dimension counts
        if not output.requires_grad:  # frozen weights on a constant: no input leads here, the bias still leads on
            output = output.detach().requires_grad_()
        tape.outputs.append(output)
        tape.constants.append(constant)
        output = output[0] if isinstance(module, position.Constant) else output
        return output.clone()  # an in-place activation may follow; it must not touch what was recorded

    known = (*_CHANNEL_FIRST, *_CHANNEL_LAST, *_BATCH_NORM, *_ELEMENTWISE, *_PER_POSITION, position.Constant)
    handles = [m.register_forward_hook(record, with_kwargs=True) for m in model.modules() if isinstance(m, known)]
    try:
        yield tape
    finally:
        for handle in handles:
            handle.remove()


def _constant(module: nn.Module, x: Tensor, *others: Any) -> Tensor | None:
    """What the module adds to its output whatever the input x, shaped to broadcast against it; None for nothing."""
    with torch.no_grad():
        # a batch norm that keeps no statistics takes those of the batch, which are no constants: only its bias is
        has_statistics = isinstance(module, _BATCH_NORM) and module.running_mean is not None
        if has_statistics or isinstance(module, _ELEMENTWISE):
            # an affine map of each element alone: its value at zero
            return module.forward(x.new_zeros(1, *(s if d == 1 else 1 for d, s in enumerate(x.shape[1:], start=1))))
        if isinstance(module, position.Constant):
            return x[None]
        if isinstance(module, _PER_POSITION):
            return module.forward(x.new_zeros(1, *x.shape[1:]), *others)
        if isinstance(module, nn.LayerNorm) and type(module).forward is not nn.LayerNorm.forward:
            # over channels that come first, say (torchvision's and timm's LayerNorm2d): it normalises zeros to its bias
            return module.forward(x.new_zeros(1, *x.shape[1:]))
        bias = getattr(module, "bias", None)
        if bias is None:
            return None
        bias = bias.detach()
        return bias.reshape(-1, *[1] * (x.dim() - 2)) if isinstance(module, (*_CHANNEL_FIRST, *_BATCH_NORM)) else bias
