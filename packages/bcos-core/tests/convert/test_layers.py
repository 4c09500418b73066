"""Each kind of layer: what it becomes answers the same at B = 1, explains exactly, and drops what it should."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from bcos_core import bcosify, explain
from bcos_core import nn as bnn
from torch import nn
from torch.nn.utils import parametrizations


class ByChannel(nn.Module):
    """A layer of tokens, applied to pixels."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        y = self.layer(x.flatten(2).transpose(1, 2))
        return y.transpose(1, 2).unflatten(2, x.shape[2:])


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, **options)
        self.batch_first = options.get("batch_first", False)

    def forward(self, x):
        x = x if self.batch_first else x.transpose(0, 1)
        y, _ = self.attention(x, x, x)
        return y if self.batch_first else y.transpose(0, 1)


def first_of_channels(layer_norm):
    misc = pytest.importorskip("torchvision.models.convnext")
    return misc.LayerNorm2d(6, eps=0.1) if layer_norm else pytest.importorskip("torchvision.ops").Permute([0, 1, 3, 2])


def without_affine():
    return nn.BatchNorm2d(6, affine=False)


REPLACED = {
    "convolution": (lambda: nn.Conv2d(6, 6, (3, 2), (2, 1), 1, 2, groups=3), "BcosConv2d"),
    "convolution, same": (lambda: nn.Conv2d(6, 6, 3, padding="same", padding_mode="circular"), "BcosConv2d"),
    "convolution without bias": (lambda: nn.Conv2d(6, 6, 3, bias=False), "BcosConv2d"),
    "linear": (lambda: ByChannel(nn.Linear(6, 5)), "BcosLinear"),
    "batch norm": (lambda: nn.BatchNorm2d(6, eps=0.1, momentum=0.3), "BatchNormUncentered2d"),
    "batch norm without affine": (without_affine, "BatchNormUncentered2d"),
    "batch norm with a cumulative average": (lambda: nn.BatchNorm2d(6, momentum=None), "BatchNormUncentered2d"),
    "own batch norm": (lambda: bnn.BatchNorm2d(6), "BatchNormUncentered2d"),
    "own batch norm, bias": (lambda: bnn.BatchNorm2d(6, bias=True), "BatchNormUncentered2d"),
    "group norm": (lambda: nn.GroupNorm(2, 6, eps=0.1), "GroupNorm2d"),
    "group norm without affine": (lambda: nn.GroupNorm(2, 6, affine=False), "GroupNorm2d"),
    "instance norm": (lambda: nn.InstanceNorm2d(6, affine=True), "InstanceNorm2d"),
    "instance norm without affine": (lambda: nn.InstanceNorm2d(6), "InstanceNorm2d"),
    "layer norm": (lambda: ByChannel(nn.LayerNorm(6, eps=0.1)), "LayerNorm"),
    "layer norm without bias": (lambda: ByChannel(nn.LayerNorm(6, bias=False)), "LayerNorm"),
    "layer norm without affine": (lambda: ByChannel(nn.LayerNorm(6, elementwise_affine=False)), "LayerNorm"),
    "layer norm of channels first": (lambda: first_of_channels(True), "PositionNorm2d"),
    "GELU": (lambda: nn.GELU(), "GELU"),
    "GELU, tanh": (lambda: nn.GELU("tanh"), "GELU"),
    "SiLU": (lambda: nn.SiLU(inplace=True), "SiLU"),
    "Hardswish": (lambda: nn.Hardswish(), "Hardswish"),
    "attention": (lambda: ByChannel(Attention(batch_first=True)), "MultiheadAttention"),
    "attention, tokens first": (lambda: ByChannel(Attention(bias=False)), "MultiheadAttention"),
}
KEPT = {
    "ReLU": lambda: nn.ReLU(inplace=True),
    "LeakyReLU": lambda: nn.LeakyReLU(0.1, inplace=True),
    "PReLU": lambda: nn.PReLU(6),
    "own attention": lambda: ByChannel(bnn.SelfAttention(6, 2, nn.Linear(6, 6), bias=True)),
    "own norm": lambda: bnn.PositionNorm2d(6, bias=True),
    "own token norm": lambda: ByChannel(bnn.LayerNorm(6, bias=True)),
    "own GELU": lambda: bnn.GELU(),
    "transposed convolution": lambda: nn.ConvTranspose2d(6, 4, 2, stride=2),
    "1d convolution": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(6, 4, 3), nn.Unflatten(2, (1, -1))),
    "average pool": lambda: nn.AvgPool2d(2, ceil_mode=True),
    "upsampling": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "padding": lambda: nn.ReflectionPad2d(1),
    "dropout": lambda: nn.Dropout2d(),
    "permutation": lambda: first_of_channels(False),
    "max pool, 1d": lambda: nn.Sequential(nn.Flatten(2), nn.MaxPool1d(3), nn.Unflatten(2, (1, -1))),
}
KINDS = {**{name: build for name, (build, _) in REPLACED.items()}, **KEPT}


def network(layer):
    """The layer between two others, nothing in it at an easy initial value; and images."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), layer, nn.Flatten(), nn.LazyLinear(4)).double().eval()
    x = torch.rand(3, 3, 6, 5, dtype=torch.float64)
    model(x)
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 1.5)
            for name, parameter in module.named_parameters(recurse=False):
                if "bias" in name or parameter.dim() == 1:
                    parameter.normal_()
    return model, x


def without_biases(model):
    """The plain network without what is dropped: biases, and the means of batch norms."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if "bias" in name or "running_mean" in name:
                value.zero_()
    return model


@pytest.mark.parametrize("build", KINDS.values(), ids=KINDS)
class TestKinds:
    def test_same_at_b_1(self, build, assert_close):
        plain, x = network(build())
        model, _ = bcosify(plain, b=1, biases="keep", pooling="keep")
        assert_close(model(x), plain(x), tolerance=1e-11)

    def test_dropped_biases(self, build, assert_close):
        plain, x = network(build())
        model, _ = bcosify(plain, b=1, pooling="keep")
        assert_close(model(x), without_biases(plain)(x), tolerance=1e-11)
        assert not any("bias" in name for name, _ in model.named_parameters())

    @pytest.mark.parametrize("biases", ["drop", "keep"])
    def test_complete(self, build, biases):
        plain, x = network(build())
        model, _ = bcosify(plain, b=2.5, biases=biases)
        found = explain(model, x, 1)
        assert (found.completeness_error <= 1e-12).all()
        assert found.remainder.any() == (biases == "keep")

    def test_gradients_reach_all(self, build):
        plain, x = network(build())
        model, _ = bcosify(plain.train(), biases="keep")
        model(x).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("build", "into"), REPLACED.values(), ids=REPLACED)
def test_replaced(build, into):
    _, report = bcosify(network(build())[0])
    middle = [e for e in report.entries if e.path.startswith("1")]
    assert into in {e.into for e in middle if e.action == "replaced"}


@pytest.mark.parametrize("build", KEPT.values(), ids=KEPT)
def test_kept(build):
    plain = network(build())[0]
    model, report = bcosify(plain)
    assert {e.action for e in report.entries if e.path.startswith("1") and not e.path.endswith("to_out")} == {"kept"}
    assert type(model.network[1]) is type(plain[1])
    assert not any(getattr(m, "inplace", False) for m in model.modules())


def test_formula(oracle_conv2d, oracle_linear, assert_close):
    """B-cos units times the norms of their filters, layer by layer."""
    plain, x = network(nn.ReLU(inplace=True))
    for unit_weights in (False, True):
        for bias in ("drop", "keep"):
            model, _ = bcosify(plain, b=1.5, biases=bias, unit_weights=unit_weights)
            kept = bias == "keep"
            weights = torch.cat([plain[0].weight, torch.zeros_like(plain[0].weight)], 1), plain[3].weight
            norms = [1 if unit_weights else w.flatten(1).norm(dim=1) for w in weights]
            y = oracle_conv2d(torch.cat([x, 1 - x], 1), weights[0], b=1.5, padding=1)
            y = (y * (1 if unit_weights else norms[0].view(-1, 1, 1)) + kept * plain[0].bias.view(-1, 1, 1)).relu()
            expected = oracle_linear(y.flatten(1), weights[1], b=1.5) * norms[1] + kept * plain[3].bias
            assert_close(model(x), expected, tolerance=1e-11)


def test_unit_weights_are_told():
    _, report = bcosify(network(nn.ReLU())[0], unit_weights=True)
    replaced = report.of("replaced")
    assert len(replaced) == 2
    assert all(e.reason.endswith("norms of its filters lost") for e in replaced)


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 2, "ceil_mode": True}, {"kernel_size": 2}],
)
def test_max_pool_averages(options, assert_close):
    plain, x = network(nn.MaxPool2d(**options))
    model, report = bcosify(plain, b=1, biases="keep")
    (y, (stride, padding)) = plain[0](x), (options.get(k, d) for k, d in (("stride", 2), ("padding", 0)))
    y = F.avg_pool2d(y, options["kernel_size"], stride, padding, options.get("ceil_mode", False))
    assert_close(model(x), plain[3](y.flatten(1)))
    assert report.entries[1].into == "AvgPool2d"
    model, report = bcosify(plain, b=1, biases="keep", pooling="keep")
    assert_close(model(x), plain(x))
    assert report.entries[1].reason == "piecewise linear"


def test_adaptive_max_pool_averages(assert_close):
    plain, x = network(nn.AdaptiveMaxPool2d(2))
    y = F.adaptive_avg_pool2d(plain[0](x), 2)
    assert_close(bcosify(plain, b=1, biases="keep")[0](x), plain[3](y.flatten(1)))
    assert_close(bcosify(plain, b=1, biases="keep", pooling="keep")[0](x), plain(x))


def test_batch_norm_in_training(assert_close):
    """Its statistics are the batch's; the running ones move as an uncentred norm's do."""
    plain, x = network(nn.BatchNorm2d(6, momentum=0.3))
    plain[1].num_batches_tracked.fill_(7)
    model, _ = bcosify(plain.train(), b=1, biases="keep")
    y, norm = plain[0](x), plain[1]
    shift = norm.bias - norm.weight * norm.running_mean / (norm.running_var + norm.eps).sqrt()
    var = y.var((0, 2, 3), correction=0)
    scale = norm.weight / (var + norm.eps).sqrt()
    assert_close(model(x), plain[3]((y * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)).flatten(1)))
    assert_close(model.network[1].running_var, 0.7 * norm.running_var + 0.3 * var)
    assert model.network[1].num_batches_tracked == 8


REFUSED = {
    "Sigmoid": (lambda: nn.Sigmoid(), "bounded: where it saturates, its value is a constant"),
    "Tanh": (lambda: nn.Tanh(), "bounded"),
    "ReLU6": (lambda: nn.ReLU6(), "bounded"),
    "Softmax": (lambda: nn.Softmax(1), "not linear: train and explain logits"),
    "ELU": (lambda: nn.ELU(), "not known to be linear in explanation mode, whatever is held constant"),
    "Softplus": (lambda: nn.Softplus(), "not known to be linear"),
    "LPPool2d": (lambda: nn.LPPool2d(2, 2), "not known to be linear"),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(6, track_running_stats=False), "it keeps no statistics"),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(6, track_running_stats=True), "it keeps running statistics"),
    "LayerNorm": (lambda: nn.LayerNorm((6, 5)), "it is over 2 dimensions together"),
    "MaxPool2d": (lambda: nn.MaxPool2d(2, dilation=2), "averages have no dilation, got 2"),
}


@pytest.mark.parametrize(("build", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(build, reason):
    plain, x = network(build())
    kind = type(plain[1]).__name__
    with pytest.raises(ValueError, match=rf"^1: {kind} cannot be converted: {re.escape(reason)}.*; strict=False"):
        bcosify(plain)
    model, report = bcosify(plain, strict=False)
    assert report.counts["refused"] == 1
    assert type(model.network[1]) is type(plain[1])
    if kind not in ("MaxPool2d", "LPPool2d"):  # scaling with what they see, these happen to add up
        assert explain(model, 100 * x, 1).completeness_error.max() > 1e-9


ATTENTION = {
    "keys of their own": ({"kdim": 3}, "keys or values have features of their own"),
    "tokens of its own": ({"add_bias_kv": True}, "it attends to tokens of its own"),
    "zeros": ({"add_zero_attn": True}, "it attends to tokens of its own"),
}


@pytest.mark.parametrize(("options", "reason"), ATTENTION.values(), ids=ATTENTION)
def test_attention_refused(options, reason):
    model = nn.Sequential(nn.Conv2d(3, 6, 1), ByChannel(Attention(**options)))
    with pytest.raises(ValueError, match=rf"^1\.layer\.attention: MultiheadAttention cannot be converted: {reason}"):
        bcosify(model)


def test_transformer_blocks_of_torch_are_refused():
    block = nn.TransformerEncoderLayer(6, 2, 8)
    with pytest.raises(
        ValueError, match=r"^1\.layer: TransformerEncoderLayer cannot be converted: its fast path reads"
    ):
        bcosify(nn.Sequential(nn.Conv2d(3, 6, 1), ByChannel(block)))


def test_others_are_counted():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Tanh(), nn.Sigmoid(), nn.ELU())
    with pytest.raises(ValueError, match=r"^1: Tanh cannot .* \(and 2 more\); strict=False leaves"):
        bcosify(model)


def with_hook():
    layer = nn.Conv2d(6, 6, 1)
    layer.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: parametrizations.weight_norm(nn.Conv2d(6, 6, 1)), "it is parametrised"),
        (with_hook, "it has hooks"),
        (lambda: nn.LazyConv2d(6, 1), "its shape is not known yet: run the model once"),
    ],
    ids=["parametrised", "hooks", "lazy"],
)
def test_layers_that_are_more_than_their_weights(layer, reason):
    with pytest.raises(ValueError, match=rf"^1: \w+ cannot be converted: {reason}"):
        bcosify(nn.Sequential(nn.Conv2d(3, 6, 1), layer()))


class Scaled(nn.Conv2d):
    """A convolution of its own kind."""

    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight / weight.abs().max(), bias)


class Named(nn.Conv2d):
    """Another name alone."""


def test_subclasses():
    """One that computes something else is not taken for a convolution."""
    model, _ = bcosify(nn.Sequential(Named(3, 6, 1), Named(6, 6, 1)))
    assert type(model.network[1]) is bnn.BcosConv2d
    with pytest.raises(ValueError, match=r"^1: \w+\(\) cannot be converted"):
        bcosify(nn.Sequential(nn.Conv2d(3, 6, 1), Scaled(6, 6, 1)))


# ---- what is shared, frozen, named ----


def test_shared_modules_and_weights_stay_shared():
    shared = nn.Conv2d(4, 4, 1)
    tied = nn.Conv2d(4, 4, 1)
    tied.weight = shared.weight
    model, _ = bcosify(nn.Sequential(nn.Conv2d(3, 4, 1), shared, nn.ReLU(), shared, tied))
    network = model.network
    assert network[1] is network[3]
    assert network[4] is not network[1]
    assert network[4].weight is network[1].weight
    assert len(list(model.parameters())) == 2


def test_frozen_stays_frozen():
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    plain[0].requires_grad_(False)
    plain[1].requires_grad_(False)
    model, _ = bcosify(plain, biases="keep")
    frozen = {name for name, p in model.network.named_parameters() if not p.requires_grad}
    assert frozen == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_modules_of_plain_containers():
    """nn.Module itself, lists and dictionaries."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.Module()
            self.parts.first = nn.Conv2d(3, 4, 1)
            self.more = nn.ModuleList([nn.Conv2d(4, 4, 1)])
            self.named = nn.ModuleDict({"last": nn.Conv2d(4, 4, 1)})
            self.scales = nn.ParameterList([nn.Parameter(torch.rand(1)), nn.Parameter(torch.rand(1))])

        def forward(self, x):
            return self.named["last"](self.more[0](self.parts.first(x)) * self.scales[0] + self.scales[1]).mean((2, 3))

    plain, x = Model().double(), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    model, report = bcosify(plain)
    assert [e.path for e in report.of("replaced")] == ["parts.first", "more.0", "named.last"]
    assert {e.path: e.reason[:8] for e in report.of("kept")} == {"scales.0": "a factor", "scales.1": "a consta"}
    assert (explain(model, x).completeness_error <= 1e-12).all()


# ---- options and models that are out of range ----


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"b": 0.5}, "b: expected a finite number >= 1, got 0.5"),
        ({"b": float("nan")}, "b: expected a finite number >= 1, got nan"),
        ({"b": "2"}, "b: expected a number >= 1, got '2'"),
        ({"biases": True}, 'biases: expected "drop" or "keep", got True'),
        ({"pooling": "max"}, 'pooling: expected "average" or "keep", got \'max\''),
        ({"mean": [0.5] * 3}, "mean, std: expected both or neither"),
        ({"std": [0.5] * 3}, "mean, std: expected both or neither"),
        ({"mean": [0.5] * 3, "std": [0.5] * 2}, "mean, std: expected one value each for every channel, std > 0; got"),
        ({"mean": [], "std": []}, "mean, std: expected one value each for every channel, std > 0; got [], []"),
        ({"mean": [0.5], "std": [0.0]}, "mean, std: expected one value each for every channel, std > 0; got [0.5], [0"),
        ({"mean": [0.5], "std": [0.5]}, "mean, std: expected one value for each of 3 channels, got 1"),
        ({"logit_bias": float("inf")}, "logit_bias: expected a finite number, got inf"),
    ],
)
def test_options(options, expected):
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        bcosify(nn.Sequential(nn.Conv2d(3, 6, 1)), **options)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: torch.ones(3), "model: expected a torch.nn.Module, got Tensor"),
        (lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), "model: Sequential has no Conv2d or Linear, nothing to make"),
        (lambda: nn.Sequential(bnn.BcosConv2d(6, 3, 1)), "model: expected a plain network, but 0 is a BcosConv2d"),
        (lambda: bcosify(nn.Linear(3, 2))[0], "model: expected a plain network, but network is a EncodedLinear"),
        (lambda: bnn.BcosLinear(6, 3), "model: expected a plain network, but it is a BcosLinear"),
    ],
    ids=["no module", "nothing to convert", "B-cos", "converted", "a B-cos layer"],
)
def test_models(model, expected):
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        bcosify(model())


def test_logit_bias(assert_close):
    plain, x = network(nn.ReLU())
    with_bias, _ = bcosify(plain, logit_bias=-1.5)
    without, _ = bcosify(plain)
    assert_close(with_bias(x), without(x) - 1.5)
    assert [name for name, _ in with_bias.network.named_children()] == ["network", "logits"]
    assert not any(m.training for m in with_bias.modules())
    torch.testing.assert_close(explain(with_bias, x).remainder, torch.full((3,), -1.5, dtype=torch.float64))


def test_compiled_model(assert_close):
    plain, x = network(nn.ReLU())
    expected, _ = bcosify(plain)
    plain.compile()
    assert_close(bcosify(plain)[0](x), expected(x))
    wrapped = nn.Module()
    wrapped._orig_mod = plain  # what torch.compile makes
    assert_close(bcosify(wrapped)[0](x), expected(x))
