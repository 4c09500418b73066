import pytest
import torch
from bcos_vision.config import OptimConfig
from bcos_vision.train.optimiser import learning_rate_share, make_optimiser


@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_the_schedule_is_a_line_then_a_cosine(warmup):
    total = 20
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total - warmup)]
    if warmup:
        schedules.insert(0, torch.optim.lr_scheduler.LinearLR(optimiser, 0.01, total_iters=warmup))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, schedules, [warmup][: len(schedules) - 1])
    for step in range(total):
        expected = optimiser.param_groups[0]["lr"]
        assert 0.3 * learning_rate_share(step, warmup, total) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        optimiser.step()
        schedule.step()


def test_a_warm_up_as_long_as_the_training():
    assert [round(learning_rate_share(step, 4, 2), 4) for step in range(3)] == [0.01, 0.2575, 0.505]


def step_of(name, weight, gradient, *, decay, lr=0.1):
    """First step of each, written out."""
    if name == "adamw":
        weight = weight * (1 - lr * decay)
    else:
        gradient = gradient + decay * weight
    if name == "sgd":
        return weight - lr * (gradient + 0.9 * gradient)  # the momentum is the first gradient itself
    return weight - lr * gradient / (gradient.abs() + 1e-8)  # both moments, corrected, are of one gradient


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_weights_decay_but_not_norms_and_biases(name):
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2, dtype=torch.float64)
    optimiser = make_optimiser(layer.parameters(), OptimConfig(name=name, lr=0.1, weight_decay=0.5), fused=True)
    before = [p.detach().clone() for p in layer.parameters()]
    layer(torch.randn(4, 3, dtype=torch.float64)).square().sum().backward()
    optimiser.step()
    for old, new, decay in zip(before, layer.parameters(), (0.5, 0.0), strict=True):
        torch.testing.assert_close(new.detach(), step_of(name, old, new.grad, decay=decay), rtol=1e-6, atol=1e-9)
