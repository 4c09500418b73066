"""Explanation mode: for each input, the network is the linear map that it applied."""

from types import TracebackType

from torch import nn

from bcos_core.nn.detachable import Detachable


class explanation_mode:
    """Treat every dynamic scale in a model as a constant while the context is open.

    Values do not change; gradients do: the gradient of an output with respect to the input becomes the row W(x) of
    the linear map that the network applied to it. Modules that work in place (``ReLU(inplace=True)``) do not while it
    is open: the gradient of a B-cos layer needs what the layer answered. Re-entrant and exception-safe: leaving
    restores what entering found, so that an inner context does not switch off an outer one. Put the model in
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
