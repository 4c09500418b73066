"""Sparse regression against systems whose equations are known."""

import numpy as np
import pytest
from bcos_ode.dynamics.sparse import fit_sparse
from bcos_ode.systems import SYSTEMS, make_system


def _samples(system, count=200, noise=0.0):
    random = np.random.default_rng(0)
    z = random.uniform(system.low, system.high, (count, system.dim))
    derivatives = system(z)
    return z, derivatives + noise * derivatives.std(0) * random.standard_normal(z.shape)


@pytest.mark.parametrize(
    ("name", "degree"), [("lotka-volterra", 3), ("lorenz", 3), ("brusselator", 3), ("van-de-vusse", 2)]
)
def test_known_systems(name, degree):
    system = SYSTEMS[name]
    z, derivatives = _samples(system)
    model = fit_sparse(z, derivatives, degree, 0.01, system.variables)
    assert model.term_f1(system) == 1
    for i, equation in enumerate(system.terms):
        for monomial, powers in zip(model.monomials, model.powers, strict=True):
            expected = sum(term.coefficient for term in equation if term.powers == tuple(powers))
            found = model.coefficients[system.variables[i]].get(monomial, 0.0)
            assert found == pytest.approx(expected, rel=1e-9), monomial
    np.testing.assert_allclose(model(z), derivatives, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(model(z[0]), model(z)[0], rtol=1e-12, atol=1e-12)
    assert model(z.reshape(4, 50, -1)).shape == (4, 50, system.dim)


def test_equations_as_text():
    system = SYSTEMS["brusselator"]
    model = fit_sparse(*_samples(system), 3, 0.01, system.variables)
    assert model.equations() == "x' = +1 -4 x +1 x^2 y\ny' = +3 x -1 x^2 y"


def test_units_do_not_matter():
    """A threshold on shares: y in thousandths, time in thousands."""
    system = SYSTEMS["lotka-volterra"]
    z, derivatives = _samples(system, noise=0.02)
    plain = fit_sparse(z, derivatives, 3, 0.1, system.variables)
    unit = np.array([1.0, 1e-3])
    other = fit_sparse(z * unit, derivatives * unit * 1e3, 3, 0.1, system.variables)
    np.testing.assert_array_equal(plain.matrix != 0, other.matrix != 0)
    np.testing.assert_allclose(other(z * unit), plain(z) * unit * 1e3, rtol=1e-9)


def test_noise_and_the_threshold():
    """Least squares keeps everything; a threshold finds the terms; too high a one drops them."""
    system = SYSTEMS["lotka-volterra"]
    samples = _samples(system, noise=0.05)
    everything = fit_sparse(*samples, 3, 0.0, system.variables)
    assert (everything.matrix != 0).all()
    assert everything.term_f1(system) == pytest.approx(2 * 4 / (20 + 4))
    assert fit_sparse(*samples, 3, 0.3, system.variables).term_f1(system) == 1
    # without a threshold, NumPy's polynomial least squares
    x, y = samples[0].T
    columns = np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], -1)
    expected = columns @ np.linalg.lstsq(columns, samples[1], rcond=None)[0]
    np.testing.assert_allclose(everything(samples[0]), expected, rtol=1e-8, atol=1e-8)


def test_weights():
    """Samples of weight zero do not count."""
    system = SYSTEMS["lotka-volterra"]
    z, derivatives = _samples(system)
    derivatives[:50] += 100
    weights = np.ones((200, 1))
    weights[:50] = 0
    assert fit_sparse(z, derivatives, 2, 0.01, system.variables, weights).term_f1(system) == 1
    assert fit_sparse(z, derivatives, 2, 0.01, system.variables).term_f1(system) < 1


def test_sines_are_missed():
    system = SYSTEMS["pendulum"]
    model = fit_sparse(*_samples(system), 1, 0.01, system.variables)
    # found: θ' = ω, ω' = a θ - c ω and perhaps a constant; true: ω, sin θ, ω
    found = {(i, j) for i, j in np.argwhere(model.matrix)}
    assert model.term_f1(system) == pytest.approx(2 * 2 / (len(found) + 3))


def test_nothing_to_find():
    system = make_system("still", "still", {"x": "0 x", "y": "x"}, {}, (1, 1), (2, 2), 1, 0.1)
    model = fit_sparse(*_samples(system), 2, 0.01, system.variables)
    assert model.equations() == "x' = 0\ny' = +1 x"
    assert model.term_f1(system) == 1  # a term of coefficient zero is none
    assert fit_sparse(*_samples(system), 2, 0.99, system.variables).coefficients["x"] == {}


def test_what_is_refused():
    z = np.random.default_rng(0).standard_normal((12, 2))
    names = ("x", "y")
    with pytest.raises(ValueError, match="12 are too few for 15 monomials of degree <= 4"):
        fit_sparse(z, z, 4, 0.1, names)
    with pytest.raises(ValueError, match=r"expected a degree >= 1 and a threshold in \[0, 1\), got 0 and 0.1"):
        fit_sparse(z, z, 0, 0.1, names)
    with pytest.raises(ValueError, match=r"got 2 and 1\.5"):
        fit_sparse(z, z, 2, 1.5, names)
    with pytest.raises(ValueError, match=r"expected shape \(n, 3\), got \(12, 2\)"):
        fit_sparse(z, z, 2, 0.1, ("x", "y", "z"))
    with pytest.raises(ValueError, match="NaN"):
        fit_sparse(np.where(z > 1, np.nan, z), z, 2, 0.1, names)
    with pytest.raises(ValueError, match="system: expected the variables"):
        fit_sparse(z, z, 1, 0.1, ("a", "b")).term_f1(SYSTEMS["brusselator"])


def test_the_largest_terms_are_written_out():
    """Largest by what they contribute, not by their coefficients, whose units differ."""
    random = np.random.default_rng(0)
    z = random.uniform(1, 2, (200, 3)) * [1, 1e-6, 1e3]
    found = fit_sparse(z, (z @ [[1.0], [3e5], [1e-5]]) + 0 * z, 1, 0.0, ["a", "b 1", "c"])
    x = found.equations().splitlines()[0]
    assert x.endswith("+1 a +3e+05 b 1 +1e-05 c")  # and not "+3e+05 b"
    shares = np.sqrt(np.square(z * [1, 3e5, 1e-5]).mean(0)) / np.sqrt(np.square(z @ [1, 3e5, 1e-5]).mean())
    np.testing.assert_allclose(found.shares[0, 1:], shares, rtol=1e-6)
    assert found.equations(2).splitlines()[0] == "a' = +1 a +3e+05 b 1 and 2 smaller ones"


def test_too_many_monomials_are_not_listed_first():
    """Of 3000 variables the powers alone would be a hundred gigabytes."""
    z = np.ones((9, 3000))
    with pytest.raises(ValueError, match="9 are too few for 4504501 monomials"):
        fit_sparse(z, z, 2, 0.1, [f"x{k}" for k in range(3000)])
