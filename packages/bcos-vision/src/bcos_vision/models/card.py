"""What a model costs, counted without running it."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from .catalogue import architecture, create_model


@dataclass(frozen=True)
class ModelCard:
    """One line of ``bcos-vision models``."""

    name: str
    variant: str
    parameters: int
    multiply_adds: int
    """Of convolutions, linear layers and attention, for one image."""
    image_size: int
    """Side of that image."""


def model_card(name: str, variant: str = "bcos", *, num_classes: int = 10) -> ModelCard:
    """The card of one model.

    Example:
        >>> round(model_card("resnet18", "standard", num_classes=1000).parameters / 1e6, 2)  # as published
        11.69
    """
    side = architecture(name).image_size
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes, variant=variant).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, side, side))
    parameters = sum(p.numel() for p in model.parameters())
    return ModelCard(name, variant, parameters, counter.get_total_flops() // 2, side)
