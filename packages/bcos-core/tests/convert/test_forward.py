"""What forwards call themselves: calls that pass leave explanations exact, those refused do not."""

import pytest
import torch
import torch.nn.functional as F
from bcos_core import bcosify, explain
from torch import nn
from torch.nn.utils import parametrize


class Calls(nn.Module):
    """A convolution, a call, and a linear layer."""

    def __init__(self, call):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.LazyLinear(3)
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.scale, self.offset = nn.Parameter(torch.rand(4, 1, 1) + 0.5), nn.Parameter(torch.randn(4, 1, 1))
        self.token, self.both = nn.Parameter(torch.randn(1, 1, 6, 6)), nn.Parameter(torch.randn(4, 1, 1))
        self.register_buffer("shift", torch.randn(4, 1, 1))
        self.call = call

    def forward(self, x):
        return self.last(self.call(self, self.first(x)).flatten(1))


def calls(call):
    model = Calls(call).double().eval()
    model(torch.rand(1, 2, 6, 6).double())
    return model


@pytest.fixture
def x():
    return torch.rand(3, 2, 6, 6, dtype=torch.float64)


def error(model, x):
    return explain(model, x, 1).completeness_error.max()


LINEAR = {
    "reshaping": lambda m, x: x.view(len(x), 2, -1).permute(0, 2, 1).reshape(x.shape[0], -1).contiguous(),
    "pooling": lambda m, x: F.adaptive_avg_pool2d(F.avg_pool2d(x, 2, 1), (3, 2)),
    "means": lambda m, x: x.mean((2, 3), keepdim=True) + x.sum(2, keepdim=True),
    "sum of parts": lambda m, x: sum(x.chunk(2, 1)),
    "rows of parts": lambda m, x: torch.cat([x, x[:, :2], torch.zeros_like(x)], 1),
    "in place": lambda m, x: x.clone().add_(x).mul_(0.5).neg_(),
    "interpolation": lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "padding": lambda m, x: F.pad(F.pad(x, (1, 1)), (1, 0, 0, 1), mode="reflect"),
    "numbers": lambda m, x: -x * 3 / 2 - 0 + x.mT.mT,
    "numbers of the shape": lambda m, x: x * x.shape[1] / x.size(2),
    "a factor": lambda m, x: x * m.scale / m.scale.square(),
    "dropout": lambda m, x: F.dropout(x, 0.5, m.training),
    "zeros": lambda m, x: x + x.new_zeros(4, 1, 1),
}
PIECEWISE = {
    "relu": lambda m, x: F.relu(x, inplace=True),
    "leaky relu": lambda m, x: F.leaky_relu(x, 0.1),
    "max pool": lambda m, x: F.max_pool2d(x, 2),
    "relu in place": lambda m, x: x.relu_(),
    "maximum with zeros": lambda m, x: torch.maximum(x, torch.zeros_like(x)),
    "clamp": lambda m, x: x.clamp(min=0),
    "maxima": lambda m, x: torch.maximum(x, 2 * x) + x.amax(1, keepdim=True) + x.max(2, keepdim=True)[0] + x.abs(),
}
CONSTANTS = {
    "added": (lambda m, x: x + m.offset, {"offset"}),
    "subtracted from": (lambda m, x: (m.offset * 2 - x).relu(), {"offset"}),
    "buffer": (lambda m, x: x + m.shift, {"shift"}),
    "buffer, scaled": (lambda m, x: x + 2 * m.shift / 3, {"shift"}),
    "beside": (lambda m, x: torch.cat([m.token.expand(x.shape[0], -1, -1, -1), x], dim=1), {"token"}),
    "beside, by position": (lambda m, x: torch.cat([m.token.expand(len(x), 2, -1, -1), x], 1), {"token"}),
    "joined first": (lambda m, x: x + (m.offset + m.shift), {"offset", "shift"}),
    "in a row first": (
        lambda m, x: torch.cat([torch.cat([m.token, m.token], 1).expand(x.size(0), -1, -1, -1), x], 1),
        {"token"},
    ),
    "scaled first": (lambda m, x: x + m.offset.expand_as(x) / 3, {"offset"}),
    "with a factor": (lambda m, x: (x * m.scale + m.offset).relu(), {"offset"}),
}
INEXACT = {
    "gelu": (lambda m, x: F.gelu(x), "gelu", "make it one, nn.GELU"),
    "silu": (lambda m, x: F.silu(x), "silu", "make it one, nn.SiLU"),
    "layer_norm": (lambda m, x: F.layer_norm(x, x.shape[1:]), "layer_norm", "make it one, nn.LayerNorm"),
    "softmax": (lambda m, x: x.softmax(1), "softmax", "make it one, nn.MultiheadAttention"),
    "attention": (
        lambda m, x: F.scaled_dot_product_attention(x, x, x),
        "scaled_dot_product_attention",
        "make it one, nn.MultiheadAttention",
    ),
    "sigmoid": (lambda m, x: torch.sigmoid(x), "sigmoid", "not known to be linear"),
    "tanh": (lambda m, x: x.tanh(), "tanh", "not known to be linear"),
    "power": (lambda m, x: x**2, "pow", "not known to be linear"),
    "exponential": (lambda m, x: x.exp(), "exp", "not known to be linear"),
    "product": (lambda m, x: x * x.mean(1, keepdim=True), "mul", "both of its tensors depend on the input"),
    "square": (lambda m, x: x * x, "mul", "both of its tensors depend on the input"),
    "quotient": (lambda m, x: x / x.abs().sum(1, keepdim=True), "truediv", "both of its tensors depend"),
    "inverse": (lambda m, x: m.scale / (x.abs() + x.abs()), "truediv", "not linear in the input"),
    "rounded quotient": (lambda m, x: x + x.div(0.1, rounding_mode="floor"), "div", "not linear in the input"),
    "matrix product": (lambda m, x: x @ x.transpose(2, 3), "matmul", "make it one, nn.Linear"),
    "number": (lambda m, x: x + 1, "add", "it adds a number that no explanation records"),
    "number by name": (lambda m, x: torch.add(x, other=1.0), "add", "it adds a number"),
    "tensor": (lambda m, x: x + torch.ones(4, 1, 1).double(), "add", "it adds a constant, not a parameter"),
    "curved constant": (lambda m, x: x + m.offset.exp(), "add", "it adds a constant, not a parameter"),
    "inverse of a parameter": (lambda m, x: x + 2 / m.offset, "add", "it adds a constant, not a parameter"),
    "product of parameters": (lambda m, x: x + m.offset * m.scale, "add", "it adds a constant, not a parameter"),
    "padding": (lambda m, x: F.pad(x, (1, 1), value=1.0), "pad", "pads with a constant"),
    "bounds": (lambda m, x: x.clamp(-0.1, 0.1), "clamp", "not known to be linear"),
    "relu6": (lambda m, x: F.relu6(100 * x), "relu6", "not known to be linear"),
    "detached": (lambda m, x: x + x.detach(), "detach", "hides what depends on the input"),
    "mask": (lambda m, x: torch.where(x > 0, x, 1.0), "gt", "not known to be linear"),
    "maximum with a parameter": (lambda m, x: torch.maximum(x, m.offset.abs()), "maximum", "not known to be linear"),
}
OWN_WEIGHTS = {
    "linear": (lambda m, x: F.linear(x.transpose(1, 3), m.weight), "linear", "make it one, nn.Linear"),
    "matmul": (lambda m, x: m.weight @ x.flatten(2), "matmul", "make it one, nn.Linear"),
    "conv2d": (lambda m, x: F.conv2d(x, m.weight[..., None, None]), "conv2d", "make it one, nn.Conv2d"),
}


@pytest.mark.parametrize("call", LINEAR.values(), ids=LINEAR)
def test_linear_calls_pass(call, x):
    model, report = bcosify(calls(call), b=1.5)
    assert error(model, x) <= 1e-11
    assert not any(e.kind.endswith("()") for e in report.entries)


@pytest.mark.parametrize("call", PIECEWISE.values(), ids=PIECEWISE)
def test_piecewise_linear_calls_pass_and_are_told(call, x):
    model, report = bcosify(calls(call))
    assert error(model, x) <= 1e-11
    told = [e for e in report.entries if e.kind.endswith("()")]
    assert told
    assert all(e.action == "kept" and e.path == "" and e.reason.startswith("piecewise linear") for e in told)


@pytest.mark.parametrize(("call", "names"), CONSTANTS.values(), ids=CONSTANTS)
def test_parameters_that_are_added_are_recorded(call, names, x):
    model, report = bcosify(calls(call))
    told = {e.path for e in report.entries if e.reason == "a constant, which explanations count in the remainder"}
    assert told == names
    found = explain(model, x, 1)
    assert found.completeness_error.max() <= 1e-11
    assert (found.remainder.abs() > 1e-6).all()


@pytest.mark.parametrize(("call", "name", "reason"), INEXACT.values(), ids=INEXACT)
def test_inexact_calls_are_refused(call, name, reason, x):
    plain = calls(call)
    with pytest.raises(ValueError, match=rf"^model: {name}\(\) cannot be converted: .*{reason}.*; strict=False leaves"):
        bcosify(plain)
    model, report = bcosify(plain, strict=False)
    assert f"{name}()" in {e.kind for e in report.of("refused")}
    assert error(model, x) > 1e-6


@pytest.mark.parametrize(("call", "name", "reason"), OWN_WEIGHTS.values(), ids=OWN_WEIGHTS)
def test_calls_with_own_weights_would_stay_plain(call, name, reason):
    with pytest.raises(ValueError, match=rf"^model: {name}\(\) cannot be converted: .*{reason}"):
        bcosify(calls(call))


def test_parameter_that_is_added_and_multiplied():
    with pytest.raises(ValueError, match=r"^both: Parameter cannot be converted: it is added and multiplied"):
        bcosify(calls(lambda m, x: x * m.both + m.both))
    model, _ = bcosify(calls(lambda m, x: x * m.both + m.both), strict=False)
    assert not parametrize.is_parametrized(model.network)


def test_other_modules_parameter():
    plain = calls(lambda m, x: x + m.first.bias.view(-1, 1, 1))
    with pytest.raises(ValueError, match=r"^first: Conv2d cannot be converted: a forward outside of it reads its"):
        bcosify(plain)


# ---- forwards that cannot be followed ----


class Asks(nn.Module):
    """Decides by values, which no symbol has."""

    def __init__(self, *inner):
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(2, 4, 3), nn.Sequential(*inner), nn.Linear(64, 3)
        self.position = nn.Parameter(torch.randn(4, 4, 4))

    def forward(self, x):
        y = self.inner(self.first(x))
        return self.last((y if y.sum() > 1e9 else y + self.position).flatten(1))


class Gated(nn.Module):
    def forward(self, x, scale=None):
        return F.gelu(x)


def test_what_cannot_be_followed_is_told(x):
    model, report = bcosify(Asks(nn.ReLU()).double().eval(), b=1, biases="keep")
    (entry,) = (e for e in report.entries if e.kind == "Asks")
    assert (entry.path, entry.action) == ("", "kept")
    assert entry.reason.startswith("its forward could not be followed (symbolically traced variables cannot be used")
    assert entry.reason.endswith("bcos-vision check says whether it adds up")
    (position,) = (e for e in report.entries if e.path == "position")
    assert position.reason == "what the forward does with it is not known"
    assert type(model.network.first).__name__ == "EncodedConv2d"
    assert error(model, x) > 1e-3  # the constant that nobody could see


def test_parts_of_what_cannot_be_followed_are():
    with pytest.raises(ValueError, match=r"^inner\.0: gelu\(\) cannot be converted"):
        bcosify(Asks(Gated()))


def test_plain_model_keeps_no_trace_of_being_followed(x):
    plain = calls(lambda m, y: y * torch.arange(4.0).view(4, 1, 1)).train()
    before = set(plain.__dict__), plain.state_dict().keys()
    random = torch.get_rng_state()
    model, _ = bcosify(plain)
    assert torch.equal(torch.get_rng_state(), random)
    assert (set(plain.__dict__), plain.state_dict().keys()) == before
    assert not [name for name in model.network.__dict__ if "constant" in name]
    assert all(m.training for m in (*plain.modules(), *model.modules()))


class Optional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3)

    def forward(self, x, features=False, *, mask=None):
        y = self.first(x)
        if mask is not None:
            y = y.sigmoid() * mask
        return y if features else y.mean((2, 3))


def test_optional_arguments_are_at_their_defaults():
    _, report = bcosify(Optional())
    assert [e.path for e in report.entries] == ["first"]


# ---- forwards that look at their modules ----


class AsksForClass(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        y = self.first(x).mean((2, 3))
        return self.last(y) if isinstance(self.last, nn.Linear) else y


class ListsModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3), nn.Linear(64, 3)
        self.steps = [self.first, nn.Flatten(), self.last]

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return x


def test_forward_that_asks_for_classes():
    with pytest.raises(ValueError, match=r"^model: AsksForClass cannot be converted: its forward takes another course"):
        bcosify(AsksForClass())


def test_modules_in_a_plain_list():
    with pytest.raises(ValueError, match=r"^model: ListsModules cannot be converted: its steps holds modules out of"):
        bcosify(ListsModules())
