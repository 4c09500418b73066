"""Explain a B-cos network and a plain one, and see how exactly each explanation adds up.

Run: uv run python examples/explain_any_network.py
"""

import torch
from bcos_core import explain
from bcos_core.nn import BcosConv2d, InverseEncoding, LogitLayer
from torch import nn


def bcos_network(num_classes: int) -> nn.Module:
    return nn.Sequential(
        InverseEncoding(),
        BcosConv2d(6, 32, 3, padding=1, b=2),
        BcosConv2d(32, num_classes, 1, b=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        LogitLayer(bias=LogitLayer.prior_bias(num_classes)),
    )


def plain_network(num_classes: int, activation: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        activation,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, num_classes),
    )


def main() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16)
    networks = {
        "B-cos": bcos_network(10),
        "plain, ReLU": plain_network(10, nn.ReLU()),
        "plain, GELU": plain_network(10, nn.GELU()),  # not linear once its gradient is taken: it cannot add up
    }
    print(f"{'network':<12} {'logit':>8} {'pixels':>8} {'constants':>10} {'error':>9}")
    for name, network in networks.items():
        found = explain(network, images)
        logit = found.logits.gather(1, found.target[:, None])[0, 0]
        pixels = found.contributions[0].sum()
        print(f"{name:<12} {logit:8.3f} {pixels:8.3f} {found.remainder[0]:10.3f} {found.completeness_error.max():9.0e}")


if __name__ == "__main__":
    main()
