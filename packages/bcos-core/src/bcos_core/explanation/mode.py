"""Explanation mode, in which the network is, for each input, the linear map that it applied; and what goes with it."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType

import torch
from torch import nn

from bcos_core.nn.detachable import Detachable


class explanation_mode:
    """Treat every dynamic scale in a model as a constant while the context is open.

    Values do not change; gradients do: the gradient of an output with respect to the input becomes the row W(x) of
    the linear map that the network applied to it. Modules that work in place (``ReLU(inplace=True)``) do not while it
    is open: the gradient of a B-cos layer needs what the layer answered. Re-entrant and exception-safe: leaving
    restores what entering found, so that an inner context does not switch off an outer one. It is for one thread at a
    time: the modules' flags are everyone's. Put the model in
    evaluation mode first, as :func:`bcos_core.explain` does: batch statistics mix inputs.

    Args:
        model: Any module; those of its modules that are :class:`~bcos_core.nn.Detachable` are switched.

    Example:
        >>> from bcos_core.nn import BcosLinear
        >>> layer = BcosLinear(4, 2)
        >>> with explanation_mode(layer):
        ...     layer.detach
        True
        >>> layer.detach
        False
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._found: list[list[tuple[nn.Module, str, object]]] = []

    def __enter__(self) -> nn.Module:
        # asked anew at each entry: the model may have been changed since
        switches = [(m, "detach", True) for m in self._model.modules() if isinstance(m, Detachable)]
        switches += [(m, "inplace", False) for m in self._model.modules() if getattr(m, "inplace", None) is True]
        self._found.append([(module, name, getattr(module, name)) for module, name, _ in switches])
        for module, name, value in switches:
            setattr(module, name, value)
        return self._model

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for module, name, value in self._found.pop():
            setattr(module, name, value)


def uncompiled(model: nn.Module) -> nn.Module:
    """The model itself, where ``torch.compile`` has wrapped it."""
    original = model._modules.get("_orig_mod")
    return model if original is None else original


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Full float32 products on a GPU (TF32 keeps 10 bits: completeness would be 1e-3), and no compiled code."""
    backends = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    found = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with _eager():
            yield
    finally:
        for backend, precision in zip(backends, found, strict=True):
            backend.fp32_precision = precision


def _eager() -> AbstractContextManager[object]:
    """Run compiled models, and compiled parts of models, as they are: compiled code does not see new hooks."""
    # where nothing has been compiled, do not import the compiler (seconds)
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode while the context is open; each module's own flag is restored."""
    found = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in found:
            module.training = training
