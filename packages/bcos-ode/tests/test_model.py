"""Networks over named variables: homogeneity, exact explanations, what they contain, files."""

import itertools
import json

import pytest
import torch
from bcos_core import explain, explanation_mode
from bcos_core.run.checkpoint import save_model
from bcos_core.run.error import InputError
from bcos_ode.config import FitConfig, NetworkConfig
from bcos_ode.encoding import CONSTANT
from bcos_ode.model import DataScales, create_model

INPUTS, OUTPUTS = ("x", "y", "z"), ("p", "q")
HOMOGENEOUS = [
    *(NetworkConfig(b=b, depth=depth, width=9) for b, depth in itertools.product((1.0, 1.5, 2.0, 3.0), (1, 2, 3))),
    *(NetworkConfig("degree", degree=p, depth=d, width=9) for p, d in itertools.product((2, 3), (1, 2, 3))),
    NetworkConfig("degree", depth=2, width=9, constant=1.0),
    NetworkConfig(encoding="inverse", width=9),
    NetworkConfig(encoding="scaled", width=9),
    NetworkConfig(depth=0),
]
OTHERS = [NetworkConfig("mlp", width=9), NetworkConfig("mlp_nobias", width=9)]


def _name(config):
    config = config.resolve()
    return f"{config.model}-{config.exponent:g}-{config.depth}-{config.encoding}-{config.constant:g}"


def _data(n=20):
    random = torch.Generator().manual_seed(0)
    z = torch.randn(n, 3, dtype=torch.float64, generator=random) * torch.tensor([1.0, 5.0, 0.1]).double() + 2
    return z, torch.randn(n, 2, dtype=torch.float64, generator=random) * torch.tensor([10.0, 0.2]).double()


def _model(config, seed=0):
    torch.manual_seed(seed)
    return create_model(config, INPUTS, OUTPUTS, DataScales.of(*_data()))


@pytest.mark.parametrize("config", [*HOMOGENEOUS, *OTHERS], ids=_name)
def test_shapes(config):
    model, (z, _) = _model(config), _data()
    y = model(z)
    assert (y.shape, y.dtype) == ((20, 2), torch.float64)
    torch.testing.assert_close(model(z.reshape(4, 5, 3)), y.reshape(4, 5, 2), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model(z[3]), y[3], rtol=1e-12, atol=1e-12)
    assert model.encode(z).shape[-1] == len(model.channels)
    assert torch.equal(model.network(model.encode(z)), y)
    assert y.abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"z: expected shape \(..., 3\), got \(20, 2\)"):
        model(z[:, :2])


@pytest.mark.parametrize("config", HOMOGENEOUS, ids=_name)
def test_homogeneity(config):
    """J(e) e = p f(e), with the true Jacobian; and f(2 e) = 2^p f(e)."""
    model, (z, _) = _model(config), _data()
    e = model.encode(z).detach().requires_grad_()
    f = model.network(e)
    size = f.detach().abs().max()
    for k in range(2):
        (row,) = torch.autograd.grad(f[:, k].sum(), e, retain_graph=True)
        torch.testing.assert_close((row * e).sum(-1) / size, model.degree * f[:, k] / size, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.network(2 * e), 2**model.degree * f, rtol=1e-11, atol=1e-13 * float(size))


@pytest.mark.parametrize("config", HOMOGENEOUS, ids=_name)
def test_explanations_are_exact(config):
    """W(e) e = f, and nothing remains."""
    model, (z, _) = _model(config), _data()
    assert model.explains
    for target in (0, 1):
        explanation = explain(model, z, target)
        assert explanation.completeness_error.max() <= 1e-12
        assert (explanation.remainder == 0).all()
        f = model(z)[:, target]
        torch.testing.assert_close(explanation.contributions.sum(-1) / f, torch.ones_like(f), rtol=0, atol=1e-9)
        torch.testing.assert_close(explanation.inputs, model.encode(z), rtol=0, atol=0)


@pytest.mark.parametrize("p", [2, 3])
def test_one_raised_layer_weighs_by_jacobian(p):
    """W = J / p for one layer with B = p, raised to degree p: each W_ik e_k is the equal split of every product."""
    model, (z, _) = _model(NetworkConfig("degree", degree=p, depth=1, width=9)), _data()
    weights = explain(model, z, 0).weights
    e = model.encode(z).detach().requires_grad_()
    (row,) = torch.autograd.grad(model.network(e)[:, 0].sum(), e)
    # for p = 3 the layers add 1e-6 to the cosine
    torch.testing.assert_close(weights, row / p, rtol=0, atol=float(row.abs().max()) * (1e-12 if p == 2 else 1e-5))


def test_explanation_mode_leaves_values_alone():
    model, (z, _) = _model(NetworkConfig("degree", degree=3, width=9)), _data()
    plain = model(z)
    with explanation_mode(model):
        assert torch.equal(model(z), plain)


@pytest.mark.parametrize("b", [1.0, 1.5, 2.0, 3.0])
def test_without_a_constant_it_is_odd(b):
    model, (z, _) = _model(NetworkConfig(b=b, encoding="scaled")), _data()
    torch.testing.assert_close(model(-z), -model(z), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(model(3 * z), 3 * model(z), rtol=1e-12, atol=1e-13)
    assert (model(torch.zeros_like(z)) == 0).all()
    constant = _model(NetworkConfig(b=b))
    assert (constant(-z) + constant(z)).abs().max() > 1e-3


def test_gradient():
    model, (z, _) = _model(NetworkConfig(b=2.0, width=4)), _data(3)
    parameters = dict(model.named_parameters())

    def f(z, *values):
        return torch.func.functional_call(model, dict(zip(parameters, values, strict=True)), (z,))

    assert torch.autograd.gradcheck(f, (z.requires_grad_(), *parameters.values()))


def test_degree_two_contains_quadratics():
    """Lotka-Volterra and an inflow by one layer whose units stay positive: squares of sums give every product."""
    scales = DataScales(
        *(torch.tensor(v, dtype=torch.float64) for v in ([0, 0], [2, 4], [0, 0], [1, 1], [0, 0], [5, 7]))
    )
    config = NetworkConfig("degree", degree=2, depth=1, width=6, constant=3.0)
    model = create_model(config, ("x", "y"), ("x'", "y'"), scales)
    # units e_k and e_k + e_l; squares of the latter hold the products
    units = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=torch.float64)
    x, y, one = 2.0, 4.0, 1 / 3  # of a channel: x = 2 e_0, y = 4 e_1, 1 = e_2 / 3
    # x' = 0.7 + 1.3 x - 0.9 x y,   y' = 0.8 x y - 1.8 y, as coefficients of products e_k e_l
    products = [
        {(2, 2): 0.7 * one**2, (0, 2): 1.3 * x * one, (0, 1): -0.9 * x * y},
        {(0, 1): 0.8 * x * y, (1, 2): -1.8 * y * one},
    ]
    pairs = {(0, 1): 3, (0, 2): 4, (1, 2): 5}
    readout = torch.zeros(2, 6, dtype=torch.float64)
    for i, equation in enumerate(products):
        for (k, m), value in equation.items():
            if k == m:
                readout[i, k] += value
                continue
            readout[i, pairs[k, m]] += value / 2
            readout[i, k] -= value / 2
            readout[i, m] -= value / 2
    layer, last, scale = model.network.network
    with torch.no_grad():
        layer.weight.copy_(units * 0.37)  # of any norm
        last.weight.copy_(readout * 3.0 * units.square().sum(1) / scale.scale[:, None])
    z = torch.rand(50, 2, dtype=torch.float64) * 5
    a, b = z.unbind(-1)
    expected = torch.stack([0.7 + 1.3 * a - 0.9 * a * b, 0.8 * a * b - 1.8 * b], -1)
    torch.testing.assert_close(model(z), expected, rtol=1e-12, atol=1e-12)


def test_a_plain_network_does_not_explain():
    for config in OTHERS:
        model = _model(config)
        assert not model.explains
        assert model.degree is None


def test_what_the_encodings_are():
    assert _model(NetworkConfig()).channels == (*INPUTS, CONSTANT)
    assert _model(NetworkConfig(encoding="inverse")).channels == (*INPUTS, "1 - x", "1 - y", "1 - z")
    assert _model(NetworkConfig(encoding="scaled")).channels == INPUTS
    z, _ = _data()
    standardised = _model(NetworkConfig("mlp")).encode(z)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(3).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(standardised.std(0, correction=0), torch.ones(3).double())
    inverse = _model(NetworkConfig(encoding="inverse")).encode(z)
    assert (inverse.amin(), inverse.amax()) == (0, 1)


@pytest.mark.parametrize(
    "config", [*HOMOGENEOUS[-4:], NetworkConfig("degree", degree=3, constant=2.0), *OTHERS], ids=_name
)
def test_files(tmp_path, config):
    model, (z, _) = _model(config), _data()
    model.save(tmp_path / "model.safetensors")
    loaded = type(model).load(tmp_path / "model.safetensors")
    assert torch.equal(loaded(z), model(z))
    assert (loaded.inputs, loaded.outputs, loaded.config) == (INPUTS, OUTPUTS, config.resolve())
    assert not loaded.training


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({}, "not a description of a model of variables"),
        ({"inputs": ["x"], "outputs": ["y"], "network": {"depht": 2}}, "depht"),
        ({"inputs": ["x"], "outputs": ["y"], "network": {"b": 0.5}}, "expected a finite number >= 1"),
        ({"inputs": ["x"], "outputs": ["y"], "network": {"model": "cnn"}}, "expected one of bcos, degree"),
        ({"inputs": ["x"], "outputs": ["y"], "network": {}}, "another architecture"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, description, message):
    save_model(tmp_path / "m.safetensors", torch.nn.Linear(2, 2), json.loads(json.dumps(description)))
    with pytest.raises(InputError, match=message):
        type(_model(NetworkConfig())).load(tmp_path / "m.safetensors")


def test_data_scales():
    z, y = _data()
    y[:, 1] = 0
    scales = DataScales.of(z, y)
    torch.testing.assert_close(scales.std, (z - z.mean(0)).square().mean(0).sqrt())
    torch.testing.assert_close(
        scales.output_rms, torch.stack([y[:, 0].square().mean().sqrt(), torch.tensor(1.0).double()])
    )
    z[:, 2] = 0.1
    with pytest.raises(InputError, match="input 2 is the same in all training samples"):
        DataScales.of(z, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"b": 0.5}, r"--network.b: expected a finite number >= 1, got 0.5"),
        ({"b": float("nan")}, "--network.b"),
        ({"b": float("inf")}, "--network.b"),
        ({"b": 1.5, "model": "degree"}, 'belongs to model "bcos", not "degree"'),
        ({"degree": 3}, 'belongs to model "degree", not "bcos"'),
        ({"degree": 0, "model": "degree"}, "--network.degree: expected at least 1, got 0"),
        ({"depth": -1}, "--network.depth: expected at least 0"),
        ({"width": 0}, "--network.width: expected at least 1"),
        ({"constant": 0.0}, "--network.constant: expected a positive number"),
        ({"model": "mlp", "encoding": "inverse"}, "--network.encoding"),
        ({"model": "tree"}, '--network.model: expected one of bcos, degree, mlp, mlp_nobias, got "tree"'),
        ({"depth": 0, "width": 8}, "--network.width: belongs to hidden layers, and --network.depth is 0"),
        ({"depth": 0, "b": 1.5}, "--network.b: belongs to hidden layers, and --network.depth is 0"),
        ({"encoding": "log"}, '--network.encoding: expected one of constant, inverse, scaled, got "log"'),
    ],
)
def test_networks_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        NetworkConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adam_steps": -1}, "--fit.adam_steps: expected at least 0"),
        ({"weight_decay": -0.1}, "--fit.weight_decay"),
        ({"lr": 0.0}, "--fit.lr: expected a positive number"),
        ({"lr": float("nan")}, "--fit.lr"),
        ({"adam_steps": 0, "lbfgs_steps": 0}, "nothing would be fitted"),
        ({"adam_steps": 0, "lr": 0.1}, "--fit.lr: belongs to Adam, and --fit.adam_steps is 0; expected 0.01, got 0.1"),
        ({"adam_steps": 0, "weight_decay": 2.0}, "--fit.weight_decay: belongs to Adam, .* expected 0, got 2"),
    ],
)
def test_fits_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        FitConfig(**options)
