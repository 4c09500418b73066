"""Fitting, against least squares."""

import numpy as np
import pytest
import torch
from bcos_core.run.error import InputError
from bcos_ode.config import FitConfig, NetworkConfig
from bcos_ode.fit.network import Diverged, fit_network
from bcos_ode.model import DataScales, create_model
from torch import nn

FAST = FitConfig(adam_steps=40, lbfgs_steps=60)


def _samples(n=60):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, dtype=torch.float64, generator=random)
    y = x @ torch.tensor([[1.0, -2.0, 0.5], [300.0, 0.0, -100.0]], dtype=torch.float64).T
    return x, y


def _linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(3, 2, bias=False).double()


@pytest.mark.parametrize("config", [FAST, FitConfig(0, lbfgs_steps=60), FitConfig(1500, lr=0.5, lbfgs_steps=0)])
def test_a_linear_map(config):
    """Each optimiser alone gets there, too; the loss is in units of each output's root mean square."""
    x, y = _samples()
    scaled = nn.Sequential(_linear(), _Scale(torch.tensor([1.0, 300.0], dtype=torch.float64)))
    loss = fit_network(scaled, x, y, config)
    torch.testing.assert_close(scaled(x), y, rtol=1e-3, atol=1e-3)
    error = (scaled(x).detach() - y) / y.square().mean(0).sqrt()
    assert loss == pytest.approx(float(error.square().mean()), rel=1e-6, abs=1e-25)


class _Scale(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, y):
        return y * self.scale


def test_weights():
    """Weighted least squares, by NumPy: weights are of errors, not of their squares."""
    x, y = _samples()
    y = y + torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * y.std(0)
    w = torch.linspace(0, 3, len(x), dtype=torch.float64)[:, None]
    model = _linear()
    fit_network(model, x, y, FitConfig(adam_steps=0, lbfgs_steps=100), weights=w)
    expected = np.linalg.lstsq((x * w).numpy(), (y * w).numpy(), rcond=None)[0].T
    np.testing.assert_allclose(model.weight.detach(), expected, rtol=1e-6, atol=1e-6)
    plain = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0].T
    assert np.abs(plain - expected).max() > 0.01


def test_an_output_that_is_zero():
    x, y = _samples()
    y[:, 1] = 0
    model = _linear()
    fit_network(model, x, y, FAST)
    torch.testing.assert_close(model(x), y, rtol=0, atol=1e-6)


def test_a_field():
    """A degree-2 network finds Lotka-Volterra's products."""
    z = torch.rand(80, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 0.5
    a, b = z.unbind(-1)
    dz = torch.stack([1.3 * a - 0.9 * a * b, 0.8 * a * b - 1.8 * b], -1)
    torch.manual_seed(0)
    config = NetworkConfig("degree", depth=1, width=12, constant=3.0)
    model = create_model(config, ("x", "y"), ("x", "y"), DataScales.of(z, dz))
    loss = fit_network(model, z, dz, FitConfig(adam_steps=100, lbfgs_steps=200))
    assert loss < 1e-4


def test_repeats():
    x, y = _samples()
    first, second = _linear(), _linear()
    assert fit_network(first, x, y, FAST) == fit_network(second, x, y, FAST)
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize(
    "config", [FitConfig(30, lbfgs_steps=0), FitConfig(0, lbfgs_steps=30), FitConfig(25, lbfgs_steps=0)]
)
def test_divergence(config):
    x, y = _samples()
    model = _linear()
    with torch.no_grad():
        model.weight[0, 0] = float("inf")
    with pytest.raises(Diverged, match=r"fit: the loss is (inf|nan); try a smaller --fit.lr"):
        fit_network(model, x, y, config)
    assert issubclass(Diverged, InputError)


def test_reports():
    x, y = _samples()
    told = []
    loss = fit_network(_linear(), x, y, FitConfig(45, lbfgs_steps=30), report=lambda *what: told.append(what))
    assert [step for _, step, _ in told] == [1, 21, 41, 65, 75, 75]
    assert {what for what, _, _ in told} == {"fit"}
    assert told[-1][2] == loss < told[0][2]
