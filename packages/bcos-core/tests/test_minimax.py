"""Minimax objectives: known answers of problems with a closed form, their limits, and gradients."""

import math

import numpy as np
import pytest
import torch
from bcos_core.minimax import (
    ExponentObjective,
    LargestPenalty,
    LowerBound,
    SmoothLargestPenalty,
    UpperBound,
    create_objective,
)
from bcos_core.nn import BcosLinear, Exponent, learn_exponents, learnt_exponents, set_exponent
from scipy.optimize import brentq, minimize
from torch import nn

# loss(B) = sum a/2 (B - c)^2, whose minimum without an objective is c
A = np.array([1.0, 2.0, 0.5, 3.0])
C = np.array([1.2, 1.9, 2.6, 2.3])


def loss(b):
    return (torch.from_numpy(A) / 2 * (b - torch.from_numpy(C)) ** 2).sum()


def solve(objective, steps=3000, lr=0.1):
    """Gradient steps in the parametrisation of the layers, and the objective's own."""
    exponents = Exponent(2.0, channels=len(C)).double()
    objective.double()
    for step in range(steps):
        b = exponents()
        (gradient,) = torch.autograd.grad(loss(b) + objective(b), exponents.raw)
        rate = lr * min(1.0, 2 * (1 - step / steps))  # a subgradient method needs steps that go to zero
        with torch.no_grad():
            exponents.raw -= rate * gradient
            objective.ascend(exponents())
    return exponents().detach().numpy()


def water_level(strength):
    """Closed form: B = min(c, t), and the excess pays the penalty, sum a (c - t)+ = strength."""

    def excess(t):
        return (A * np.clip(C - t, 0, None)).sum() - strength

    return 1.0 if excess(1.0) <= 0 else brentq(excess, 1.0, C.max())


@pytest.mark.parametrize("strength", [0.1, 0.5, 2.0, 4.0])
def test_largest_penalty_levels_the_highest(strength):
    expected = np.minimum(C, water_level(strength))
    assert 1 < water_level(strength) < C.max()
    assert solve(LargestPenalty(strength)) == pytest.approx(expected, abs=1e-2)


def test_largest_penalty_at_its_limits():
    assert solve(LargestPenalty(0.0)) == pytest.approx(C, abs=1e-4)
    # exact from a finite strength on: that of the loss's whole slope at B = 1 (docs/maths.md)
    threshold = (A * (C - 1)).sum()
    assert water_level(threshold) == pytest.approx(1)
    at_1 = solve(LargestPenalty(50 * threshold))
    assert at_1 == pytest.approx(np.ones(4), abs=1e-2)
    assert (at_1 >= 1).all()


@pytest.mark.parametrize("sharpness", [1.0, 5.0, 50.0])
def test_smooth_penalty_solves_its_own_problem(sharpness):
    strength = 1.0

    def objective(b):
        return (A / 2 * (b - C) ** 2).sum() + strength / sharpness * np.logaddexp.reduce(sharpness * b)

    expected = minimize(objective, C, bounds=[(1, None)] * 4, tol=1e-12).x
    assert solve(SmoothLargestPenalty(strength, sharpness)) == pytest.approx(expected, abs=1e-2)


def test_smooth_penalty_is_the_largest_when_sharp_and_even_when_flat():
    b = torch.tensor([1.2, 1.9, 2.6], dtype=torch.float64, requires_grad=True)
    sharp = SmoothLargestPenalty(1.0, 500.0)(b)
    assert sharp.item() == pytest.approx(2.6, abs=math.log(3) / 500)
    flat = SmoothLargestPenalty(1.0, 1e-6)(b)
    (gradient,) = torch.autograd.grad(flat, b)
    assert gradient.tolist() == pytest.approx([1 / 3] * 3, abs=1e-5)
    for sharpness in (0.5, 5.0, 50.0):
        value = SmoothLargestPenalty(1.0, sharpness)(b).item()
        assert 2.6 <= value <= 2.6 + math.log(3) / sharpness


def test_subgradient_is_shared_by_ties_and_sums_to_the_strength():
    b = torch.tensor([2.0, 1.5, 2.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(LargestPenalty(0.6)(b), b)
    assert gradient.tolist() == pytest.approx([0.3, 0, 0.3])


@pytest.mark.parametrize("damping", [0.0, 1.0, 10.0])
def test_upper_bound_and_its_multipliers_meet_the_optimality_conditions(damping):
    bound = 2.0
    objective = UpperBound(4, bound, step=0.1, damping=damping)
    assert solve(objective) == pytest.approx(np.minimum(C, bound), abs=1e-3)
    expected = A * np.clip(C - bound, 0, None)  # what the loss would gain by a little more room
    assert objective.multipliers.numpy() == pytest.approx(expected, abs=1e-3)
    assert objective.multiplier == pytest.approx(expected.sum(), abs=2e-3)
    # the same B solve the penalised problem of that strength
    assert water_level(objective.multiplier) == pytest.approx(bound, abs=1e-2)


def test_lower_bound_is_its_mirror():
    bound = 2.0
    objective = LowerBound(4, bound, step=0.1)
    assert solve(objective) == pytest.approx(np.maximum(C, bound), abs=1e-3)
    assert objective.multipliers.numpy() == pytest.approx(A * np.clip(bound - C, 0, None), abs=1e-3)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (UpperBound(4, 3.0, step=0.1), C),  # a bound that nothing reaches: the loss alone
        (UpperBound(4, 1.0, step=0.05, damping=10.0), np.ones(4)),  # no room at all: B = 1
        (LowerBound(4, 1.0, step=0.1), C),  # B >= 1 always holds
        (LowerBound(4, 2.6, step=0.1), np.full(4, 2.6)),
    ],
)
def test_bounds_at_their_limits(objective, expected):
    assert solve(objective) == pytest.approx(expected, abs=1e-2)


def test_known_answer_in_a_network():
    """A teacher has B = 2.5: the student finds it, ends at an upper bound of 1.8, and at a lower one of 3."""
    torch.manual_seed(0)
    layer = BcosLinear(6, 4, b=2.5).double()
    x = torch.randn(100, 6, dtype=torch.float64)
    answers = layer(x).detach()
    found = {}
    for name, objective in {
        "alone": ExponentObjective(),
        "at most 1.8": UpperBound(1, 1.8, step=0.05).double(),
        "at least 3": LowerBound(1, 3.0, step=0.05).double(),
    }.items():
        student = nn.Sequential(layer)
        set_exponent(student, 2.0)
        learn_exponents(student, "global").double()
        optimiser = torch.optim.SGD([layer.b.raw], lr=0.2)
        for _ in range(1500):
            b = learnt_exponents(student)
            optimiser.zero_grad()
            (10 * (student(x) - answers).square().mean() + objective(b)).backward(inputs=[layer.b.raw])
            optimiser.step()
            objective.ascend(learnt_exponents(student))
        found[name] = learnt_exponents(student).item()
    assert found == pytest.approx({"alone": 2.5, "at most 1.8": 1.8, "at least 3": 3.0}, abs=2e-3)


def test_multipliers_are_state():
    objective = UpperBound(2, 1.5, step=0.1)
    objective.ascend(torch.tensor([2.0, 1.0]))
    other = UpperBound(2, 1.5, step=0.1)
    other.load_state_dict(objective.state_dict())
    assert other.multipliers.tolist() == pytest.approx([0.05, 0])


def test_by_name_and_mistakes():
    kinds = {kind: type(create_objective(kind, 3)) for kind in ("none", "max", "smooth_max", "at_most", "at_least")}
    assert list(kinds.values()) == [ExponentObjective, LargestPenalty, SmoothLargestPenalty, UpperBound, LowerBound]
    assert create_objective("max", strength=0.3).strength == 0.3
    assert create_objective("at_least", 3, bound=1.7, step=0.5).multipliers.shape == (3,)
    with pytest.raises(ValueError, match=r'kind: expected one of none, max, .* got "min"'):
        create_objective("min")
    with pytest.raises(ValueError, match=r"bound: expected a finite number >= 1, got 0\.5"):
        create_objective("at_most", bound=0.5)
    with pytest.raises(ValueError, match="strength: expected a finite number >= 0, got -1"):
        create_objective("max", strength=-1)
    with pytest.raises(ValueError, match="sharpness: expected a finite number > 0, got 0"):
        create_objective("smooth_max", sharpness=0)
    with pytest.raises(ValueError, match="size: expected at least one exponent, got 0"):
        create_objective("at_most", 0)
