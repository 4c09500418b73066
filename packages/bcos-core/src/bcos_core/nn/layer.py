"""What the B-cos layers share: exponent, MaxOut, and what a converted layer keeps of the plain one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .detachable import Detachable
from .exponent import Exponent, check_fixed_or_learnt, exponent_text


class BcosLayer(Detachable):
    """A layer of B-cos units; the base of :class:`BcosConv2d` and :class:`BcosLinear`.

    Attributes:
        b: The exponent: a number of at least 1, or an :class:`Exponent`, which is learnt.
        weight: Filters or rows, of any norm.
        bias: Shape (outputs,), or None.
        unit_weights: Whether a filter counts by its direction alone.
    """

    b: float | Exponent
    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        weight_shape: Sequence[int],
        *,
        b: float | Exponent,
        max_out: int,
        eps: float,
        unit_weights: bool,
        bias: bool,
    ) -> None:
        super().__init__()
        outputs = weight_shape[0]
        check_fixed_or_learnt(b, outputs)
        if max_out < 1:
            raise ValueError(f"max_out: expected at least 1, got {max_out}")
        if max_out > 1 and not unit_weights:
            raise ValueError("unit_weights: filters that compete (max_out > 1) do so by direction, unit_weights=True")
        self.b = b
        self.max_out = max_out
        self.eps = eps
        self.unit_weights = unit_weights
        self.weight = nn.Parameter(torch.empty(outputs * max_out, *weight_shape[1:]))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    @property
    def exponent(self) -> float | Tensor:
        """B as the operators take it."""
        return self.b() if isinstance(self.b, Exponent) else self.b

    def _complete(self, response: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The response of unit filters, times their norms if they count, plus the bias if there is one.

        ``shape`` is what one value for each output broadcasts from.
        """
        if not self.unit_weights:
            norm = torch.linalg.vector_norm(self.weight.flatten(1), dim=1)
            response = response * norm.view(shape).to(response.dtype)
        return response if self.bias is None else response + self.bias.view(shape).to(response.dtype)

    def _options_text(self) -> str:
        text = "" if self.unit_weights else ", unit_weights=False"
        return text + (", bias=True" if self.bias is not None else "") + f", b={exponent_text(self.b)}"


def set_exponent(model: nn.Module, b: float) -> None:
    """Give every B-cos layer of a model the same fixed exponent; learnt ones are fixed by it.

    Args:
        model: Any module.
        b: At least 1.

    Raises:
        ValueError: If b is below 1, or no layer of the model is a B-cos layer.

    Example:
        >>> from bcos_core.nn import BcosLinear
        >>> model = nn.Sequential(BcosLinear(4, 8), BcosLinear(8, 2))
        >>> set_exponent(model, 1.5)
        >>> [layer.b for layer in model]
        [1.5, 1.5]
    """
    check_fixed_or_learnt(b, 0)
    for layer in _layers(model).values():
        if isinstance(layer.b, Exponent):
            del layer.b
        layer.b = b


def learn_exponents(model: nn.Module, share: str = "layer", *, initial: float | None = None) -> nn.Module:
    """Make the exponents of a model's B-cos layers parameters, in place.

    Args:
        model: Any module with B-cos layers.
        share: Who shares an exponent: "global", the whole model; "layer", the outputs of a layer; "channel", nobody.
        initial: B at the start, above 1; None for what each layer has (with "global": what the first has).

    Returns:
        The model.

    Raises:
        ValueError: If ``share`` is unknown, a start is not above 1, or there is no B-cos layer.

    Example:
        >>> from bcos_core.nn import BcosLinear
        >>> model = learn_exponents(nn.Sequential(BcosLinear(4, 8, b=1.5), BcosLinear(8, 2)), "layer")
        >>> [round(b.item(), 4) for b in learnt_exponents(model)]
        [1.5, 2.0]
    """
    if share not in ("global", "layer", "channel"):
        raise ValueError(f'share: expected "global", "layer" or "channel", got "{share}"')
    layers = _layers(model)

    def start(layer: BcosLayer) -> float:
        return initial if initial is not None else float(torch.as_tensor(layer.exponent).detach().mean())

    common = Exponent(start(next(iter(layers.values())))) if share == "global" else None
    made = []  # all before any is placed: a start that is refused leaves the model as it was
    for layer in layers.values():
        channels = layer.weight.shape[0] // layer.max_out if share == "channel" else None
        made.append(Exponent(start(layer), channels) if common is None else common)
    for layer, b in zip(layers.values(), made, strict=True):
        layer.b = b.to(layer.weight.device, layer.weight.dtype)
    return model


def layer_exponents(model: nn.Module) -> dict[str, float | Exponent]:
    """The exponent of each B-cos layer, by the layer's path in the model, in the order of definition.

    Example:
        >>> from bcos_core.nn import BcosLinear
        >>> layer_exponents(nn.Sequential(BcosLinear(4, 8, b=1.5), nn.ReLU(), BcosLinear(8, 2)))
        {'0': 1.5, '2': 2.0}
    """
    return {path: layer.b for path, layer in model.named_modules() if isinstance(layer, BcosLayer)}


def learnt_exponents(model: nn.Module) -> Tensor:
    """All learnt B of a model in one vector, each distinct one once, with gradients to where they come from.

    Raises:
        ValueError: If the model learns none.
    """
    found = [module().reshape(-1) for module in model.modules() if isinstance(module, Exponent)]
    if not found:
        raise ValueError("model: no exponent of it is learnt; call learn_exponents first")
    return torch.cat(found)


def _layers(model: nn.Module) -> dict[str, BcosLayer]:
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, BcosLayer)}
    if not layers:
        raise ValueError(f"model: {type(model).__name__} has no B-cos layer")
    return layers
