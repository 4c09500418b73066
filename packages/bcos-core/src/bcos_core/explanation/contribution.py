"""Contributions of the inputs to an output, and how exactly they add up."""

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .mode import evaluating, exact_arithmetic, explanation_mode, uncompiled
from .offset import recorded_offsets
from .render import render_rgba

_ONE_AT_A_TIME = threading.RLock()
"""Flags of modules, their hooks and PyTorch's precision are for all threads: two explanations would mix theirs."""


@runtime_checkable
class EncodingModel(Protocol):
    """A model that encodes its input first: ``model(x) == model.network(model.encode(x))``."""

    network: nn.Module

    def encode(self, x: Tensor) -> Tensor: ...


_KNOWN_TO_ENCODE: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def as_encoding(model: nn.Module, x: Float[Tensor, "n *shape"]) -> EncodingModel | None:
    """The model itself if it is an :class:`EncodingModel`, not only by its names: others have a network and an encode.

    Of each model this is tried once, on one input, and its answer kept where it is yes.

    Args:
        model: Any module, in evaluation mode.
        x: Inputs, shape (N, ...).
    """
    if not isinstance(model, EncodingModel):
        return None
    if model in _KNOWN_TO_ENCODE or torch.compiler.is_exporting() or not len(x):  # no numbers to compare
        return model
    try:
        with torch.no_grad():
            whole, parts = model(x[:1].clone()), model.network(model.encode(x[:1].clone()))
    except Exception:  # an encode or a network of another purpose; what fails in the model itself fails again
        return None
    same = isinstance(whole, Tensor) and isinstance(parts, Tensor) and whole.shape == parts.shape
    if not same or not torch.allclose(whole, parts, rtol=1e-3, atol=0, equal_nan=True):
        return None
    _KNOWN_TO_ENCODE.add(model)
    return model


@dataclass(frozen=True)
class Explanation:
    """Why a model gave N inputs their logits.

    ``contributions`` and ``remainder`` add up to the explained logit; ``completeness_error`` says how exactly.
    """

    logits: Float[Tensor, "n k"]
    """All logits."""
    target: Int[Tensor, "n"]
    """Index of the logit that is explained."""
    inputs: Float[Tensor, "n *shape"]
    """What the contributions belong to: the encoded input where the model encodes, else the input."""
    weights: Float[Tensor, "n *shape"]
    """W(x), the row of the linear map that led from the inputs to the explained logit."""
    contributions: Float[Tensor, "n *shape"]
    """Weights times inputs."""
    remainder: Float[Tensor, "n"]
    """What no input is responsible for: logit bias, biases and norm offsets."""
    completeness_error: Float[Tensor, "n"]
    """|sum of contributions + remainder - logit| / max(1, |logit|)."""

    @property
    def logit(self) -> Float[Tensor, "n"]:
        """The explained logit of each input."""
        return self.logits.gather(1, self.target[:, None])[:, 0]

    @property
    def relative_error(self) -> Float[Tensor, "n"]:
        """|sum of contributions + remainder - logit| / (sum of |contributions| + |remainder|).

        ``completeness_error`` is a difference of logits where the logit is small, and says little of logits near 1e-6;
        this one does not depend on their scale. 0 where all is zero.
        """
        terms = torch.cat([self.contributions.flatten(1), self.remainder.to(self.contributions)[:, None]], 1).double()
        size = terms.abs().sum(1).clamp(min=torch.finfo(torch.float64).tiny)
        return ((terms.sum(1) - self.logit.double()).abs() / size).to(self.logits.dtype)

    @property
    def contribution_map(self) -> Float[Tensor, "n h w"]:
        """Contribution of each pixel: contributions summed over channels (images only)."""
        return self.contributions.sum(1)

    def to_rgba(self, *, smooth: int = 1, percentile: float = 99.5) -> Float[Tensor, "n 4 h w"]:
        """The papers' colour picture of an explanation; see :func:`bcos_core.explanation.render_rgba`."""
        return render_rgba(self.weights, self.contributions, smooth=smooth, percentile=percentile)

    def at(self, i: int) -> "Explanation":
        """The explanation of input ``i`` alone, N = 1."""
        return Explanation(*(getattr(self, f.name)[i : i + 1] for f in fields(self)))

    def cpu(self) -> "Explanation":
        """The explanation in the memory of the CPU."""
        return Explanation(*(getattr(self, f.name).cpu() for f in fields(self)))


def explain(
    model: nn.Module, x: Float[Tensor, "n *shape"], target: int | Sequence[int] | Int[Tensor, "n"] | None = None
) -> Explanation:
    """Explain one logit of each input, exactly, by one forward and one backward pass.

    For a B-cos network the contributions are the terms of the sum that it computed (Böhle et al., CVPR 2022, eq. 13).
    For any other module they are input times gradient; then ``completeness_error`` says how far they, with the biases,
    are from adding up (zero for a network of ReLUs, in general not).

    The model's training flags are restored, no ``.grad`` is touched, and no statistics are updated. Threads take turns;
    what else a thread does with the model meanwhile is up to it.

    Args:
        model: Any module that maps (N, ...) to logits (N, K).
        x: Inputs, shape (N, ...), floating point. Where the model encodes (``model.encode``), the explanation is of
            the encoded input.
        target: Class to explain: one for all inputs, one for each, or None for the predicted ones.

    Returns:
        The explanation, detached.

    Raises:
        ValueError: If x is not a floating-point batch, the output is no (N, K) tensor or does not depend on x, or a
            target is out of range.

    Example:
        >>> from bcos_core.nn import BcosLinear
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), BcosLinear(32, 10))
        >>> explanation = explain(model, torch.rand(4, 2, 4, 4))
        >>> explanation.contributions.shape, bool((explanation.completeness_error < 1e-5).all())
        (torch.Size([4, 2, 4, 4]), True)
    """
    if not isinstance(x, Tensor) or x.dim() < 2 or not x.is_floating_point():
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x: expected a floating-point batch of shape (N, ...), got {got}")
    model = uncompiled(model)
    # an inference tensor cannot enter a graph: leave inference mode, if on, and copy
    with (
        _ONE_AT_A_TIME,
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluating(model),
        exact_arithmetic(),
        explanation_mode(model),
    ):
        x = x.detach().clone()
        encoding = as_encoding(model, x)
        encoded, network = (x, model) if encoding is None else (encoding.encode(x), encoding.network)
        inputs = encoded.detach().requires_grad_()
        with recorded_offsets(network) as offsets:
            logits = network(inputs.clone())  # its first module may work in place
        if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != x.shape[0]:
            raise ValueError(f"model: expected an output of shape ({len(x)}, K), got {_describe(logits)}")
        index = _target_index(target, logits)
        if any(z.shape[0] != x.shape[0] for z in offsets.outputs) and len(x) > 1:
            # a module had sequences first, say, or windows: whose gradient is whose is known for a single sample only
            alone = [explain(model, x[i : i + 1], int(index[i])) for i in range(len(x))]
            return Explanation(*(torch.cat([getattr(e, f.name) for e in alone]) for f in fields(Explanation)))
        explained = logits.gather(1, index[:, None])[:, 0]
        if not explained.requires_grad:
            raise ValueError("model: its output does not depend on x (was it computed under no_grad?)")
        weights, *gradients = torch.autograd.grad(
            explained.sum(), [inputs, *offsets.outputs], allow_unused=True, materialize_grads=False
        )
        weights = torch.zeros_like(inputs) if weights is None else weights
        contributions = (weights * inputs).detach()
        remainder = offsets.remainder(tuple(gradients), explained.detach())
        logit = explained.detach().double()
        error = contributions.double().flatten(1).sum(1) + remainder - logit
        return Explanation(
            logits=logits.detach(),
            target=index,
            inputs=inputs.detach(),
            weights=weights,
            contributions=contributions,
            remainder=remainder.to(logits.dtype),
            completeness_error=(error.abs() / logit.abs().clamp(min=1)).to(logits.dtype),
        )


def _target_index(target: int | Sequence[int] | Tensor | None, logits: Tensor) -> Tensor:
    n, k = logits.shape
    if target is None:
        return logits.argmax(1)
    try:
        index = torch.as_tensor(target, device=logits.device)
    except (TypeError, ValueError, RuntimeError):  # words, or lists of unequal lengths
        raise ValueError(f"target: expected an integer or {n} of them, got {target!r}") from None
    if index.is_floating_point() or index.dtype == torch.bool or index.dim() > 1:
        raise ValueError(f"target: expected an integer or {n} of them, got {target!r}")
    index = index.long().expand(n) if index.dim() == 0 else index.long()
    if index.shape[0] != n:
        raise ValueError(f"target: expected {n} classes, one for each input, got {len(index)}")
    if torch.compiler.is_exporting():  # no values yet; an exported graph fails at a class that is none
        return index.clone()
    if n and not 0 <= int(index.min()) <= int(index.max()) < k:
        raise ValueError(f"target: expected classes from 0 to {k - 1}, got {index.min()} to {index.max()}")
    return index.clone()


def _describe(output: object) -> str:
    return f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
