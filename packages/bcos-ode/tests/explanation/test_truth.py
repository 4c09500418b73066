"""The equations' own ledger: by hand, and of a field that is the equations."""

import math

import pytest
import torch
from bcos_core.run.error import InputError
from bcos_ode.config import NetworkConfig
from bcos_ode.explanation import (
    Ledger,
    ledger,
    ledger_error,
    product_ledger,
    read_coefficients,
    true_ledger,
    true_product_ledger,
)
from bcos_ode.systems import SYSTEMS

LV = SYSTEMS["lotka-volterra"]


@pytest.mark.parametrize("p", [1, 2, 3])
def test_a_monomial_is_shared_by_its_exponents(states, make, p):
    x, y = states.unbind(-1)
    field = make(NetworkConfig() if p == 1 else NetworkConfig(model="degree", degree=p))
    found = true_ledger(LV, states, field)
    growth, meals = 1.3 * x, 0.9 * x * y
    expected = torch.stack([growth - meals, -meals, (p - 1) * growth - (p - 2) * meals], -1) / p
    torch.testing.assert_close(found.contributions[:, 0], expected, rtol=1e-13, atol=1e-13)
    assert found.completeness_error.max() < 1e-14


def test_brusselator_at_degree_three(states, make):
    x, y = states.unbind(-1)
    field = make(NetworkConfig(model="degree", degree=3))
    found = true_product_ledger(SYSTEMS["brusselator"], states, field)
    cubic, linear = x**2 * y, 4 * x
    expected = torch.zeros(7, 3, 3).double()
    expected[:, 0, 0] = cubic / 3
    expected[:, 0, 1] = expected[:, 1, 0] = cubic / 3
    expected[:, 0, 2] = expected[:, 2, 0] = -linear / 3
    expected[:, 2, 2] = 1 - linear / 3
    torch.testing.assert_close(found.contributions[:, 0], expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(
        found.contributions.sum(-1),
        true_ledger(SYSTEMS["brusselator"], states, field).contributions,
        rtol=1e-12,
        atol=1e-12,
    )


def test_a_field_that_is_the_system_has_its_ledger(exact_field, states):
    truth = true_ledger(LV, states, exact_field)
    for view in ("W", "J"):
        assert ledger_error(ledger(exact_field, states, view), truth).overall < 1e-13
    products = ledger_error(product_ledger(exact_field, states), true_product_ledger(LV, states, exact_field))
    assert products.overall < 1e-13
    assert max(products.spurious.values()) < 1e-14


def test_coefficients_are_read_off(exact_field, states):
    found = read_coefficients(exact_field, states, LV)
    assert found.monomials == ("x^2", "x y", "x", "y^2", "y", "1")
    expected = torch.tensor([[0, -0.9, 1.3, 0, 0, 0], [0, 0.8, 0, 0, -1.8, 0]], dtype=torch.float64)
    torch.testing.assert_close(found.found, expected, rtol=1e-13, atol=1e-13)
    assert found.true is not None
    assert torch.equal(found.true, expected)
    assert found.spread.max() < 1e-13


def test_spread_tells_a_field_that_is_no_polynomial(states, make):
    found = read_coefficients(make(NetworkConfig(model="degree")), states)
    assert found.spread.max() > 1e-3
    assert found.true is None


def test_errors_by_hand():
    books = [[[3.0, 4.0], [2.0, 0.0]]], [[[3.0, 4.5], [2.0, 2.0]]]
    truth, found = (
        Ledger(("x", "y"), ("x", "y"), torch.ones(1, 2), torch.tensor(b).double(), torch.zeros(1, 2)) for b in books
    )
    error = ledger_error(found, truth)
    assert error.equations == pytest.approx({"x": 0.1, "y": 1.0})
    assert error.overall == pytest.approx(math.sqrt((0.01 + 1) / 2))
    assert error.spurious == {"x": 0.0, "y": 0.5}


def test_mistakes_are_named(states, make):
    with pytest.raises(InputError, match='encoding "inverse" leaves open'):
        true_ledger(LV, states, make(NetworkConfig(encoding="inverse")))
    with pytest.raises(InputError, match="expected one of x, y, z, got x, y"):
        true_ledger(SYSTEMS["lorenz"], states, make(NetworkConfig()))
    with pytest.raises(InputError, match="degree at least 2, got 1"):
        true_product_ledger(LV, states, make(NetworkConfig()))
    pendulum = make(NetworkConfig(model="degree"), SYSTEMS["pendulum"].variables)
    with pytest.raises(InputError, match=r'term "-k sin\(θ\)" of pendulum is no monomial'):
        true_product_ledger(SYSTEMS["pendulum"], states, pendulum)
    assert true_ledger(SYSTEMS["pendulum"], states, pendulum).completeness_error.max() < 1e-14
    with pytest.raises(InputError, match="of degree 2, got 1"):
        read_coefficients(make(NetworkConfig()), states)
    with pytest.raises(InputError, match="not among the field's products"):
        read_coefficients(make(NetworkConfig(model="degree")), states, SYSTEMS["brusselator"])
    field = make(NetworkConfig())
    with pytest.raises(InputError, match=r"got shapes \(7, 2, 3\) and \(6, 2, 3\)"):
        ledger_error(ledger(field, states), true_ledger(LV, states[1:], field))
