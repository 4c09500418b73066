"""The one list of small networks that every property of explanations is tested on, and their frozen linear maps."""

import pytest
import torch
import torch.nn.functional as F
from bcos_core import nn as bnn
from torch import nn
from torch.nn.utils.parametrize import register_parametrization


class Residual(nn.Module):
    def __init__(self, *body):
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x):
        return x + self.body(x)


class Classifier(nn.Module):
    """Encodes its images first, as this project's classifiers do."""

    def __init__(self, encoding, *network):
        super().__init__()
        self.encoding = encoding
        self.network = nn.Sequential(*network)

    def encode(self, x):
        return self.encoding(x)

    def forward(self, x):
        return self.network(self.encode(x))


def head(channels, num_classes=3, **options):
    return [bnn.BcosConv2d(channels, num_classes, 1, **options), nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def bcos_cnn(b, max_out=1):
    """What a B-cos classifier is made of."""
    return Classifier(
        bnn.InverseEncoding(),
        bnn.BcosConv2d(4, 6, 3, padding=1, b=b, max_out=max_out),
        bnn.BatchNormUncentered2d(6),
        Residual(bnn.BcosConv2d(6, 6, 3, padding=1, groups=2, b=b), bnn.LayerNormUncentered2d(6)),
        nn.AvgPool2d(2),
        *head(6, b=b, max_out=max_out),
        bnn.LogitLayer(bias=bnn.LogitLayer.prior_bias(3), temperature=0.5),
    )


def with_norm(kind, *first, **options):
    return nn.Sequential(bnn.BcosConv2d(2, 6, 3), kind(*first, 6, **options), *head(6))


class Pool(nn.Module):
    def forward(self, x):
        return x.mean(1)


def transformer(projection, head):
    """Patches of one pixel in a 6x6 grid, their positions, and one round of attention."""
    return nn.Sequential(
        nn.Conv2d(2, 16, 1),
        Permute(0, 2, 3, 1),
        bnn.SinCosPosition(),
        nn.Flatten(1, 2),
        Residual(bnn.SelfAttention(16, 2, projection)),
        Pool(),
        head,
    )


class AttentionBlock(nn.Module):
    """Called as PyTorch's attention, which it takes the place of."""

    def __init__(self, projection, batch_first):
        super().__init__()
        self.attention = bnn.MultiheadAttention(8, 2, projection, bias=True, batch_first=batch_first)
        self.batch_first = batch_first

    def forward(self, x):
        tokens = x if self.batch_first else x.transpose(0, 1)
        y, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return x + (y if self.batch_first else y.transpose(0, 1))


class ClassToken(nn.Module):
    """A learnt token before the others, and learnt positions: parametrised, so that explanations see them."""

    def __init__(self, tokens, dim):
        super().__init__()
        self.token, self.position = nn.Parameter(torch.randn(1, 1, dim)), nn.Parameter(torch.randn(tokens + 1, dim))
        for name in ("token", "position"):
            register_parametrization(self, name, bnn.Constant())

    def forward(self, x):
        return torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position


def vision_transformer(projection=lambda: bnn.BcosLinear(8, 8), batch_first=True):
    """Two patches of 3x6 pixels, as published vision transformers see them."""
    return nn.Sequential(
        nn.Unflatten(2, (2, 3)),
        Permute(0, 2, 1, 3, 4),
        nn.Flatten(2),
        bnn.BcosLinear(36, 8),
        ClassToken(2, 8),
        AttentionBlock(projection(), batch_first),
        bnn.LayerNorm(8, bias=True),
        bnn.BcosLinear(8, 8, b=1.5, unit_weights=False, bias=True),
        bnn.GELU("tanh"),
        Pool(),
        nn.Linear(8, 3),
    )


class OverTime(nn.Module):
    """Two Euler steps of a field that sees the time."""

    def __init__(self, channels):
        super().__init__()
        self.time, self.field = bnn.TimeChannel(), bnn.BcosConv2d(channels + 1, channels, 3, padding=1)

    def forward(self, x):
        for t in (0.5, 1.0):
            x = x + self.field(self.time(x, t)) / 2
        return x


class Permute(nn.Module):
    def __init__(self, *order):
        super().__init__()
        self.order = order

    def forward(self, x):
        return x.permute(self.order)


def one_conv(**options):
    return nn.Sequential(bnn.BcosConv2d(2, 6, (2, 3), **options), nn.Flatten(), nn.LazyLinear(3))


NORMS = {
    "batch": (bnn.BatchNormUncentered2d,),
    "batch centred": (bnn.BatchNorm2d,),
    "group centred": (bnn.GroupNorm2d, 3),
    "layer centred": (bnn.LayerNorm2d,),
    "instance centred": (bnn.InstanceNorm2d,),
    "position centred": (bnn.PositionNorm2d,),
    "group": (bnn.GroupNormUncentered2d, 3),
    "layer": (bnn.LayerNormUncentered2d,),
    "instance": (bnn.InstanceNormUncentered2d,),
    "position": (bnn.PositionNormUncentered2d,),
}

NETWORKS = {
    **{f"B-cos CNN, B={b:g}": lambda b=b: bcos_cnn(b) for b in (1, 1.25, 1.5, 2, 2.5, 3)},
    **{f"B-cos CNN, B={b:g}, MaxOut": lambda b=b: bcos_cnn(b, 2) for b in (1, 1.5, 2)},
    "linear": lambda: nn.Sequential(nn.Flatten(), bnn.BcosLinear(72, 3)),
    "linear, MaxOut": lambda: nn.Sequential(
        nn.Flatten(), bnn.BcosLinear(72, 8, max_out=3), bnn.BcosLinear(8, 3, b=1.5)
    ),
    "linear on the last dimension": lambda: nn.Sequential(bnn.BcosLinear(6, 4), nn.Flatten(), nn.Linear(48, 3)),
    "conv": lambda: nn.Sequential(*head(2, b=2.5)),
    "conv, stride, dilation, reflect": lambda: one_conv(stride=2, dilation=2, padding=2, padding_mode="reflect"),
    "conv, same, circular": lambda: one_conv(padding="same", padding_mode="circular", groups=2, max_out=2),
    **{f"norm {name}": lambda a=arguments: with_norm(*a) for name, arguments in NORMS.items()},
    **{f"norm {name}, bias": lambda a=arguments: with_norm(*a, bias=True) for name, arguments in NORMS.items()},
    **{
        f"norm {name} alone": lambda a=a: nn.Sequential(a[0](*([1] if a[1:] else []), 2), nn.Flatten())
        for name, a in NORMS.items()
    },
    "standardised": lambda: Classifier(bnn.Standardise([0.4, 0.5], [0.2, 0.3]), *head(2)),
    "encoding inside": lambda: nn.Sequential(bnn.Standardise([0.4, 0.5], [0.2, 0.3]), bnn.InverseEncoding(), *head(4)),
    "logit layer": lambda: nn.Sequential(*head(2), bnn.LogitLayer(bias=-2.0, temperature=3.0)),
    "plain CNN": lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        Residual(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(6)),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(54, 8),
        nn.BatchNorm1d(8),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Linear(8, 3),
    ),
    "transposed convolution": lambda: nn.Sequential(
        nn.ConvTranspose2d(2, 3, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    ),
    "works in place first": lambda: nn.Sequential(nn.LeakyReLU(0.3, inplace=True), nn.Flatten(), nn.Linear(72, 3)),
    "B-cos layers in a plain CNN": lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(inplace=True), bnn.BcosConv2d(6, 6, 3, max_out=2), nn.ReLU(inplace=True), *head(6)
    ),
    "time": lambda: nn.Sequential(OverTime(2), *head(2)),
    "GELU": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 5), bnn.GELU(), nn.Linear(5, 3)),
    **{
        f"{kind.__name__}": lambda kind=kind: nn.Sequential(nn.Flatten(), nn.Linear(72, 5), kind(), nn.Linear(5, 3))
        for kind in (bnn.SiLU, bnn.Hardswish)
    },
    "GELU, tanh": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 5), bnn.GELU("tanh"), nn.Linear(5, 3)),
    "layer norm of tokens": lambda: nn.Sequential(
        nn.Flatten(2), bnn.LayerNorm(36), nn.Flatten(), bnn.LayerNorm(72, bias=True), nn.Linear(72, 3)
    ),
    "vision transformer": vision_transformer,
    "plain vision transformer": lambda: vision_transformer(lambda: nn.Linear(8, 8), batch_first=False),
    "transformer": lambda: transformer(bnn.BcosLinear(16, 16), bnn.BcosLinear(16, 3)),
    "plain transformer": lambda: transformer(nn.Linear(16, 16), nn.Sequential(nn.Linear(16, 3), bnn.GELU())),
    "linear net": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 5, bias=False), nn.Linear(5, 3)),
}


@pytest.fixture(scope="session")
def prepare():
    """(network, dtype) -> evaluated, with no parameter or statistic at its easy initial value; and three inputs."""

    def compute(network, dtype=torch.float64):
        torch.manual_seed(1)
        x = torch.rand(3, 2, 6, 6, dtype=dtype)
        model = network().to(dtype).eval()
        model(x.clone())  # lazy layers
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._NormBase | bnn.BatchNormUncentered2d):
                    module.running_var.uniform_(0.5, 1.5)
                    if getattr(module, "running_mean", None) is not None:
                        module.running_mean.normal_()
                for name, parameter in module.named_parameters(recurse=False):
                    if name == "bias" or parameter.dim() == 1:
                        parameter.normal_()
        return model, x

    return compute


def pytest_generate_tests(metafunc):
    if "network" in metafunc.fixturenames:
        metafunc.parametrize("network", NETWORKS.values(), ids=NETWORKS)


@pytest.fixture
def small(prepare):
    """One model of each kind that a test of a single property can take: B-cos, float64."""
    return prepare(NETWORKS["B-cos CNN, B=2, MaxOut"])


@pytest.fixture
def plain(prepare):
    return prepare(NETWORKS["plain CNN"])


@pytest.fixture(scope="session")
def frozen_map(oracle_conv2d, oracle_linear):
    """(network, x) -> v -> what the network answers to v with every scale, mask and winner as x has set it.

    No autograd: each layer is frozen by hand from its formula. The map is affine.
    """

    def one_hot(z, dim):
        return F.one_hot(z.argmax(dim), z.shape[dim]).movedim(-1, dim).to(z)

    def conv(layer, x):
        sides = [0, 0, 0, 0]
        if layer.padding == "same":
            total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
            sides = [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]
        elif layer.padding != "valid":
            sides = [layer.padding[1]] * 2 + [layer.padding[0]] * 2
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        window = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
        padded = F.pad(x, sides, mode=mode)
        _, factor = oracle_conv2d(
            padded, layer.weight, b=layer.b, max_out=layer.max_out, eps=layer.eps, parts=True, **window
        )
        unit = layer.weight / layer.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)

        def units(v):
            z = F.conv2d(F.pad(v, sides, mode=mode), unit, **window)
            return z.unflatten(1, (-1, layer.max_out))

        winner = one_hot(units(x), 2)
        return lambda v: (units(v) * winner).sum(2) * factor

    def linear(layer, x):
        _, factor = oracle_linear(x, layer.weight, b=layer.b, max_out=layer.max_out, eps=layer.eps, parts=True)
        norms = layer.weight.norm(dim=1, keepdim=True)
        bias = 0 if layer.bias is None else layer.bias

        def units(v):
            return (v @ (layer.weight / norms).T).unflatten(-1, (-1, layer.max_out))

        winner = one_hot(units(x), -1)
        norm = 1 if layer.unit_weights else norms.T
        return lambda v: (units(v) * winner).sum(-1) * factor * norm + bias

    def norm(layer, x):
        groups = 1 if isinstance(layer, (bnn.PositionNorm2d, bnn.PositionNormUncentered2d)) else layer.num_groups
        dims = (2,) if isinstance(layer, (bnn.PositionNorm2d, bnn.PositionNormUncentered2d)) else (2, 3, 4)

        def mean(v):
            parts = v.unflatten(1, (groups, -1))
            return parts.mean(dims, keepdim=True).expand(-1, -1, parts.shape[2], -1, -1).flatten(1, 2)

        std = (mean((x - mean(x)).square()) + layer.eps).sqrt()
        weight, bias = layer.weight.view(-1, 1, 1), 0 if layer.bias is None else layer.bias.view(-1, 1, 1)
        if "Uncentered" in type(layer).__name__:
            return lambda v: v / std * weight + bias
        return lambda v: (v - mean(v)) / std * weight + bias

    def uncentred_batch_norm(layer, x):
        bias = 0 if layer.bias is None else layer.bias.view(-1, 1, 1)
        return lambda v: v / (layer.running_var + layer.eps).sqrt().view(-1, 1, 1) * layer.weight.view(-1, 1, 1) + bias

    def attention(layer, x):
        def heads(v):
            bias = 0 if layer.to_qkv.bias is None else layer.to_qkv.bias
            return (v @ layer.to_qkv.weight.T + bias).unflatten(-1, (3, layer.heads, -1)).permute(2, 0, 3, 1, 4)

        q, k, _ = heads(x)
        weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)

        def mixed(v):
            return (weights @ heads(v)[2]).transpose(1, 2).flatten(2)

        projection = freeze(layer.to_out, mixed(x))
        return lambda v: projection(mixed(v))

    def max_pool(layer, x):
        def windows(v):
            return v.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)

        winner = one_hot(windows(x), -1)
        return lambda v: (windows(v) * winner).sum(-1)

    def freeze(module, x):
        match module:
            case nn.Sequential():
                steps = []
                for child in module:
                    steps.append(freeze(child, x))
                    x = steps[-1](x)

                def chain(v):
                    for step in steps:
                        v = step(v)
                    return v

                return chain
            case Residual():
                body = freeze(module.body, x)
                return lambda v: v + body(v)
            case bnn.BcosConv2d():
                return conv(module, x)
            case bnn.BcosLinear():
                return linear(module, x)
            case bnn.Standardise():
                return lambda v: (v - module.mean) / module.std
            case bnn.InverseEncoding():
                return lambda v: torch.cat([v, 1 - v], 1)
            case bnn.LogitLayer():
                return lambda v: v / module.temperature + module.bias
            case nn.BatchNorm2d() | nn.BatchNorm1d():
                shape = (-1, *[1] * (x.dim() - 2))
                scale = module.weight / (module.running_var + module.eps).sqrt()
                shift = -scale * module.running_mean + (0 if module.bias is None else module.bias)
                return lambda v: v * scale.view(shape) + shift.view(shape)
            case nn.ReLU() | nn.LeakyReLU():
                slope = torch.where(x > 0, x.new_ones(()), x.new_full((), getattr(module, "negative_slope", 0.0)))
                return lambda v: v * slope
            case nn.MaxPool2d():
                return max_pool(module, x)
            case nn.Dropout():
                return lambda v: v
            case (
                nn.Linear()
                | nn.Conv2d()
                | nn.ConvTranspose2d()
                | nn.AvgPool2d()
                | nn.AdaptiveAvgPool2d()
                | nn.Flatten()
            ):
                return module  # torch's own, and affine
            case Permute() | nn.Unflatten():
                return module
            case ClassToken():
                token, positions = module.token.detach(), module.position.detach()
                return lambda v: torch.cat([token.expand(len(v), -1, -1), v], 1) + positions
            case AttentionBlock():
                mixing = attention(module.attention, x)
                return lambda v: v + mixing(v)
            case bnn.LayerNorm():
                std = ((x - x.mean(-1, keepdim=True)).square().mean(-1, keepdim=True) + module.eps).sqrt()
                bias = 0 if module.bias is None else module.bias
                return lambda v: (v - v.mean(-1, keepdim=True)) / std * module.weight + bias
            case bnn.SiLU():
                gate = 1 / (1 + (-x).exp())
                return lambda v: v * gate
            case bnn.Hardswish():
                gate = (x + 3).clip(0, 6) / 6
                return lambda v: v * gate
            case Pool():
                return module
            case bnn.SinCosPosition():
                positions = module(torch.zeros_like(x))
                return lambda v: v + positions
            case OverTime():

                def at(v, t):
                    return torch.cat([v, torch.full_like(v[:, :1], t)], 1)

                first = conv(module.field, at(x, 0.5))
                x = x + first(at(x, 0.5)) / 2
                second = conv(module.field, at(x, 1.0))

                def twice(v):
                    v = v + first(at(v, 0.5)) / 2
                    return v + second(at(v, 1.0)) / 2

                return twice
            case bnn.GELU():
                gate = (1 + torch.erf(x / 2**0.5)) / 2
                if module.approximate == "tanh":
                    gate = (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2
                return lambda v: v * gate
            case bnn.SelfAttention():
                return attention(module, x)
            case bnn.BatchNormUncentered2d():
                return uncentred_batch_norm(module, x)
            case bnn.Detachable():
                return norm(module, x)
        raise TypeError(type(module))

    def compute(network, x):
        with torch.no_grad():
            frozen = freeze(network, x)

        def call(v):
            with torch.no_grad():
                return frozen(v)

        return call

    return compute
