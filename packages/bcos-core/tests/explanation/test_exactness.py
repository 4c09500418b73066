"""check_exactness: errors against Jacobians and constants written out, blame on the module that earns it alone."""

import re
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from bcos_core import explain
from bcos_core import nn as bnn
from bcos_core.explanation import check_exactness
from torch import nn

LIMITS = {torch.float32: 1e-5, torch.float64: 1e-12}


def blamed(model, x, **options):
    return {found.path for found in check_exactness(model, x, **options) if found.breaks}


def by_path(model, x, **options):
    return {found.path: found for found in check_exactness(model, x, **options)}


def rest_and_answer(function, z, constant=0.0):
    """J z + c - y and y of a function of one tensor: its whole Jacobian, row by row."""
    y = function(z)
    jacobian = torch.autograd.functional.jacobian(function, z).reshape(y.numel(), z.numel())
    c = torch.as_tensor(constant, dtype=z.dtype).expand_as(y)
    return ((jacobian @ z.flatten()).view_as(y) + c - y).detach(), y.detach()


class Block(nn.Module):
    """Two convolutions with a function between them, around a shortcut."""

    def __init__(self, between, channels=2):
        super().__init__()
        self.first, self.second = bnn.BcosConv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)
        self.between = between

    def forward(self, x):
        return x + self.second(self.between(self.first(x)))


def deep(block):
    return nn.Sequential(nn.Sequential(Block(F.relu), block), nn.Conv2d(2, 3, 6), nn.Flatten())


def images(dtype=torch.float64):
    return torch.rand(2, 2, 6, 6, dtype=dtype)


# ---- exact networks ----


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_no_module_of_an_exact_network_is_at_fault(network, dtype, prepare):
    model, x = prepare(network, dtype)
    found = check_exactness(model, x)
    of_parameters = [f for f in found if "parametrizations" in f.path]  # no input leads to a class token
    assert all(f.state == "constant" for f in of_parameters)
    found = [f for f in found if f not in of_parameters]
    assert {f.state for f in found} == {"exact"}
    assert max(f.error for f in found) <= LIMITS[dtype]
    assert not any(f.reason for f in found)


def test_one_entry_for_each_module_that_is_called_in_the_order_of_the_model(small):
    model, x = small
    model.network.idle = nn.GELU()  # after the others, and called by the container
    model.idle = nn.GELU()
    found = check_exactness(model, x)
    names = {m: path for path, m in model.named_modules()}
    called = [path for m, path in names.items() if path not in ("", "idle") and not path.startswith("encoding")]
    assert [f.path for f in found] == called
    assert [f.kind for f in found] == [type(model.get_submodule(f.path)).__name__ for f in found]
    assert blamed(model, x) == {"network.idle"}


def test_a_network_that_is_no_submodule():
    class Encoded:  # not a property of a module's tree
        def __init__(self, network):
            self.network = network

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = Encoded(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)))

        @property
        def network(self):
            return self.hidden.network

        def encode(self, x):
            return 2 * x

        def forward(self, x):
            return self.network(self.encode(x))

    assert blamed(Model(), torch.randn(3, 4)) == {"network.1"}


# ---- errors against the whole Jacobian ----

LEAVES = {
    "Sigmoid": lambda: nn.Sigmoid(),
    "GELU": lambda: nn.GELU(),
    "Softmax": lambda: nn.Softmax(1),
    "Tanh": lambda: nn.Tanh(),
    "LayerNorm": lambda: nn.LayerNorm(2),
    "GroupNorm": lambda: nn.GroupNorm(1, 2),
    "InstanceNorm with statistics": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 1)), nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.Flatten()
    ),
    "norm without statistics": lambda: nn.BatchNorm1d(2, track_running_stats=False),
    "ConstantPad": lambda: nn.ConstantPad1d((0, 1), 3.0),
}


def positive(module):
    """Away from easy values."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(0.5, 1.5)
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return module.double().eval()


@pytest.mark.parametrize("name", LEAVES)
def test_error_of_a_module_is_that_of_its_jacobian(name):
    """Over all signs u the largest |⟨u, r⟩| is the sum of |r|: with two or three elements every u is soon drawn."""
    leaf = positive(LEAVES[name]())
    z = torch.randn(1, 2, dtype=torch.float64) + 0.3
    if name == "norm without statistics":
        z = torch.randn(2, 2, dtype=torch.float64)
    bias = getattr(leaf, "bias", None)
    bias = 0.0 if bias is None else bias.detach()
    rest, y = rest_and_answer(leaf, z, bias)
    expected = (rest.abs().sum() / y.norm()).item()
    assert expected > 0.01
    errors = [max(f.error for f in check_exactness(leaf, z, seed=seed)) for seed in range(20)]
    assert max(errors) == pytest.approx(expected, rel=1e-10)
    assert all(error <= expected * (1 + 1e-10) for error in errors)
    (found,) = [f for f in check_exactness(leaf, z) if f.breaks]
    assert found.reason


def test_error_is_about_the_norm_of_the_rest_over_that_of_the_answer():
    leaf, x = nn.Sequential(nn.Tanh(), nn.Linear(4000, 1)).double(), torch.randn(2, 4000, dtype=torch.float64)
    rest, _ = rest_and_answer(torch.tanh, x[:1, :50])
    per_element = lambda z: z * (1 - z.tanh() ** 2) - z.tanh()  # noqa: E731
    torch.testing.assert_close(rest, per_element(x[:1, :50]))  # the same by hand, for more elements
    ratio = (per_element(x).norm() / x.tanh().norm()).item()
    errors = torch.tensor([by_path(leaf, x, seed=seed)["0"].error / ratio for seed in range(50)])
    # the largest of three |normal| numbers: mean 1.326, all but certainly between 0.05 and 5
    assert 1.1 < errors.mean() < 1.6
    assert 0.05 < errors.min() < errors.max() < 5


def test_the_error_of_a_module_is_what_the_explanation_lacks():
    model = nn.Sequential(nn.Linear(5, 1), nn.Softplus()).double()
    x = torch.randn(1, 5, dtype=torch.float64)
    whole = explain(model, x)
    logit = whole.logits[0, 0].abs().item()
    lacking = whole.completeness_error.item() * max(1, logit)
    assert by_path(model, x)["1"].error * logit == pytest.approx(lacking, rel=1e-10)
    assert lacking > 1e-3


# ---- who is at fault ----


@pytest.mark.parametrize(
    "between",
    [F.gelu, torch.sigmoid, lambda x: x + 1, lambda x: x * x, lambda x: F.layer_norm(x, x.shape[1:])],
    ids=["GELU", "sigmoid", "constant", "product", "layer norm"],
)
def test_a_function_is_the_fault_of_the_module_that_calls_it(between):
    model, x = deep(Block(between)).double(), images()
    found = by_path(model, x)
    assert {path for path, f in found.items() if f.breaks} == {"0.1"}
    assert found["0.1"].reason.startswith("its own forward: ")
    assert (explain(model, x).completeness_error > 1e-6).any()
    with torch.no_grad():
        inner = model[0][1].first(model[0][0](x))
    rest, y = rest_and_answer(between, inner)
    assert 0.05 * rest.norm() / y.norm() < found["0.1"].error < 5 * rest.norm() / y.norm()


def test_a_module_and_the_one_that_calls_it_are_at_fault_each_for_its_own():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.last = nn.GELU(), nn.Linear(4, 1)

        def forward(self, x):
            return torch.tanh(self.last(self.act(x)))

    model, x = Both().double(), torch.randn(1, 4, dtype=torch.float64)
    found = by_path(model, x)
    assert {path for path, f in found.items() if f.breaks} == {"", "act"}
    rest, y = rest_and_answer(torch.tanh, model.last(F.gelu(x)).detach())
    assert found[""].error == pytest.approx((rest.abs() / y.abs()).item(), rel=1e-10)
    assert found["act"].reason == "not detached: bcos_core.bcosify replaces it"


def test_a_module_beside_a_shortcut_a_million_times_larger_is_seen():
    class Scaled(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, x):
            return x + 1e-6 * self.body(x)

    model = nn.Sequential(Scaled(nn.GELU()), nn.Linear(4, 3))
    assert explain(model, torch.rand(2, 4)).completeness_error.max() < 1e-5
    assert blamed(model, torch.rand(2, 4)) == {"0.body"}


def test_parameters_that_are_added_are_the_fault_of_who_adds_them():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.start = nn.Parameter(torch.randn(1, 1, 8))
            self.position = nn.Parameter(torch.randn(5, 8))

        def forward(self, x):
            return torch.cat([self.start.expand(len(x), -1, -1), x], 1) + self.position

    model = nn.Sequential(nn.Linear(8, 8), Positions(), bnn.BcosLinear(8, 3), nn.Flatten()).double()
    x = torch.rand(2, 4, 8, dtype=torch.float64)
    assert blamed(model, x) == {"1"}
    # J z + c - y is what was added: the start in the first place, the position in all
    added = model[1].position.detach().repeat(2, 1, 1)
    added[:, 0] += model[1].start.detach()[0, 0]
    with torch.no_grad():
        y = model[:2](x)
    assert 0.05 < by_path(model, x)["1"].error / (added.norm() / y.norm()).item() < 5


@pytest.mark.parametrize("bias", [True, False])
def test_a_constant_that_is_led_through_modules_is_the_fault_of_who_makes_it(bias):
    class Side(nn.Module):
        def __init__(self, fill):
            super().__init__()
            self.main, self.side, self.fill = nn.Linear(6, 3), nn.Linear(2, 3, bias=bias), fill

        def forward(self, x):
            return self.main(x) + self.side(x.new_full((1, 2), self.fill))

    x = torch.rand(3, 6)
    assert blamed(Side(0.0), x) == set()  # its bias alone, which is recorded
    assert blamed(Side(1.0), x) == {""}
    assert by_path(Side(1.0), x)["side"].state == "constant"


def test_of_a_module_that_is_called_twice_the_worse_call_counts():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.last = nn.Tanh(), nn.Linear(2, 1)

        def forward(self, x):
            return self.last(torch.cat([self.act(3 * x), self.act(x)], 1))

    model, x = Twice().double(), torch.tensor([[0.7]], dtype=torch.float64)
    expected = []
    for scale in (3, 1):
        rest, y = rest_and_answer(torch.tanh, scale * x)
        expected.append((rest.abs() / y.abs()).item())
    assert expected[0] > 2 * expected[1]
    found = by_path(model, x)
    assert found["act"].error == pytest.approx(expected[0], rel=1e-10)
    assert {path for path, f in found.items() if f.breaks} == {"act"}


def test_a_module_in_two_places_is_named_by_its_first():
    shared = nn.GELU()
    model = nn.Sequential(nn.Linear(4, 4), shared, nn.Linear(4, 4), shared, nn.Linear(4, 2))
    assert blamed(model, torch.randn(2, 4)) == {"1"}


def test_what_is_found_holds_for_the_inputs_given():
    model, x = nn.Sequential(nn.ReLU6(), nn.Linear(4, 2)), torch.rand(2, 4)
    assert blamed(model, x) == set()
    assert blamed(model, 7 * x + 3) == {"0"}


def test_kinds_and_reasons():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            answer, _weights = self.heads(x, x, value=x)
            return answer

    model = nn.Sequential(
        *(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8), Attention(), nn.Sigmoid(), nn.Tanh()),
        *(nn.Flatten(), nn.BatchNorm1d(32, track_running_stats=False), nn.Linear(32, 3)),
    )
    found = by_path(model, torch.randn(3, 4, 8))
    faults = {path: (f.kind, f.reason.split(":")[0]) for path, f in found.items() if f.breaks}
    assert faults == {
        "1": ("GELU", "not detached"),
        "2": ("LayerNorm", "not detached"),
        "3.heads": ("MultiheadAttention", "not detached"),
        "4": ("Sigmoid", "not linear, and nothing that explanations follow stands for it"),
        "5": ("Tanh", "not linear, and nothing that explanations follow stands for it"),
        "7": ("BatchNorm1d", "keeps no statistics"),
    }
    assert all(bool(f.reason) == (f.state != "exact") for f in found.values())


def test_transformer_of_pytorch():
    """Its fast path, which sees no hooks, is not taken."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(32, 3))
    expected = {f"0.layers.{i}.{name}" for i in (0, 1) for name in ("self_attn", "norm1", "norm2")}
    assert blamed(model.eval(), torch.randn(2, 4, 8)) == expected


# ---- what explanations take for a constant ----


class Gated(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.gate, self.last, self.way = nn.Sigmoid(), nn.Linear(4, 3), way

    def forward(self, x):
        if self.way == "input detached":
            gate = self.gate(x.detach())
        elif self.way == "answer detached":
            gate = self.gate(x).detach()
        elif self.way == "no_grad":
            with torch.no_grad():
                gate = self.gate(x)
        else:
            gate = self.gate(x)
        return self.last(x * gate)


@pytest.mark.parametrize("way", ["input detached", "answer detached", "no_grad"])
def test_a_gate_that_is_a_constant_is_not_at_fault(way):
    model, x = Gated(way).double(), torch.randn(3, 4, dtype=torch.float64)
    assert explain(model, x).completeness_error.max() < 1e-12
    found = by_path(model, x)
    assert {path: f.state for path, f in found.items()} == {"": "exact", "gate": "constant", "last": "exact"}
    assert "a constant" in found["gate"].reason


def test_a_gate_that_is_none_is_at_fault_and_so_is_the_product():
    assert blamed(Gated("open"), torch.randn(3, 4)) == {"", "gate"}


def test_a_parameter_that_is_handed_on_is_a_constant():
    class Product(nn.Module):
        def forward(self, x, gain):
            return x * gain

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain, self.product, self.last = nn.Parameter(torch.rand(4)), Product(), nn.Linear(4, 3)

        def forward(self, x):
            return self.last(self.product(x, 2 * self.gain))

    model, x = Model(), torch.rand(2, 4)
    assert explain(model, x).completeness_error.max() < 1e-6
    assert blamed(model, x) == set()


def test_a_branch_whose_answer_is_dropped_is_not_at_fault():
    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle, self.deep = nn.Linear(4, 3), nn.GELU(), nn.Sequential(nn.Linear(4, 4), nn.Tanh())

        def forward(self, x):
            self.deep(self.idle(x))
            return self.used(x), self.idle

    found = by_path(Dropped(), torch.randn(3, 4))
    states = {path: f.state for path, f in found.items()}
    assert states == {
        **{"": "exact", "used": "exact", "idle": "constant"},
        **{"deep": "constant", "deep.0": "constant", "deep.1": "constant"},
    }


# ---- sizes of numbers ----


@pytest.mark.parametrize("scale", [1e-28, 1e-3, 1e30])  # the squares of the first and last are no float32
def test_the_error_does_not_depend_on_the_scale_of_the_answer(scale):
    class Scaled(nn.Module):
        def forward(self, x):
            return scale * x.square()

    model, x = nn.Sequential(Scaled(), nn.Linear(3, 1)), torch.tensor([[0.5, 0.0, 0.0]])
    assert by_path(model, x)["0"].error == pytest.approx(1, rel=1e-6)  # J z = 2 y
    assert by_path(model.double(), x.double())["0"].error == pytest.approx(1, rel=1e-12)


def test_zeros_are_silent():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.GELU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight.fill_(-1)
    found = by_path(model, torch.rand(2, 4))
    assert {path: f.state for path, f in found.items()} == {
        **{"": "exact", "0": "exact", "1": "silent", "2": "silent", "3": "exact"},
    }
    assert found["2"].error == 0
    assert "zeros" in found["2"].reason


def test_numbers_that_underflow_are_no_fault():
    """Responses below 1e-38, of which float32 keeps two digits at most."""
    model, x = nn.Sequential(bnn.BcosLinear(64, 64), nn.Linear(64, 3)), torch.rand(2, 64) * 1e-23
    with torch.no_grad():
        response = model[0](x)
    assert 0 < response.abs().max() < 1e-42
    assert blamed(model, x) == set()


def test_rounding_of_large_terms_that_cancel_is_no_fault():
    """y = (x - mean) / std, with a mean of ten million standard deviations: float64 keeps nine digits of it."""
    model = nn.Sequential(nn.BatchNorm1d(50), nn.Linear(50, 3)).double().eval()
    model[0].running_mean.fill_(1e7 / 3)
    model[0].running_var.fill_(0.37)
    found = by_path(model, 1e7 / 3 + torch.randn(4, 50, dtype=torch.float64))["0"]
    assert found.error > 1e-10
    assert not found.breaks

    class Off(nn.Module):
        def forward(self, x):
            y = x[:, :1] - x[:, 1:]
            return y + 1e-5 * y.square()  # no rounding, though terms are as large

    x = 1e6 + torch.rand(4, 2, dtype=torch.float64)
    assert blamed(nn.Sequential(Off(), nn.Linear(1, 3)).double(), x) == {"0"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_at_fault(value):
    class Break(nn.Module):
        def forward(self, x):
            return x * value

    found = by_path(nn.Sequential(nn.Linear(4, 4), Break(), nn.Flatten()), torch.rand(2, 4))
    assert not found["0"].breaks
    assert found["1"].breaks
    assert found["1"].error == float("inf")


def test_an_infinite_slope_is_at_fault():
    class Root(nn.Module):
        def forward(self, x):
            return (x - 1).sqrt()

    assert blamed(nn.Sequential(Root(), nn.Linear(2, 2)), torch.tensor([[1.0, 2.0]])) == {"0"}


def test_threshold():
    class Slightly(nn.Module):
        def forward(self, x):
            return x + 1e-6 * x.square()

    model, x = nn.Sequential(Slightly(), nn.Linear(1, 1)), torch.ones(1, 1)
    for dtype, limit in ((torch.float32, 1e-4), (torch.float64, 1e-10)):
        model, x = model.to(dtype), x.to(dtype)
        assert blamed(model, x) == (set() if limit > 1e-6 else {"0"})
        assert blamed(model, x, threshold=1.1e-6) == set()
    assert blamed(model, x, threshold=0.9e-6) == {"0"}


# ---- how tensors go from module to module ----

Pair = namedtuple("Pair", "left right")


@dataclass(frozen=True)
class Kept:
    left: torch.Tensor
    right: torch.Tensor


class Box:
    def __init__(self, content):
        self.content = content


WAYS = {
    "tuple": (lambda a, b: (a, b), lambda v: v),
    "list": (lambda a, b: [a, b], lambda v: v),
    "nested": (lambda a, b: {"a": (a, 3), "b": [b, None]}, lambda v: (v["a"][0], v["b"][0])),
    "named tuple": (Pair, lambda v: (v.left, v.right)),
    "ordered dictionary": (lambda a, b: OrderedDict(a=a, b=b), lambda v: v.values()),
    "dataclass": (Kept, lambda v: (v.left, v.right)),
    "complex": (torch.complex, lambda v: (v.real, v.imag)),
    "object": (lambda a, b: Box((a, b)), lambda v: v.content),
}


@pytest.mark.parametrize("by_keyword", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_tensors_are_found_in_what_modules_pass(way, by_keyword):
    pack, unpack = WAYS[way]

    class Split(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.left, self.right, self.function = nn.Linear(4, 4), nn.Linear(4, 4), function

        def forward(self, x):
            return pack(self.function(self.left(x)), self.right(x))

    class Join(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 3)

        def forward(self, value):
            assert type(value) is type(pack(torch.zeros(1), torch.zeros(1)))
            left, right = unpack(value)
            return self.last(left - 2 * right)

    class Model(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.split, self.join = Split(function), Join()

        def forward(self, x):
            return self.join(value=self.split(x)) if by_keyword else self.join(self.split(x))

    x = torch.randn(2, 4, dtype=torch.float64)
    assert blamed(Model(torch.relu).double(), x) == set()
    # what no one can look into is checked where it ends: in the forward that hands it on
    assert blamed(Model(torch.tanh).double(), x) == {"" if way == "object" else "split"}


def test_spectrum():
    """Complex numbers from one module to the next."""

    class There(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x)

    class Back(nn.Module):
        def forward(self, z):
            return torch.fft.irfft(z * torch.tensor([1.0, 0.5j, 2.0]), n=4)

    assert blamed(nn.Sequential(nn.Linear(4, 4), There(), Back(), nn.Linear(4, 2)), torch.randn(3, 4)) == set()


def test_one_tensor_stays_one():
    """A module may ask whether its arguments are the same, as PyTorch's attention does."""

    class Same(nn.Module):
        def forward(self, a, b, *, c):
            assert a is b is c
            return a + b + c

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.same = nn.Linear(4, 3), Same()

        def forward(self, x):
            y = self.first(x)
            return self.same(y, y, c=y)

    assert blamed(Model(), torch.rand(2, 4)) == set()


def test_modules_that_work_in_place():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)

        def forward(self, x):
            x.relu_()
            y = self.first(x)
            z = self.second(y)
            y += z
            z.mul_(2)
            return self.act(y).add_(z)

    assert blamed(nn.Sequential(InPlace(), InPlace(), nn.LeakyReLU(0.1, inplace=True)), torch.randn(2, 4)) == set()


def test_parametrised_weights():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    found = by_path(model, torch.randn(2, 4))
    assert not any(f.breaks for f in found.values())
    assert found["0"].state == "exact"
    assert found["0"].error > 0


# ---- nothing is touched ----


def test_nothing_is_touched(network, prepare):
    model, x = prepare(network)
    modules = list(model.modules())
    model.train()
    modules[-1].eval()
    given = x.clone().requires_grad_()
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 7.0) if i % 2 else None
        parameter.requires_grad_(i % 3 > 0)
    record = lambda: (  # noqa: E731
        [m.training for m in modules],
        [getattr(m, "detach", None) for m in modules],
        [len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks) for m in modules],
        [p.requires_grad for p in model.parameters()],
        torch.get_rng_state().tolist(),
    )
    before, state = record(), {name: value.clone() for name, value in model.state_dict().items()}
    check_exactness(model, given)
    assert record() == before
    assert torch.equal(given, x)
    assert given.grad is None
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    for i, parameter in enumerate(model.parameters()):
        assert parameter.grad is None if i % 2 == 0 else (parameter.grad == 7).all()


def test_restores_after_a_failure_inside(small):
    model, x = small
    model.train()

    class Broken(nn.Module):
        def forward(self, x):
            torch.rand(1)
            raise RuntimeError("inside")

    model.network.append(Broken())
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"):
        check_exactness(model, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.requires_grad for p in model.parameters())
    for module in model.modules():
        assert module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not getattr(module, "detach", False)


def test_random_numbers_of_a_forward_are_given_back():
    class Noisy(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5)  # which drops in evaluation too: a mask, and linear

    model, x = nn.Sequential(Noisy(), nn.Linear(8, 2)), torch.rand(4, 8)
    state = torch.get_rng_state()
    assert blamed(model, x) == set()
    assert torch.equal(torch.get_rng_state(), state)


def test_same_without_grad_in_inference_mode_and_again(small):
    model, x = small
    model.network.append(nn.Tanh())
    expected = check_exactness(model, x)
    assert check_exactness(model, x) == expected
    assert check_exactness(model, x, seed=1) != expected
    with torch.no_grad():
        assert check_exactness(model, x) == expected
    with torch.inference_mode():
        assert check_exactness(model, x + 0) == expected


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own look
@pytest.mark.parametrize("way", ["torch.compile", "a part"])
def test_compiled(small, way):
    torch._dynamo.reset()
    model, x = small
    model.network.append(nn.Tanh())
    if way == "a part":
        model.network[0] = torch.compile(model.network[0], backend="eager")
    compiled = model if way == "a part" else torch.compile(model, backend="eager")
    compiled(x.clone().requires_grad_())
    assert blamed(compiled, x) == {f"network.{len(model.network) - 1}"}


# ---- mistakes ----


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.ones(3, 4, dtype=torch.int64), {}, "x: expected a float32 or float64 batch of shape (N, ...), got"),
        (torch.rand(3, 4).bfloat16(), {}, "got torch.bfloat16 of shape (3, 4)"),
        (torch.rand(4), {}, "got torch.float32 of shape (4,)"),
        ([[1.0]], {}, "got list"),
        (torch.rand(3, 4), {"threshold": 0.0}, "threshold: expected a positive number, got 0.0"),
        (torch.rand(3, 4), {"threshold": float("nan")}, "threshold: expected a positive number, got nan"),
    ],
)
def test_input_errors(x, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_exactness(bnn.BcosLinear(4, 2), x, **options)


@pytest.mark.parametrize("answer", [lambda x: x.detach(), lambda x: None], ids=["detached", "None"])
def test_output_that_does_not_depend_on_the_input(answer):
    class Constant(nn.Module):
        def forward(self, x):
            return answer(x)

    with pytest.raises(ValueError, match="model: its output does not depend on x"):
        check_exactness(Constant(), torch.rand(3, 4))
