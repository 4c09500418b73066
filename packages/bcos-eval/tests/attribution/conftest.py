import pytest
import torch
from bcos_core.nn import BcosConv2d, InverseEncoding, Standardise
from torch import nn


class Classifier(nn.Module):
    """Encoding and network, as bcos_vision's classifiers have them."""

    def __init__(self, encoding, network):
        super().__init__()
        self.encoding, self.network = encoding, network

    def encode(self, images):
        return self.encoding(images)

    def forward(self, images):
        return self.network(self.encode(images))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def plain():
    """A network of ReLUs that needs no repair."""
    convolutions = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1, stride=2), nn.ReLU())
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    return Classifier(Standardise([0.4], [0.3]), nn.Sequential(*convolutions, *head)).eval()


@pytest.fixture
def bcos():
    convolutions = (BcosConv2d(2, 4, 3, padding=1), BcosConv2d(4, 6, 3, padding=1, stride=2), BcosConv2d(6, 5, 1))
    network = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier(InverseEncoding(), network).eval()


@pytest.fixture
def linear():
    """f(x) = w x + c, no encoding: what its attributions are is known."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()


@pytest.fixture
def images():
    return torch.rand(3, 1, 8, 8)


@pytest.fixture
def target():
    return torch.tensor([0, 2, 1])
