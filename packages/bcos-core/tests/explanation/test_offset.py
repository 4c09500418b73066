"""The remainder: what biases and norm offsets add, computed from the constants themselves."""

import pytest
import torch
from bcos_core import explain
from bcos_core import nn as bnn
from bcos_core.explanation.offset import recorded_offsets
from torch import nn


def remainder_by_biases(model, x, target):
    """Σ bias · ∂logit/∂bias for each input alone: torch's own gradients of the parameters."""
    biases = [p for name, p in model.named_parameters() if "bias" in name]
    found = []
    for sample in x:
        gradients = torch.autograd.grad(model(sample[None])[0, target], biases, allow_unused=True)
        found.append(sum((g * p).sum() for g, p in zip(gradients, biases, strict=True) if g is not None))
    return torch.stack(found).detach()


class Shared(nn.Module):
    """A layer used twice, and one used never."""

    def __init__(self):
        super().__init__()
        self.layer, self.idle = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(self.layer(x).relu_())


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(input=x)


class SequenceFirst(nn.Module):
    """Its layers see (steps, batch, features)."""

    def __init__(self, steps):
        super().__init__()
        self.steps, self.first, self.last = steps, nn.Linear(6 // steps, 4), nn.Linear(4 * steps, 3)

    def forward(self, x):
        hidden = self.first(x.unflatten(1, (self.steps, -1)).transpose(0, 1)).relu()
        return self.last(hidden.transpose(0, 1).flatten(1))


class Windows(nn.Module):
    """Its first layer sees (batch * windows, features)."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 4), nn.Linear(12, 3)

    def forward(self, x):
        return self.last(self.first(x.reshape(-1, 2)).relu().view(len(x), -1))


class Side(nn.Module):
    """A bias on a path that no input enters, made once for the whole batch."""

    def __init__(self):
        super().__init__()
        self.main, self.side = nn.Linear(6, 3), nn.Linear(2, 3)

    def forward(self, x):
        return self.main(x) + self.side(x.new_zeros(1, 2))


MODELS = {
    "1d": lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)),
    "3d": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 1, 2, 3)), nn.Conv3d(1, 4, (1, 2, 2)), nn.ReLU(True), nn.Flatten(), nn.Linear(8, 3)
    ),
    "transposed": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.ConvTranspose1d(2, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    ),
    "shared": Shared,
    "by keyword": ByKeyword,
    "sequence first": lambda: SequenceFirst(2),
    "windows": Windows,
    "side path": Side,
    "GELU": lambda: nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.LayerNorm(4), nn.Linear(4, 3)),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def model(request):
    return request.param().double().eval()


@pytest.fixture
def x():
    return torch.randn(4, 6, dtype=torch.float64)


@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])
def test_remainder_is_the_sum_over_biases(model, x, frozen):
    expected = remainder_by_biases(model, x, 2)
    model.requires_grad_(not frozen)
    torch.testing.assert_close(explain(model, x, 2).remainder, expected)


def test_as_many_steps_as_inputs_are_not_told_apart_but_seen():
    """(steps, batch) with both the same: whose bias is whose cannot be known, and the completeness error says so."""
    model, x = SequenceFirst(3).double(), torch.randn(3, 6, dtype=torch.float64)
    assert (explain(model, x, 0).completeness_error > 1e-3).any()
    torch.testing.assert_close(explain(model, x[:1], 0).remainder, remainder_by_biases(model, x[:1], 0))


def test_recording_leaves_no_hook_even_after_an_exception(model, x):
    with recorded_offsets(model) as tape:
        model(x)
    assert len(tape.outputs) == len(tape.constants) > 0
    with pytest.raises(KeyError), recorded_offsets(model):
        raise KeyError
    assert not any(m._forward_hooks for m in model.modules())


def test_norm_offset():
    """In evaluation a batch norm adds bias - weight · mean / sqrt(var + eps)."""
    model = nn.Sequential(bnn.BatchNorm2d(2, bias=True), nn.Flatten()).double().eval()
    norm = model[0]
    with torch.no_grad():
        for value in (norm.running_mean, norm.weight, norm.bias):
            value.normal_()
        norm.running_var.uniform_(0.5, 2)
    offset = norm.bias - norm.weight * norm.running_mean / (norm.running_var + norm.eps).sqrt()
    found = explain(model, torch.randn(3, 2, 1, 1).double(), 1)
    torch.testing.assert_close(found.remainder, offset[1].detach().expand(3))


def test_batch_norm_without_statistics_has_only_its_bias():
    """Its statistics are the batch's: no constants, and nothing that can be evaluated at zero."""
    model = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten()).double()
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([3.0, -4.0]))
    found = explain(model, torch.randn(5, 2, 2, 1).double(), [0, 1, 2, 3, 3])
    assert found.remainder.tolist() == [3, 3, -4, -4, -4]


def test_in_place_activation_does_not_touch_what_was_recorded():
    layer = nn.Linear(2, 2, bias=True).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
        layer.bias.copy_(torch.tensor([0.25, 0.5]))
    x = torch.ones(1, 2, dtype=torch.float64)
    off, on = (explain(nn.Sequential(layer, nn.ReLU(inplace=True)), x, k) for k in (0, 1))
    assert off.remainder.item() == 0
    assert not off.contributions.any()
    assert on.remainder.item() == 0.5
    assert on.contributions.tolist() == [[1, 1]]


def test_layer_norm_over_channels_that_come_first():
    """torchvision's and timm's LayerNorm2d are LayerNorms whose bias is not along the last dimension."""

    class LayerNorm2d(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    model = nn.Sequential(LayerNorm2d(3), nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    nn.init.normal_(model[0].bias)
    found = explain(model, torch.rand(2, 3, 4, 5, dtype=torch.float64), target=1)
    expected = model[1].bias[1] + model[1].weight[1, :, 0, 0] @ model[0].bias
    torch.testing.assert_close(found.remainder, expected.expand(2).detach())
