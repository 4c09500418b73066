"""Learnt exponents: their range, gradients by finite differences, who shares them, and B recovered from a teacher."""

import math

import pytest
import torch
from bcos_core.nn import (
    BcosConv2d,
    BcosLinear,
    Exponent,
    layer_exponents,
    learn_exponents,
    learnt_exponents,
    set_exponent,
)
from torch import nn


def small_network(b=1.7):
    return nn.Sequential(
        BcosConv2d(2, 3, 3, b=b), BcosConv2d(3, 4, 2, b=b, max_out=2), nn.Flatten(), BcosLinear(4, 5, b=b)
    )


def randomise(model):
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Exponent):
                module.raw.normal_()


@pytest.mark.parametrize("initial", [1 + 1e-6, 1.25, 2.0, 2.5, 40.0])
def test_starts_where_it_is_told(initial):
    assert Exponent(initial).double()().item() == pytest.approx(initial, rel=1e-6)


@pytest.mark.parametrize("raw", [-1e4, -100.0, -1.0, 0.0, 3.0, 1e4])
def test_never_below_1_and_softplus_above(raw):
    exponent = Exponent()
    with torch.no_grad():
        exponent.raw.fill_(raw)
    expected = 1 + (raw if raw > 700 else math.log1p(math.exp(raw)))
    assert exponent().item() >= 1
    assert exponent().item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("initial", [1, 0.5, -3, math.inf, math.nan])
def test_a_start_from_which_b_cannot_move_is_refused(initial):
    with pytest.raises(ValueError, match="b: a learnt exponent starts at a finite number above 1"):
        Exponent(initial)


@pytest.mark.parametrize("share", ["global", "layer", "channel"])
def test_gradients_by_finite_differences(share):
    torch.manual_seed(0)
    model = learn_exponents(small_network(), share).double()
    randomise(model)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    u = torch.randn(2, 5, dtype=torch.float64)
    (model(x) * u).sum().backward()
    step = 1e-6
    checked = 0
    for module in model.modules():
        if not isinstance(module, Exponent):
            continue
        for i in range(module.raw.numel()):
            sides = []
            for sign in (1, -1):
                with torch.no_grad():
                    module.raw.view(-1)[i] += sign * step
                    sides.append((model(x) * u).sum().item())
                    module.raw.view(-1)[i] -= sign * step
            difference = (sides[0] - sides[1]) / (2 * step)
            assert module.raw.grad.view(-1)[i].item() == pytest.approx(difference, rel=1e-5, abs=1e-8)
            assert difference != 0
            checked += 1
    assert checked == {"global": 1, "layer": 3, "channel": 3 + 4 + 5}[share]


def test_float32_gradients_are_those_of_the_formula(oracle_linear):
    layer = BcosLinear(6, 3, b=Exponent(1.6, channels=3))
    x = torch.randn(7, 6)
    layer(x).sum().backward()
    b = torch.full((3,), 1.6, dtype=torch.float64, requires_grad=True)
    weight = layer.weight.detach().double()
    unit = weight / weight.norm(dim=1, keepdim=True)
    response = x.double() @ unit.T
    norm = (x.double().square().sum(1, keepdim=True) + layer.eps).sqrt()
    (response * (response.abs() / norm + 1e-6) ** (b - 1)).sum().backward()
    expected = b.grad * (1 - torch.exp(1 - b.detach()))  # dB/draw
    torch.testing.assert_close(layer.b.raw.grad.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", ["global", "layer", "channel"])
def test_values_are_those_of_the_fixed_exponent(share):
    torch.manual_seed(0)
    model = small_network(1.7).double()
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    fixed = model(x)
    torch.testing.assert_close(learn_exponents(model.double(), share)(x), fixed, rtol=1e-6, atol=1e-7)


def test_who_shares():
    one = learn_exponents(small_network(), "global")
    assert len({id(b) for b in layer_exponents(one).values()}) == 1
    assert learnt_exponents(one).shape == (1,)
    assert learnt_exponents(learn_exponents(small_network(), "layer")).shape == (3,)
    assert learnt_exponents(learn_exponents(small_network(), "channel")).shape == (12,)
    assert sum(p.numel() for p in one.parameters()) == sum(p.numel() for p in small_network().parameters()) + 1


def test_state_goes_from_one_model_to_another():
    model = learn_exponents(small_network(), "channel")
    randomise(model)
    other = learn_exponents(small_network(), "channel")
    other.load_state_dict(model.state_dict())
    assert torch.equal(learnt_exponents(other), learnt_exponents(model))
    one = learn_exponents(small_network(), "global")
    randomise(one)
    other = learn_exponents(small_network(), "global")
    other.load_state_dict(one.state_dict())
    assert torch.equal(learnt_exponents(other), learnt_exponents(one))


def test_fixing_and_learning_again():
    model = learn_exponents(small_network(), "layer")
    set_exponent(model, 2)
    assert list(layer_exponents(model).values()) == [2, 2, 2]
    assert not [name for name in model.state_dict() if "raw" in name]
    learn_exponents(model, "channel", initial=1.25)
    learn_exponents(model, "channel")  # from where they are
    assert learnt_exponents(model).detach() == pytest.approx(torch.full((12,), 1.25))


def test_a_start_that_is_refused_leaves_the_model_as_it_was():
    model = nn.Sequential(BcosLinear(4, 4, b=2.0), BcosLinear(4, 2, b=1.0))
    with pytest.raises(ValueError, match="starts at a finite number above 1"):
        learn_exponents(model)
    assert list(layer_exponents(model).values()) == [2.0, 1.0]


def test_repr():
    text = repr(nn.Sequential(BcosLinear(5, 4, b=Exponent(1.5)), BcosLinear(4, 2, b=Exponent(2.0, channels=2))))
    assert "BcosLinear(\n    5, 4, b=learnt\n    (b): Exponent(1.5)" in text
    assert "Exponent(2 channels, 2 to 2)" in text


def test_mistakes():
    with pytest.raises(ValueError, match="model: Linear has no B-cos layer"):
        learn_exponents(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="model: Linear has no B-cos layer"):
        set_exponent(nn.Linear(2, 2), 2)
    with pytest.raises(ValueError, match=r"b: expected a finite number >= 1, got 0\.5"):
        set_exponent(small_network(), 0.5)
    with pytest.raises(ValueError, match='share: expected "global", "layer" or "channel", got "filter"'):
        learn_exponents(small_network(), "filter")
    with pytest.raises(ValueError, match="model: no exponent of it is learnt"):
        learnt_exponents(small_network())
    with pytest.raises(ValueError, match="b: expected one exponent, or one for each of 4 outputs, got 3"):
        BcosLinear(5, 4, b=Exponent(2.0, channels=3))
    with pytest.raises(ValueError, match="starts at a finite number above 1"):
        learn_exponents(small_network(1.0))


@pytest.mark.parametrize(("share", "true"), [("global", [1.7, 1.7]), ("layer", [1.4, 2.6])])
def test_known_answer_b_of_a_teacher_is_recovered(share, true):
    """A student has the teacher's weights and sees its answers: only the teacher's B explains them."""
    torch.manual_seed(0)
    student = nn.Sequential(BcosLinear(6, 8, b=2.0), BcosLinear(8, 3, b=2.0)).double()
    x = torch.randn(200, 6, dtype=torch.float64)
    set_exponent(student[0], true[0])
    set_exponent(student[1], true[1])
    answers = student(x).detach()
    learn_exponents(student, share, initial=2.0).double()
    raws = [m.raw for m in student.modules() if isinstance(m, Exponent)]
    optimiser = torch.optim.LBFGS(raws, max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-14)

    def closure():
        optimiser.zero_grad()
        loss = 1e4 * (student(x) - answers).square().mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert learnt_exponents(student).tolist() == pytest.approx(true[: len(raws)], rel=1e-6)
