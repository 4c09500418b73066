"""The public B-cos v2 checkpoints without a module: their layout, their logits and their explanations.

Written from the facts of the public code alone (github.com/B-cos/B-cos-v2), independent of the models that are tested.
Each architecture is one function over a `_Network`, which asks for a parameter by its public name and shape the moment
it is needed. Who answers decides what the function computes: a layout, a random checkpoint, or logits.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

ENTRY_POINTS: dict[str, float] = {
    **{"resnet18": 11.69, "resnet34": 21.80, "resnet50": 25.54, "resnet101": 44.50, "resnet152": 60.13},
    "resnext50_32x4d": 25.00,
    **{"densenet121": 7.95, "densenet161": 28.58, "densenet169": 14.08, "densenet201": 19.91},
    "vgg11_bnu": 132.86,
    **{"convnext_tiny": 28.54, "convnext_base": 88.47, "convnext_tiny_bnu": 28.54, "convnext_base_bnu": 88.47},
    **{"densenet121_long": 7.95, "resnet50_long": 25.54, "resnet152_long": 60.13},
    **{"simple_vit_ti_patch16_224": 5.80, "simple_vit_s_patch16_224": 22.28},
    **{"simple_vit_b_patch16_224": 86.90, "simple_vit_l_patch16_224": 178.79},
    **{"vitc_ti_patch1_14": 5.32, "vitc_s_patch1_14": 20.88, "vitc_b_patch1_14": 81.37, "vitc_l_patch1_14": 167.44},
    **{"standard_simple_vit_ti_patch16_224": 5.67, "standard_simple_vit_s_patch16_224": 21.96},
    **{"standard_simple_vit_b_patch16_224": 86.38, "standard_simple_vit_l_patch16_224": 178.10},
    **{"standard_vitc_ti_patch1_14": 5.33, "standard_vitc_s_patch1_14": 20.91},
    **{"standard_vitc_b_patch1_14": 81.39, "standard_vitc_l_patch1_14": 167.54},
}
"""The names of `bcos.models.pretrained`, each with the millions of parameters that its docstring publishes."""

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")

Shape = tuple[int, ...]
Draw = Callable[[Generator], Tensor]
Lookup = Callable[[str, Shape, Draw], Tensor]
"""Gives the tensor of a name; the shape is what the architecture needs, the draw a value as after training."""


def is_bcos(entry_point: str) -> bool:
    return not entry_point.startswith("standard_")


def encode(entry_point: str, images: Tensor) -> Tensor:
    """What the network's first layer sees of RGB images in [0, 1]."""
    if is_bcos(entry_point):
        return torch.cat([images, 1 - images], 1)
    mean, std = images.new_tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]
    return (images - mean) / std


def draw_images(count: int, generator: Generator) -> Tensor:
    """Smooth colours, so that neighbouring pixels agree; higher than wide would go unnoticed were they square."""
    return F.interpolate(torch.rand(count, 3, 6, 8, generator=generator), (48, 64), mode="bilinear")


def public_layout(entry_point: str, num_classes: int = 1000) -> dict[str, Shape]:
    """Names and shapes of the entry point's state dict."""
    layout: dict[str, Shape] = {}

    def record(name: str, shape: Shape, draw: Draw) -> Tensor:
        assert name not in layout
        layout[name] = shape
        return torch.empty(shape, device="meta")

    images = torch.empty(1, 3, 64, 64, device="meta")
    channels = images.repeat(1, 2, 1, 1) if is_bcos(entry_point) else images
    _run(entry_point, record, channels, num_classes)
    return layout


def random_checkpoint(entry_point: str, num_classes: int, generator: Generator) -> dict[str, Tensor]:
    """A state dict with values like a trained network's.

    Filters point halfway to patches that reach them and running variances are near those of the activations. Wholly
    random ones would be all but orthogonal to what they see: B-cos layers would let the signal vanish within a few.
    """
    state: dict[str, Tensor] = {}

    def train(name: str, shape: Shape, draw: Draw) -> Tensor:
        state[name] = draw(generator)
        assert state[name].shape == shape
        return state[name]

    with torch.no_grad():
        _run(entry_point, train, encode(entry_point, draw_images(2, generator)), num_classes)
    return state


def public_forward(entry_point: str, state: dict[str, Tensor], encoded: Tensor) -> Tensor:
    """Logits (N, K) in evaluation mode, in the precision of the encoded images."""
    with torch.no_grad():
        return _run(entry_point, _reader(state, encoded.dtype), encoded, _num_classes(state))[0]


def public_explanation(
    entry_point: str, state: dict[str, Tensor], encoded: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Contributions of the encoded images to their logits of index target (N,), and the remainder (N,).

    Input times gradient with constant B-cos scales, norm variances, queries and keys, as the public explanation mode
    has it. There, layer norms and GELUs of the standard networks stay as they are, and contributions do not add up;
    here their variances and gates are constants as well. The remainder is what biases, positions and the logit bias
    add: the same gradient times each of them.
    """
    contributions, remainders = [], []
    for image, index in zip(encoded, target, strict=True):  # one by one: biases belong to the whole batch
        image = image[None].clone().requires_grad_()
        with torch.enable_grad():
            logits, offsets = _run(entry_point, _reader(state, image.dtype), image, _num_classes(state), detach=True)
            gradient, *others = torch.autograd.grad(logits[0, index], [image, *offsets])
        contributions.append(gradient * image.detach())
        remainders.append(sum((g * c).sum() for g, c in zip(others, offsets, strict=True)))
    return torch.cat(contributions), torch.stack(remainders).detach()


def _reader(state: dict[str, Tensor], dtype: torch.dtype) -> Lookup:
    def read(name: str, shape: Shape, draw: Draw) -> Tensor:
        assert state[name].shape == shape, name
        return state[name].to(dtype)

    return read


def _num_classes(state: dict[str, Tensor]) -> int:
    return len([v for name, v in state.items() if name.endswith("weight")][-1])


class _Network:
    """Layers of the public code by torch.nn.functional, B-cos ones or plain ones, with B = 2."""

    def __init__(self, lookup: Lookup, *, bcos: bool, detach: bool) -> None:
        self._lookup = lookup
        self.bcos = bcos
        self._detach = detach
        self.offsets: list[Tensor] = []

    def constant(self, x: Tensor) -> Tensor:
        """The same, but for gradients in explanation mode."""
        return x.detach() if self._detach else x

    def offset(self, x: Tensor) -> Tensor:
        """A constant that is added somewhere: in explanation mode it gets a gradient as an input does."""
        if self._detach:
            x = x.detach().clone().requires_grad_()
            self.offsets.append(x)
        return x

    def parameter(self, name: str, size: Shape, low: float, high: float) -> Tensor:
        return self._lookup(name, size, lambda g: torch.empty(size).uniform_(low, high, generator=g))

    def _bias(self, name: str, size: int) -> Tensor:
        return self.offset(self.parameter(f"{name}.bias", (size,), -0.5, 0.5))

    def _weight(self, name: str, shape: Shape, seen: Callable[[Tensor], Tensor]) -> Tensor:
        """Filters of a layer; `seen` gives for each filter the inputs it may be drawn from, by a random number."""

        def draw(g: Generator) -> Tensor:
            out = shape[0]
            weight = torch.randn(out, math.prod(shape[1:]), generator=g)
            if self.bcos:
                pattern = seen(torch.rand(out, generator=g))
                pattern -= pattern.mean(0)  # what tells inputs apart: a filter like all of them would answer all alike
                share = torch.empty(out, 1).uniform_(0.5, 0.9, generator=g)
                share *= torch.randint(2, (out, 1), generator=g) * 2 - 1
                weight *= (1 - share.abs()) / weight.norm(dim=1, keepdim=True)
                weight += pattern.mul_(share / pattern.norm(dim=1, keepdim=True).clamp(min=1e-9))
                weight *= torch.empty(out, 1).uniform_(0.2, 5.0, generator=g)
            else:
                weight /= weight.shape[1] ** 0.5
            return weight.reshape(shape)

        return self._lookup(name, shape, draw)

    def conv(
        self, name: str, x: Tensor, out: int, kernel: int, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> Tensor:
        shape = (out, x.shape[1] // groups, kernel, kernel)

        def seen(where: Tensor) -> Tensor:
            patches = F.unfold(x, kernel, padding=padding, stride=stride)  # (n, groups * features, places)
            patches = patches.unflatten(1, (groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)
            return patches[torch.arange(out) * groups // out, (where * patches.shape[1]).long()]

        if not self.bcos:
            weight = self._weight(f"{name}.weight", shape, seen)
            return F.conv2d(x, weight, self._bias(name, out), stride, padding, groups=groups)
        weight = self._weight(f"{name}.linear.weight", shape, seen)
        if x.is_meta:  # a layout: shapes are all that is asked for, and the rest is slow there
            return F.conv2d(x, weight, None, stride, padding, groups=groups)
        weight = weight / weight.flatten(1).norm(dim=1)[:, None, None, None]
        response = F.conv2d(x, weight, None, stride, padding, groups=groups)
        energy = x.square().unflatten(1, (groups, -1)).sum(2)
        norm = (F.avg_pool2d(energy, kernel, stride, padding, divisor_override=1) + 1e-6).sqrt()
        norm = norm.repeat_interleave(out // groups, 1)
        return response * self.constant(response.abs() / norm)

    def linear(self, name: str, x: Tensor, out: int, *, bias: bool = True) -> Tensor:
        if not self.bcos:
            return self.plain_linear(name, x, out, bias=bias)
        flat = x.flatten(0, -2)
        seen = lambda where: flat[(where * len(flat)).long()]  # noqa: E731
        weight = self._weight(f"{name}.linear.weight", (out, x.shape[-1]), seen)
        if x.is_meta:
            return F.linear(x, weight)
        response = F.linear(x, weight / weight.norm(dim=1, keepdim=True))
        return response * self.constant(response.abs() / (x.norm(dim=-1, keepdim=True) + 1e-12))

    def plain_linear(self, name: str, x: Tensor, out: int, *, bias: bool) -> Tensor:
        shape = (out, x.shape[-1])
        draw = lambda g: torch.randn(shape, generator=g) / shape[1] ** 0.5  # noqa: E731
        weight = self._lookup(f"{name}.weight", shape, draw)
        return F.linear(x, weight, self._bias(name, out) if bias else None)

    def batch_norm(self, name: str, x: Tensor, scale: float = 1.0) -> Tensor:
        """BatchNormUncentered2d without bias: it has a running mean, and neither updates nor reads it."""
        size = (x.shape[1],)
        weight = self.parameter(f"{name}.weight", size, 0.5 * scale, 1.5 * scale)
        self._lookup(f"{name}.running_mean", size, lambda g: torch.zeros(size))
        near = lambda g: x.var((0, 2, 3)) * torch.empty(size).uniform_(0.5, 1.5, generator=g)  # noqa: E731
        var = self._lookup(f"{name}.running_var", size, near)
        self._lookup(f"{name}.num_batches_tracked", (), lambda g: torch.tensor(450_450))
        return x if x.is_meta else x * (weight / (var + 1e-5).sqrt())[:, None, None]

    def centred_norm(self, name: str, x: Tensor, channels: int, over: Shape, eps: float = 1e-5) -> Tensor:
        """A layer, position or group norm (of one group): they differ in what mean and variance are taken over."""
        size = [1] * x.dim()
        size[channels] = x.shape[channels]
        weight = self.parameter(f"{name}.weight", (x.shape[channels],), 0.5, 1.5).reshape(size)
        bias = None if self.bcos else self._bias(name, x.shape[channels]).reshape(size)
        if x.is_meta:
            return x
        centred = x - x.mean(over, keepdim=True)
        y = weight * centred / (self.constant(centred.square().mean(over, keepdim=True)) + eps).sqrt()
        return y if bias is None else y + bias

    def activation(self, x: Tensor) -> Tensor:
        """GELU in plain networks: x times the probability that a standard normal is below it."""
        return x if self.bcos else x * self.constant(0.5 * (1 + torch.erf(x / 2**0.5)))

    def pooled_logits(self, x: Tensor) -> Tensor:
        return self.logits(x.mean((2, 3)))

    def logits(self, x: Tensor) -> Tensor:
        return x + self.offset(x.new_tensor(-math.log(x.shape[1] - 1)))


def _resnet(net: _Network, x: Tensor, num_classes: int, *, depths: Shape, bottleneck: bool, groups: int = 1) -> Tensor:
    x = net.batch_norm("bn1", net.conv("conv1", x, 64, 7, stride=2, padding=3))
    x = F.avg_pool2d(x, 3, 2, padding=1)  # padding counts: the edges are averages over nine as well
    for stage, depth in enumerate(depths):
        planes = 64 * 2**stage
        width = planes if groups == 1 else planes * 4 // 64 * groups
        for k in range(depth):
            name = f"layer{stage + 1}.{k}"
            stride = 2 if stage and not k else 1
            convs = [(planes, 3, stride, 1), (planes, 3, 1, 1)]
            if bottleneck:
                convs = [(width, 1, 1, 1), (width, 3, stride, groups), (4 * planes, 1, 1, 1)]
            y = x
            for i, (out, kernel, step, split) in enumerate(convs, start=1):
                y = net.conv(f"{name}.conv{i}", y, out, kernel, stride=step, padding=kernel // 2, groups=split)
                y = net.batch_norm(f"{name}.bn{i}", y)
            if x.shape != y.shape:
                x = net.conv(f"{name}.downsample.0", x, y.shape[1], 1, stride=stride)
                x = net.batch_norm(f"{name}.downsample.1", x)
            x = x + y
    return net.pooled_logits(net.conv("fc", x, num_classes, 1))


def _densenet(net: _Network, x: Tensor, num_classes: int, *, growth: int, depths: Shape, width: int) -> Tensor:
    x = net.batch_norm("features.norm0", net.conv("features.conv0", x, width, 7, stride=2, padding=3))
    x = F.avg_pool2d(x, 3, 2, padding=1)
    for b, depth in enumerate(depths, start=1):
        for k in range(1, depth + 1):
            name = f"features.denseblock{b}.denselayer{k}"
            y = net.conv(f"{name}.conv1", net.batch_norm(f"{name}.norm1", x), 4 * growth, 1)
            y = net.conv(f"{name}.conv2", net.batch_norm(f"{name}.norm2", y), growth, 3, padding=1)
            x = torch.cat([x, y], 1)
        if b < len(depths):
            name = f"features.transition{b}"
            x = net.conv(f"{name}.conv", net.batch_norm(f"{name}.norm", x), x.shape[1] // 2, 1)
            x = F.avg_pool2d(x, 2)
    return net.pooled_logits(net.conv("classifier", net.batch_norm("features.norm5", x), num_classes, 1))


def _vgg11(net: _Network, x: Tensor, num_classes: int) -> Tensor:
    index = 0
    for widths in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for width in widths:
            x = net.conv(f"features.{index}", x, width, 3, padding=1)
            # trained weights are small where three layers without a norm follow; logits would be thousands
            x = net.batch_norm(f"features.{index + 1}", x, scale=0.002 if index == 18 else 1.0)
            index += 2
        x = F.avg_pool2d(x, 2)
        index += 1
    x = net.conv("classifier.0", x, 4096, 7, padding=3)
    return net.pooled_logits(net.conv("classifier.2", net.conv("classifier.1", x, 4096, 1), num_classes, 1))


def _convnext(net: _Network, x: Tensor, num_classes: int, *, width: int, depths: Shape, batch_norm: bool) -> Tensor:
    norm = net.batch_norm if batch_norm else partial(net.centred_norm, channels=1, over=(1,), eps=1e-6)
    x = norm("features.1", net.conv("features.0", x, width, 4, stride=4))
    for stage, depth in enumerate(depths):
        dim = width * 2**stage
        if stage:
            name = f"features.{2 * stage + 1}"
            x = net.conv(f"{name}.1", norm(f"{name}.0", x), dim, 2, stride=2)
        for k in range(depth):
            name = f"features.{2 * stage + 2}.{k}"
            scale = net.parameter(f"{name}.layer_scale", (dim, 1, 1), 0.2, 1.0)
            y = norm(f"{name}.block.1", net.conv(f"{name}.block.0", x, dim, 7, padding=3, groups=dim))
            y = net.conv(f"{name}.block.3", net.conv(f"{name}.block.2", y, 4 * dim, 1), dim, 1)
            x = x + scale * y
    return net.pooled_logits(net.conv("classifier.1", norm("classifier.0", x), num_classes, 1))


def _vit(net: _Network, x: Tensor, num_classes: int, *, dim: int, depth: int, patch: int, stem: Shape = ()) -> Tensor:
    root = "0." if net.bcos else ""  # the B-cos ones are the first of two modules; the logit layer is the second
    for i, width in enumerate(stem):
        name = f"{root}to_patch_embedding.conv_stem"
        x = net.conv(f"{name}.{3 * i}", x, width, 3, stride=2 if width > x.shape[1] else 1, padding=1)
        x = net.activation(net.centred_norm(f"{name}.{3 * i + 1}", x, channels=1, over=(1, 2, 3)))
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // patch, patch, w // patch, patch).permute(0, 2, 4, 3, 5, 1).flatten(3)
    x = net.linear(f"{root}to_patch_embedding.linear", x, dim)
    x = x.flatten(1, 2) + net.offset(_positions(*x.shape[1:], like=x))
    norm = partial(net.centred_norm, channels=-1, over=(-1,))
    for k in range(depth):
        name = f"{root}transformer.encoder_{k}.attn"
        qkv = net.plain_linear(f"{name}.to_qkv", norm(f"{name}.norm", x), 3 * dim, bias=False)
        q, k, v = qkv.unflatten(-1, (3, dim // 64, 64)).permute(2, 0, 3, 1, 4)
        scores = net.constant(q) @ net.constant(k).transpose(-1, -2) / 8
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + net.linear(f"{name}.to_out", y, dim, bias=False)
        name = name.removesuffix("attn") + "ff.net"
        y = net.linear(f"{name}.linear1", norm(f"{name}.norm", x), 4 * dim)
        x = x + net.linear(f"{name}.linear2", net.activation(y), dim)
    x = net.linear(f"{root}linear_head.linear", norm(f"{root}linear_head.norm", x.mean(1)), num_classes)
    return net.logits(x) if net.bcos else x


def _positions(h: int, w: int, dim: int, *, like: Tensor) -> Tensor:
    """Sines and cosines of x, then of y. The public code has them in float32, whatever the precision of the rest."""
    frequency = 10_000 ** -(torch.arange(dim // 4, dtype=torch.float32) / (dim // 4 - 1))
    y, x = torch.arange(h).repeat_interleave(w)[:, None] * frequency, torch.arange(w).repeat(h)[:, None] * frequency
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], 1).to(like)


def _architectures() -> dict[str, Callable[[_Network, Tensor, int], Tensor]]:
    zoo: dict[str, Callable[[_Network, Tensor, int], Tensor]] = {"vgg11_bnu": _vgg11}
    for depth, depths in ((18, (2, 2, 2, 2)), (34, (3, 4, 6, 3))):
        zoo[f"resnet{depth}"] = partial(_resnet, depths=depths, bottleneck=False)
    for depth, depths in ((50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))):
        zoo[f"resnet{depth}"] = partial(_resnet, depths=depths, bottleneck=True)
    zoo["resnext50_32x4d"] = partial(_resnet, depths=(3, 4, 6, 3), bottleneck=True, groups=32)
    for depth, growth, width, last in ((121, 32, 64, (24, 16)), (169, 32, 64, (32, 32)), (201, 32, 64, (48, 32))):
        zoo[f"densenet{depth}"] = partial(_densenet, growth=growth, width=width, depths=(6, 12, *last))
    zoo["densenet161"] = partial(_densenet, growth=48, width=96, depths=(6, 12, 36, 24))
    for name in ("resnet50", "resnet152", "densenet121"):
        zoo[f"{name}_long"] = zoo[name]
    for size, width, depths in (("tiny", 96, (3, 3, 9, 3)), ("base", 128, (3, 3, 27, 3))):
        zoo[f"convnext_{size}"] = partial(_convnext, width=width, depths=depths, batch_norm=False)
        zoo[f"convnext_{size}_bnu"] = partial(_convnext, width=width, depths=depths, batch_norm=True)
    large = (64, 128, 128, 256, 256, 512)
    for size, dim, depth, stem in (
        ("ti", 192, 12, (24, 48, 96, 192)),
        ("s", 384, 12, (48, 96, 192, 384)),
        ("b", 768, 12, large),
        ("l", 1024, 14, large),
    ):
        for variant in ("", "standard_"):
            zoo[f"{variant}simple_vit_{size}_patch16_224"] = partial(_vit, dim=dim, depth=depth, patch=16)
            zoo[f"{variant}vitc_{size}_patch1_14"] = partial(_vit, dim=dim, depth=depth - 1, patch=1, stem=stem)
    return zoo


_ARCHITECTURES = _architectures()


def _run(
    entry_point: str, lookup: Lookup, encoded: Tensor, num_classes: int, *, detach: bool = False
) -> tuple[Tensor, list[Tensor]]:
    net = _Network(lookup, bcos=is_bcos(entry_point), detach=detach)
    return _ARCHITECTURES[entry_point](net, encoded, num_classes), net.offsets
