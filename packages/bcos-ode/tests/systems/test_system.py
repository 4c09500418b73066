"""Equations as data: what they say against the same written out, and what cannot be read."""

import numpy as np
import pytest
import scipy.integrate
import torch
from bcos_core.run.error import InputError
from bcos_ode.systems import SYSTEMS, Term, make_system, simulate


def _lotka_volterra(x, y):
    return 1.3 * x - 0.9 * x * y, 0.8 * x * y - 1.8 * y


def _lorenz(x, y, z):
    return 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z


def _brusselator(x, y):
    return 1 + x**2 * y - 4 * x, 3 * x - x**2 * y


def _van_de_vusse(a, b):
    return 34.3 * (10 - a) - 50 * a - 10 * a**2, -34.3 * b + 50 * a - 100 * b


def _robertson(a, b, c):
    return -0.04 * a + 1e4 * b * c, 0.04 * a - 1e4 * b * c - 3e7 * b**2, 3e7 * b**2


def _oregonator(a, b, c):  # as Hairer & Wanner write it
    return 77.27 * (b + a * (1 - 8.375e-6 * a - b)), (c - (1 + a) * b) / 77.27, 0.161 * (a - c)


def _pendulum(angle, rate):
    return rate, -9.81 * np.sin(angle) - 0.2 * rate


WRITTEN_OUT = {
    "lotka-volterra": _lotka_volterra,
    "lorenz": _lorenz,
    "brusselator": _brusselator,
    "van-de-vusse": _van_de_vusse,
    "robertson": _robertson,
    "oregonator": _oregonator,
    "pendulum": _pendulum,
}


def _states(system, count=7):
    random = np.random.default_rng(3)
    return random.uniform(np.array(system.low) - 1, np.array(system.high) + 1, (count, system.dim))


def test_all_are_written_out():
    assert set(WRITTEN_OUT) == set(SYSTEMS)


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_right_hand_side(name):
    system = SYSTEMS[name]
    z = _states(system)
    expected = np.stack(WRITTEN_OUT[name](*z.T), -1)
    size = np.abs(expected).max()
    np.testing.assert_allclose(system(z), expected, rtol=1e-13, atol=1e-14 * size)
    np.testing.assert_allclose(system(torch.from_numpy(z)).numpy(), system(z), rtol=1e-13, atol=1e-14 * size)
    np.testing.assert_array_equal(system(z[0]), system(z)[0])


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_jacobian(name):
    system = SYSTEMS[name]
    z = _states(system)
    h = 1e-6
    difference = np.stack([(system(z + h * e) - system(z - h * e)) / (2 * h) for e in np.eye(system.dim)], -1)
    np.testing.assert_allclose(system.jacobian(z), difference, rtol=1e-6, atol=1e-8 * np.abs(difference).max())
    t = torch.from_numpy(z).requires_grad_()
    rows = torch.stack([torch.autograd.grad(f.sum(), t, retain_graph=True)[0] for f in system(t).unbind(-1)], -2)
    np.testing.assert_allclose(system.jacobian(t.detach()), rows, rtol=1e-12, atol=1e-12)


def test_jacobian_of_powers_of_sines():
    """The derivative of x² sin²(x) counted one of the sines."""
    system = make_system(
        "s", "s", {"x": "3 x^2 sin(x) sin(x), y sin(x)", "y": "y^3 / a"}, {"a": 4.0}, (0,), (1,), 1, 0.1
    )
    x, y = 0.7, 1.3
    s, c = np.sin(x), np.cos(x)
    np.testing.assert_allclose(system(np.array([x, y])), [3 * x**2 * s**2 + y * s, y**3 / 4], rtol=1e-14)
    expected = [[6 * x * s**2 + 6 * x**2 * s * c + y * c, s], [0, 3 * y**2 / 4]]
    np.testing.assert_allclose(system.jacobian(np.array([x, y])), expected, rtol=1e-14)


def test_terms_are_known():
    x, y = SYSTEMS["brusselator"].terms
    assert [(t.text, t.coefficient, t.powers) for t in x] == [
        ("A", 1.0, (0, 0)),
        ("x^2 y", 1.0, (2, 1)),
        ("-B x", -3.0, (1, 0)),
        ("-x", -1.0, (1, 0)),
    ]
    assert y[1] == Term("-x^2 y", -1.0, (2, 1))
    assert SYSTEMS["pendulum"].terms[1][0].sines == (0,)
    assert [SYSTEMS[n].degree for n in WRITTEN_OUT] == [2, 2, 3, 2, 2, 2, 1]


def test_constants():
    """Numbers, their powers, and what follows a stroke."""
    system = make_system("s", "s", {"x": "1e-3 x, -2 a^2 x / 4 / a, / a"}, {"a": 5.0}, (0,), (1,), 1, 0.1)
    assert [t.coefficient for t in system.terms[0]] == pytest.approx([1e-3, -2 * 25 / 4 / 5, 1 / 5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b x", 'term "b x": unknown name "b"'),
        ("sin(q)", 'term "sin(q)": unknown variable "q"'),
        ("x^y", 'cannot read "x^y"'),
        ("a * x", 'cannot read "\\*"'),
        ("1 / x", "only parameters and numbers can be divided by"),
        ("a / sin(x)", "only parameters and numbers can be divided by"),
        ("a x,", 'term "": it ends where a factor is expected'),
        ("a x, -", 'term "-": it ends'),
        ("x /", 'term "x /": it ends'),
        ("x / / a", 'cannot read "/"'),
    ],
)
def test_what_cannot_be_read(text, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace(")", r"\)").replace("^", r"\^")):
        make_system("s", "s", {"x": text}, {"a": 1.0}, (0,), (1,), 1, 0.1)


def test_other_parameters():
    lorenz = SYSTEMS["lorenz"].with_parameters(ρ=14.0)
    z = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(lorenz(z), [10, 1 * (14 - 3) - 2, 2 - 8], rtol=1e-14)
    assert SYSTEMS["lorenz"].parameters["ρ"] == 28
    assert lorenz.lyapunov_exponent is None  # it was that of ρ = 28
    assert not SYSTEMS["lotka-volterra"].with_parameters(α=2.0).invariants
    with pytest.raises(InputError, match='unknown parameter of lorenz "rho"'):
        SYSTEMS["lorenz"].with_parameters(rho=14.0)


def test_unknown_system():
    with pytest.raises(InputError, match='unknown system "lorentz"; did you mean "lorenz"'):
        SYSTEMS["lorentz"]


def test_times():
    np.testing.assert_allclose(SYSTEMS["lotka-volterra"].times(), np.linspace(0, 10, 101))
    np.testing.assert_allclose(SYSTEMS["lotka-volterra"].times(0.37), [0, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(SYSTEMS["van-de-vusse"].times(), np.linspace(0, 0.1, 101))
    decades = SYSTEMS["robertson"].times()
    assert (decades[0], decades[1], len(decades)) == (0, 1e-5, 52)
    np.testing.assert_allclose(np.diff(np.log10(decades[1:])), 1 / 5)


@pytest.mark.parametrize("span", [0.01, 0.0, -1.0, np.inf, np.nan])
def test_spans_without_a_step(span):
    with pytest.raises(InputError, match=r"span: expected at least one step of lotka-volterra, 0\.1, got"):
        SYSTEMS["lotka-volterra"].times(span)


def test_steady_state_of_the_stirred_tank():
    """Doyle, Ogunnaike & Pearson, Automatica 31 (1995): 3.0 and 1.12 mol/l at a flow of 34.3 per hour."""
    z = simulate(SYSTEMS["van-de-vusse"], np.array([[1.0, 1.0]]), np.array([0.0, 1.0]))[0, -1]
    np.testing.assert_allclose(z, [3.0, 1.117], atol=2e-3)


def test_oregonator_against_the_published_solution():
    """Mazzia & Magherini, Test Set for Initial Value Problem Solvers: OREGO at t = 360."""
    system = SYSTEMS["oregonator"]
    solution = scipy.integrate.solve_ivp(
        lambda _t, z: system(z),
        (0, 360),
        [1.0, 2.0, 3.0],
        method="BDF",
        jac=lambda _t, z: system.jacobian(z),
        rtol=1e-6,
        atol=1e-8,
    )
    reference = [1.000814870318523, 1228.178521549917, 132.0554942846706]
    np.testing.assert_allclose(solution.y[:, -1], reference, rtol=1e-3)


def test_lyapunov_exponent_of_lorenz():
    """By the variational equation (Benettin et al. 1980), from starts that do not linger near an unstable spiral."""
    system = SYSTEMS["lorenz"]

    def both(z):
        return np.concatenate([system(z[:, :3]), np.einsum("nij,nj->ni", system.jacobian(z[:, :3]), z[:, 3:])], 1)

    count, h, steps = 500, 0.02, 800
    random = np.random.default_rng(0)
    z = random.standard_normal((count, 6)) + np.array([0, 0, 15, 0, 0, 0])
    growth = []
    for _ in range(steps):
        k1 = both(z)
        k2 = both(z + h / 2 * k1)
        k3 = both(z + h / 2 * k2)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + both(z + h * k3))
        size = np.linalg.norm(z[:, 3:], axis=1, keepdims=True)
        z[:, 3:] /= size
        growth.append(np.log(size).mean())
    assert np.mean(growth[300:]) / h == pytest.approx(system.lyapunov_exponent, rel=0.02)
