"""The systems that come with the package, with their constants and where these are from."""

import numpy as np
from bcos_core.run.registry import Registry

from .system import System, make_system

SYSTEMS: Registry[System] = Registry("system")


def _add(system: System) -> System:
    return SYSTEMS.register(system.name)(system)


def _lotka_volterra_energy(z: np.ndarray) -> np.ndarray:
    α, β, γ, δ = LOTKA_VOLTERRA.parameters.values()
    x, y = z[..., 0], z[..., 1]
    return γ * x - δ * np.log(x) + β * y - α * np.log(y)


LOTKA_VOLTERRA = _add(
    make_system(
        "lotka-volterra",
        "Lotka-Volterra: prey x, predators y",
        {"x": "α x, -β x y", "y": "γ x y, -δ y"},
        {"α": 1.3, "β": 0.9, "γ": 0.8, "δ": 1.8},
        low=(0.5, 0.5),
        high=(3.5, 3.5),
        span=10.0,
        step=0.1,
        invariants={"γ x - δ ln x + β y - α ln y": _lotka_volterra_energy},
        source="Rackauckas et al. 2020, universal differential equations (arXiv 2001.04385), scenario 1",
    )
)

LORENZ = _add(
    make_system(
        "lorenz",
        "Lorenz 1963: convection, chaotic",
        {"x": "σ y, -σ x", "y": "ρ x, -y, -x z", "z": "x y, -β z"},
        {"σ": 10.0, "ρ": 28.0, "β": 8 / 3},
        low=(-10.0, -10.0, 15.0),
        high=(10.0, 10.0, 35.0),
        span=10.0,
        step=0.02,
        burn_in=30.0,
        lyapunov_exponent=0.9056,
        source="Lorenz 1963; the exponent as in Sprott, Chaos and Time-Series Analysis (2003)",
    )
)

BRUSSELATOR = _add(
    make_system(
        "brusselator",
        "Brusselator: an autocatalytic reaction, A and B held constant",
        {"x": "A, x^2 y, -B x, -x", "y": "B x, -x^2 y"},
        {"A": 1.0, "B": 3.0},
        low=(0.5, 0.5),
        high=(3.5, 3.5),
        span=10.0,
        step=0.02,
        source="Prigogine & Lefever 1968; constants of the limit cycle B > 1 + A²",
    )
)

VAN_DE_VUSSE = _add(
    make_system(
        "van-de-vusse",
        "Van de Vusse: A -> B -> C and 2 A -> D in a stirred tank, isothermal",
        {"A": "D A0, -D A, -k1 A, -k3 A^2", "B": "-D B, k1 A, -k2 B"},
        {"D": 34.3, "A0": 10.0, "k1": 50.0, "k2": 100.0, "k3": 10.0},
        low=(0.5, 0.2),
        high=(8.0, 2.0),
        span=0.1,
        step=0.001,
        time_unit="h",
        source="Van de Vusse 1964, the isothermal form of the control literature: h⁻¹, l mol⁻¹ h⁻¹, mol l⁻¹",
    )
)

ROBERTSON = _add(
    make_system(
        "robertson",
        "Robertson: three reactions on time scales nine decades apart, stiff",
        {"y1": "-k1 y1, k3 y2 y3", "y2": "k1 y1, -k3 y2 y3, -k2 y2^2", "y3": "k2 y2^2"},
        {"k1": 0.04, "k2": 3e7, "k3": 1e4},
        low=(0.5, 0.0, 0.0),
        high=(1.0, 0.0, 0.5),
        span=1e5,
        step=1e-5,
        time_unit="s",
        spacing="logarithmic",
        stiff=True,
        invariants={"y1 + y2 + y3": lambda z: z.sum(-1)},
        source="Robertson 1966; Hairer & Wanner, Solving ODEs II, sec. IV.1",
    )
)

OREGONATOR = _add(
    make_system(
        "oregonator",
        "Oregonator: the Belousov-Zhabotinsky reaction, stiff",
        {
            "y1": "p1 y2, p1 y1, -p1 p2 y1^2, -p1 y1 y2",
            "y2": "y3 / p1, -y2 / p1, -y1 y2 / p1",
            "y3": "p3 y1, -p3 y3",
        },
        {"p1": 77.27, "p2": 8.375e-6, "p3": 0.161},
        low=(1.0, 1.0, 1.0),
        high=(3.0, 3.0, 5.0),
        span=30.0,
        step=0.1,
        stiff=True,
        source="Field & Noyes 1974; constants of Hairer & Wanner, Solving ODEs II, sec. IV.10",
    )
)

PENDULUM = _add(
    make_system(
        "pendulum",
        "damped pendulum: angle θ, rate ω",
        {"θ": "ω", "ω": "-k sin(θ), -c ω"},
        {"k": 9.81, "c": 0.2},
        low=(-2.5, -2.0),
        high=(2.5, 2.0),
        span=6.0,
        step=0.05,
        time_unit="s",
        source="of 1 m on Earth, k = g/l in s⁻²",
    )
)
