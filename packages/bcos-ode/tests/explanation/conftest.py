"""Fields that accounts are tried on: random ones of every kind, and one that is Lotka-Volterra exactly."""

import itertools

import pytest
import torch
from bcos_ode.config import NetworkConfig
from bcos_ode.model import DataScales, VariableModel, create_model
from bcos_ode.systems import SYSTEMS

EXPLAINABLE = {
    "linear": NetworkConfig(depth=0),
    "one layer": NetworkConfig(depth=1, width=8),
    "two layers": NetworkConfig(depth=2, width=8),
    "three layers": NetworkConfig(depth=3, width=8),
    "b=1": NetworkConfig(b=1.0, width=8),
    "b=1.5": NetworkConfig(b=1.5, width=8),
    "degree 2": NetworkConfig(model="degree", depth=1, width=8, constant=3.0),
    "degree 2, two layers": NetworkConfig(model="degree", depth=2, width=8),
    "degree 3": NetworkConfig(model="degree", depth=1, degree=3, width=8),
    "degree 3, two layers": NetworkConfig(model="degree", depth=2, degree=3, width=8),
    "inverse": NetworkConfig(encoding="inverse", width=8),
    "scaled": NetworkConfig(encoding="scaled", width=8),
}


def make_field(config: NetworkConfig, variables: tuple[str, ...] = ("x", "y"), seed: int = 0) -> VariableModel:
    torch.manual_seed(seed)
    d = len(variables)
    scales = DataScales.of(3 * torch.rand(50, d).double() + 0.1, torch.randn(50, d).double())
    return create_model(config, variables, variables, scales)


@pytest.fixture(params=EXPLAINABLE.values(), ids=EXPLAINABLE.keys())
def field(request):
    return make_field(request.param)


@pytest.fixture
def make():
    return make_field


@pytest.fixture
def states():
    return 3 * torch.rand(7, 2, generator=torch.Generator().manual_seed(1)).double() + 0.1


@pytest.fixture
def exact_field():
    """Lotka-Volterra by hand, where x and y are positive: e_j e_k is half of (e_j + e_k)² - e_j² - e_k²."""
    system, κ, scale = SYSTEMS["lotka-volterra"], 2.0, torch.tensor([2.0, 0.5]).double()
    one = torch.ones(2).double()
    field = create_model(
        NetworkConfig(model="degree", depth=1, width=6, constant=κ),
        system.variables,
        system.variables,
        DataScales(0 * one, scale, 0 * one, one, 0 * one, one),
    )
    pairs = list(itertools.combinations_with_replacement(range(3), 2))
    units = torch.eye(3).double()
    unit_of_channel = [*scale.tolist(), 1 / κ]
    readout = torch.zeros(2, 6).double()
    for i, equation in enumerate(system.terms):
        for term in equation:
            j, k = sorted(i for i, power in enumerate((*term.powers, 2 - term.degree)) for _ in range(power))
            weight = κ * term.coefficient * unit_of_channel[j] * unit_of_channel[k]
            readout[i, pairs.index((j, k))] += weight
            if j != k:
                readout[i, pairs.index((j, j))] -= weight / 2
                readout[i, pairs.index((k, k))] -= weight / 2
    layer, last = field.network.network[0], field.network.network[1]
    with torch.no_grad():
        layer.weight.copy_(torch.stack([units[j] + units[k] if j != k else units[j] for j, k in pairs]))
        last.weight.copy_(readout)
    return field
