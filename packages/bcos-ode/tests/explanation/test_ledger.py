"""Ledgers: both views add up, and are what formulas and other code say."""

import pytest
import torch
from bcos_core import explain
from bcos_core.run.error import InputError
from bcos_ode.config import NetworkConfig
from bcos_ode.explanation import Ledger, ledger, product_ledger, true_ledger
from bcos_ode.model import DataScales, create_model
from bcos_ode.systems import SYSTEMS


def written_out(field, e):
    """f(e) in plain PyTorch, from the weights alone."""
    h, config = e, field.config
    layers = field.network.network if config.model == "degree" else field.network
    for layer in layers[: config.depth]:
        unit = layer.weight / layer.weight.norm(dim=1, keepdim=True)
        linear = h @ unit.T
        cosine = linear.abs() / h.norm(dim=-1, keepdim=True)
        exponent = config.exponent - 1
        h = linear * ((cosine if exponent in (0, 1) else cosine + 1e-6) ** exponent)
    y = h @ layers[config.depth].weight.T * layers[config.depth + 1].scale
    if config.model == "degree":
        y = y * (e.norm(dim=-1, keepdim=True) / config.constant) ** (config.degree - 1)
    return y


@pytest.mark.parametrize("view", ["W", "J"])
def test_contributions_add_up(field, states, view):
    found = ledger(field, states, view)
    assert found.contributions.shape == (7, 2, len(field.channels))
    torch.testing.assert_close(found.derivatives, field(states).detach(), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(found.contributions.sum(-1), found.derivatives, rtol=1e-12, atol=1e-13)
    assert found.completeness_error.max() < 1e-13


def test_view_w_is_the_explanation_of_each_output(field, states):
    found = ledger(field, states, "W").contributions
    for i in range(2):
        torch.testing.assert_close(found[:, i], explain(field, states, i).contributions, rtol=1e-12, atol=1e-14)


def test_view_j_is_the_jacobian_of_the_formula(field, states):
    e = field.encode(states)
    jacobian = torch.autograd.functional.jacobian(lambda x: written_out(field, x).sum(0), e).transpose(0, 1)
    expected = jacobian * e[:, None] / field.degree
    torch.testing.assert_close(ledger(field, states, "J").contributions, expected, rtol=1e-9, atol=1e-11)


def test_no_gradient_and_no_mode_is_left_behind(states, make):
    field = make(NetworkConfig())
    with torch.inference_mode():
        inside = ledger(field, states, "W")
    assert torch.equal(inside.contributions, ledger(field, states, "W").contributions)
    assert all(p.grad is None for p in field.parameters())
    assert not field.network[0].detach


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("degree", [2, 3])
def test_products_are_the_hessian_of_the_formula(states, make, depth, degree):
    field = make(NetworkConfig(model="degree", depth=depth, degree=degree, width=8))
    found, e = product_ledger(field, states), field.encode(states)
    for n in range(3):
        for i in range(2):
            hessian = torch.autograd.functional.hessian(lambda x, i=i: written_out(field, x[None])[0, i], e[n])
            expected = hessian * torch.outer(e[n], e[n]) / (degree * (degree - 1))
            torch.testing.assert_close(found.contributions[n, i], expected, rtol=1e-7, atol=1e-9)
    assert found.completeness_error.max() < 1e-13
    # sums over one factor are the other's contributions
    torch.testing.assert_close(
        found.contributions.sum(-1), ledger(field, states, "J").contributions, rtol=1e-11, atol=1e-12
    )


def test_completeness_error_can_fail():
    parts = torch.tensor([[[1.0, -3.0]]]).double()
    found = Ledger(("x",), ("x", "1"), torch.ones(1, 2), parts, torch.tensor([[-2.4]]).double())
    assert found.completeness_error.item() == pytest.approx(0.1)


@pytest.mark.parametrize("model", ["mlp", "mlp_nobias"])
def test_plain_networks_have_no_ledger(states, make, model):
    with pytest.raises(InputError, match=f'model "{model}" has no exact ledger; expected "bcos" or "degree"'):
        ledger(make(NetworkConfig(model=model)), states)


def test_mistakes_are_named(states, make):
    field = make(NetworkConfig())
    with pytest.raises(InputError, match='expected "W" or "J", got "w"'):
        ledger(field, states, "w")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected states of shape \(n, 2\), got \(2,\)"):
        ledger(field, states[0])
    with pytest.raises(InputError, match="of degree 1, where second derivatives add up to zero"):
        product_ledger(field, states)


@pytest.mark.parametrize("kind", ["bcos", "degree"])
def test_an_order_divides_monomials_as_it_says(kind):
    """Held against the equations written out: α x and -β x y, each shared among its factors and the constant."""
    system = SYSTEMS["lotka-volterra"]
    z = torch.rand(7, 2, dtype=torch.float64) + 0.5
    scales = DataScales.of(z, system(z))
    field = create_model(NetworkConfig(model=kind), system.variables, system.variables, scales)
    α, β, *_ = system.parameters.values()
    x, y = z.unbind(-1)
    found = true_ledger(system, z, field, order=3).contributions[:, 0]
    expected = torch.stack([(α * x - β * x * y) / 3, -β * x * y / 3, 2 * α * x / 3 - β * x * y / 3], -1)
    torch.testing.assert_close(found, expected)
    of_order = ledger(field, z, order=3)
    assert of_order.completeness_error.max() < 1e-12
    own = ledger(field, z)
    torch.testing.assert_close(of_order.contributions[..., :2], own.contributions[..., :2] * field.degree / 3)


def test_an_order_needs_a_constant_and_a_view_that_has_one():
    z = torch.rand(7, 2, dtype=torch.float64)
    scales = DataScales.of(z, z)
    scaled = create_model(NetworkConfig(encoding="scaled"), ["x", "y"], ["x", "y"], scales)
    with pytest.raises(InputError, match='order: needs a constant channel, which encoding "scaled" does not have'):
        ledger(scaled, z, order=2)
    usual = create_model(NetworkConfig(), ["x", "y"], ["x", "y"], scales)
    with pytest.raises(InputError, match="order: expected a positive number, got -1"):
        ledger(usual, z, order=-1)
    with pytest.raises(InputError, match="order: the view W has none"):
        ledger(usual, z, "W", order=2)


def test_cancellation_is_what_is_given_and_taken_back(exact_field, states):
    """Of α x - β x y at order 1: x is given all of it, y the product, and the constant takes the product back."""
    system = SYSTEMS["lotka-volterra"]
    x, y = states.unbind(1)
    gain, loss = 1.3 * x, 0.9 * x * y
    derivative = (gain - loss).abs().sum()
    torch.testing.assert_close(system(states)[:, 0], gain - loss)
    first = ledger(exact_field, states, order=1).cancellation[0]
    torch.testing.assert_close(first, ((gain - loss).abs() + 2 * loss).sum() / derivative)
    second = ledger(exact_field, states, order=2).cancellation[0]
    torch.testing.assert_close(second, ((gain - loss).abs() + loss + gain).sum() / 2 / derivative)
    alone = Ledger(("x",), ("x",), states[:, :1], states[:, :1, None], states[:, :1])
    assert alone.cancellation.tolist() == [1]
