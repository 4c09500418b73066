"""An ordinary network made into a B-cos network that keeps what it learned."""

import copy
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bcos_core.explanation.contribution import EncodingModel
from bcos_core.explanation.mode import evaluating, uncompiled
from bcos_core.functional import check_exponent
from bcos_core.nn import BcosLayer, Constant, InverseEncoding, LogitLayer, Standardise

from . import rules
from .forward import Followed, follow, join, trace
from .report import Action, ConversionReport, Converted
from .rules import Context, Options, Refused

_DEEP = 4
"""B-cos layers in a row that need a norm: cosines near 0.1 leave a thousandth of an answer."""


class ConvertedModel(nn.Module):
    """Encoding and network: ``model(x) == model.network(model.encode(x))``.

    Args:
        encoding: From images in [0, 1] to what the first layer sees, [x, 1-x].
        network: From encoded images to logits.
    """

    def __init__(self, encoding: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.encoding = encoding
        self.network = network

    def encode(self, x: Float[Tensor, "n c *shape"]) -> Float[Tensor, "n c2 *shape"]:
        """What the first layer sees."""
        return self.encoding(x)

    def forward(self, x: Float[Tensor, "n c *shape"]) -> Tensor:
        return self.network(self.encode(x))


def bcosify(
    model: nn.Module,
    *,
    b: float = 2.0,
    biases: Literal["drop", "keep"] = "drop",
    pooling: Literal["average", "keep"] = "average",
    unit_weights: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    logit_bias: float = 0.0,
    strict: bool = True,
) -> tuple[nn.Module, ConversionReport]:
    """Make a B-cos network of a plain one (Arya et al., NeurIPS 2024, arXiv 2411.00715, sec. 3).

    Convolutions and linear layers become B-cos layers with the same weights; the first sees the encoded input [x, 1-x]
    with weights that hold the standardisation, so that the new model takes images in [0, 1] itself. Norms and gates
    become ones that explanations can follow. At ``b=1`` with ``biases="keep"`` and ``pooling="keep"`` it answers what
    the plain network does to standardised images; the other settings change it, and fine-tuning makes up for that
    (B from 1 upwards by :func:`bcos_core.nn.set_exponent`, say).

    Known are the layers of torchvision's and timm's ResNets, VGGs, DenseNets, ConvNeXts and ViTs and of this project's
    plain networks, and any model built of such layers. What the forward of a model calls itself (``F.gelu``) is looked
    for as well, and refused where it would make explanations inexact.

    Args:
        model: A plain network; it stays as it is. A model that standardises its images itself (``model.encoding`` is a
            :class:`bcos_core.nn.Standardise`) keeps its type and gets another encoding.
        b: Exponent B of all layers, at least 1.
        biases: Whether biases and means of norms are dropped, for which no input is responsible, or kept (those of
            BatchNorm1d and 3d always are; the report says so).
        pooling: Whether maxima become averages, or stay.
        unit_weights: Divide each filter by its norm, as B-cos networks that are trained from scratch do. The norms, and
            with them what ``b=1`` would preserve, are lost.
        mean: Mean of each channel that the plain network expects to have been subtracted from its images; with ``std``.
            None if it takes images in [0, 1] as they are: its weights for 1-x then start at zero, [w, 0], which is the
            only choice that leaves its answers exactly as they were where images are padded with zeros.
        std: Standard deviation of each channel that it expects to have been divided by.
        logit_bias: Constant that is added to all logits, if not zero.
        strict: Whether something that cannot be converted is an error; if not, it is left as it is, and reported.

    Returns:
        The B-cos network, of the model's own type if that encodes its images, else a :class:`ConvertedModel`; in the
        training mode of the model; and what was replaced, kept and refused.

    Raises:
        ValueError: If an option is out of range, the model has nothing to convert or is converted already, its first
            layer cannot see an encoded input, or, unless ``strict=False``, anything in it cannot be converted.

    Example:
        >>> plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> model, report = bcosify(plain, b=1, biases="keep", mean=[0.5] * 3, std=[0.25] * 3)
        >>> images = torch.rand(2, 3, 16, 16)
        >>> torch.allclose(model(images), plain((images - 0.5) / 0.25), atol=1e-6)
        True
        >>> print(report)
        path  kind               action    into           reason
        0     Conv2d             replaced  EncodedConv2d  sees [x, 1-x]; mean and std folded into its weights; bias kept
        1     ReLU               kept                     piecewise linear
        2     AdaptiveAvgPool2d  kept                     linear
        3     Flatten            kept                     linear
        4     Linear             replaced  BcosLinear     bias kept
        2 replaced, 3 kept, 0 refused
    """
    options = _options(b, biases, pooling, unit_weights, mean, std)
    if not math.isfinite(logit_bias):
        raise ValueError(f"logit_bias: expected a finite number, got {logit_bias}")
    model = _plain(model)
    encoded = False
    if isinstance(model, EncodingModel):
        options, encoded = _of_encoding(model, options)
    model = copy.deepcopy(model)
    network, prefix = (model.network, "network") if isinstance(model, EncodingModel) else (model, "")
    if not any(rules.is_layer(module) for _, module in _parts(network)):
        raise ValueError(f"model: {type(model).__name__} has no Conv2d or Linear, nothing to make B-cos")
    conversion = _Conversion(options, encoded)
    network = conversion.run(network)
    entries = tuple(replace(e, path=join(prefix, e.path)) for e in conversion.entries)
    report = ConversionReport(entries, _notes(network, b))
    _raise_refused(report, strict, [join(prefix, path) for path in conversion.needed])
    if logit_bias:
        training, logits = network.training, LogitLayer(bias=logit_bias)
        network = nn.Sequential(OrderedDict(network=network, logits=logits))
        network.training = logits.training = training
    if not isinstance(model, EncodingModel):
        converted = ConvertedModel(InverseEncoding(), network)
        converted.training = converted.encoding.training = model.training
        return converted, report
    model.network = network
    if not encoded:
        model.encoding = InverseEncoding()
    description = getattr(model, "description", None)
    if isinstance(description, dict):  # of how to build the model again, which then includes its conversion
        chosen = {"b": b, "biases": biases, "pooling": pooling, "unit_weights": unit_weights}
        chosen |= {"mean": mean, "std": std, "logit_bias": logit_bias, "strict": strict}
        description.setdefault("conversion", chosen)
    return model, report


def _options(
    b: float, biases: str, pooling: str, unit_weights: bool, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Options:
    if not isinstance(b, (int, float)):
        raise ValueError(f"b: expected a number >= 1, got {b!r}")
    check_exponent(b)
    if biases not in ("drop", "keep"):
        raise ValueError(f'biases: expected "drop" or "keep", got {biases!r}')
    if pooling not in ("average", "keep"):
        raise ValueError(f'pooling: expected "average" or "keep", got {pooling!r}')
    if (mean is None) != (std is None):
        raise ValueError("mean, std: expected both or neither")
    if mean is not None and std is not None:
        valid = len(mean) == len(std) > 0 and all(map(math.isfinite, mean)) and all(0 < s < math.inf for s in std)
        if not valid:
            raise ValueError(
                f"mean, std: expected one value each for every channel, std > 0; got {list(mean)}, {list(std)}"
            )
    return Options(
        b=b,
        keep_biases=biases == "keep",
        average=pooling == "average",
        unit_weights=unit_weights,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
    )


def _plain(model: nn.Module) -> nn.Module:
    """The model itself, uncompiled, if it is one that can be converted."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    model = uncompiled(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("model: expected a module of Python, got a scripted one, whose parts cannot be replaced")
    for path, module in model.named_modules():
        if isinstance(module, BcosLayer):
            raise ValueError(f"model: expected a plain network, but {path or 'it'} is a {type(module).__name__}")
    return model


def _of_encoding(model: nn.Module, options: Options) -> tuple[Options, bool]:
    """Options with the mean and standard deviation of the model's own encoding, and whether it is [x, 1-x] already."""
    encoding = getattr(model, "encoding", None)
    if isinstance(encoding, nn.Identity):
        return options, False
    if isinstance(encoding, (Standardise, InverseEncoding)):
        if options.mean is not None:
            raise ValueError(f"mean, std: the model encodes its images itself, by its {type(encoding).__name__}")
        if isinstance(encoding, InverseEncoding):
            return options, True
        mean, std = (tuple(v.flatten().tolist()) for v in (encoding.mean, encoding.std))
        return Options(**{**vars(options), "mean": mean, "std": std}), False
    found = "none" if encoding is None else type(encoding).__name__
    raise ValueError(f"model.encoding: expected Standardise, InverseEncoding or Identity of bcos_core.nn, got {found}")


def _notes(network: nn.Module, b: float) -> tuple[str, ...]:
    """What no single module can tell."""
    depth = sum(isinstance(module, BcosLayer) for module in network.modules())
    has_norm = any("Norm" in type(module).__name__ for module in network.modules())
    if b == 1 or has_norm or depth < _DEEP:
        return ()
    return (
        f"{depth} B-cos layers and no norm: at B = {b:g} each multiplies its answers by |cos|^{b - 1:g}, so that they "
        "die out from layer to layer, to zeros perhaps; networks with norms (vgg16_bn for vgg16, say) keep their scale",
    )


def _raise_refused(report: ConversionReport, strict: bool, needed: Sequence[str]) -> None:
    """One line about what was refused, if that is an error: the first layers, which are needed, always are."""
    refused = [e for e in report.of("refused") if strict or e.path in needed]
    if not refused:
        return
    first, others = min(refused, key=lambda e: e.path not in needed), len(refused) - 1
    more = f" (and {others} more)" if others else ""
    way_out = "" if first.path in needed else "; strict=False leaves what cannot be converted as it is"
    raise ValueError(f"{first.path or 'model'}: {first.kind} cannot be converted: {first.reason}{more}{way_out}")


class _Conversion:
    """One walk over a network's modules, which it changes; paths are those in the network.

    Attributes:
        entries: What became of each part.
        needed: Paths of what must not be refused: what the image meets up to the first layers.
    """

    def __init__(self, options: Options, encoded: bool) -> None:
        self.entries: list[Converted] = []
        self.needed: set[str] = set()
        self._options, self._encoded = options, encoded
        self._done: dict[int, tuple[nn.Module, nn.Module]] = {}  # holds the originals, so that no id is used again
        self._leaves: set[int] = set()
        self._first: dict[str, int | None] = {}
        self._followed = Followed()

    def run(self, network: nn.Module) -> nn.Module:
        """The network, converted."""
        with evaluating(network):
            self._followed = follow(network, rules.is_leaf, rules.is_layer)
        if not self._encoded:
            self._first = self._first_layers(network)
            self.entries += self._followed.obstacles
            self.needed = {*self._first, *(e.path for e in self._followed.obstacles)}
        network = self._convert(network, "")
        self.entries += self._followed.calls
        for path, why in self._followed.lost.items():
            module = network.get_submodule(path)
            if not rules.has_known_forward(module):
                reason = f"its forward could not be followed ({why}): bcos-vision check says whether it adds up"
                self.entries.append(Converted(path, type(module).__name__, "kept", "", reason))
        self._compare(network)
        self._find_originals(network)
        for path in sorted(self._followed.constants - self._followed.factors):
            owner, _, name = path.rpartition(".")
            parametrize.register_parametrization(network.get_submodule(owner), name, Constant())
        return network

    def _first_layers(self, network: nn.Module) -> dict[str, int | None]:
        """Paths of the layers that see the encoded input, and how many channels are innermost among their features."""
        if self._followed.first is not None:
            return dict.fromkeys(self._followed.first)
        path, layer = next((p, m) for p, m in _parts(network) if rules.is_layer(m) or rules.is_variant_of_layer(m))
        if not rules.is_layer(layer):  # a later one would get weights for channels that it does not see
            reason = "the image meets it first, and its forward is its own"
            self._followed.obstacles.append(Converted(path, type(layer).__name__, "refused", "", reason))
            return {}
        return {path: rules.innermost_channels(network, path)}

    def _convert(self, module: nn.Module, path: str) -> nn.Module:
        """What becomes of a module and of what it is made of."""
        if id(module) in self._done:
            return self._done[id(module)][1]
        place = len(self.entries)
        new, builder = module, rules.find_rule(module)
        kind = type(module).__name__
        if builder is not None:
            try:
                if path in self._followed.read:
                    raise Refused("a forward outside of it reads its parameters")
                new, reason = builder(module, self._context(path))
                action: Action = "kept" if new is module else "replaced"
            except Refused as refusal:
                action, reason = "refused", str(refusal)
            into = type(new).__name__ if action == "replaced" else ""
            self.entries.insert(place, Converted(path, kind, action, into, reason))
        elif rules.is_leaf(module):
            self.entries.append(Converted(path, kind, "refused", "", rules.refuse_unknown(module)))
        else:
            self._describe_parameters(module, path)
            for name, child in module._modules.items():
                if child is not None:
                    module._modules[name] = self._convert(child, join(path, name))
        if rules.is_leaf(module):
            self._leaves.add(id(new))
        if new is not module:
            new.train(module.training)
        if getattr(new, "inplace", None) is True:
            new.inplace = False  # type: ignore[assignment] - a plain flag
        self._done[id(module)] = (module, new)
        return new

    def _context(self, path: str) -> Context:
        def keep(part: nn.Module, name: str, reason: str) -> nn.Module:
            reason = rules.with_bias(part, self._options, reason)
            self.entries.append(Converted(join(path, name), type(part).__name__, "kept", "", reason))
            return part

        return Context(
            options=self._options,
            sees_encoded=path in self._first,
            innermost=self._first.get(path),
            convert=lambda part, name: self._convert(part, join(path, name)),
            keep=keep,
        )

    def _describe_parameters(self, module: nn.Module, path: str) -> None:
        """What a module's own parameters are to its forward: the constants among them are found here if not yet."""
        followed = self._followed
        known = rules.known_constants(module) if path not in followed.seen else ()
        followed.constants |= {join(path, name) for name in known if getattr(module, name, None) is not None}
        for name in (*module._parameters, *module._buffers):
            full, value = join(path, name), getattr(module, name)
            if value is None or (name in module._buffers and full not in followed.constants | followed.factors):
                continue
            action: Action = "kept"
            if full in followed.constants & followed.factors:
                action, reason = "refused", "it is added and multiplied: no constant of its own"
            elif full in followed.constants:
                reason = "a constant, which explanations count in the remainder"
            elif full in followed.factors:
                reason = "a factor: linear"
            elif path in followed.seen:
                reason = "neither added to anything nor a factor"
            else:
                reason = "what the forward does with it is not known"
            self.entries.append(Converted(full, type(value).__name__, action, "", reason))

    def _compare(self, network: nn.Module) -> None:
        """Whether the network still calls what the plain one called."""
        if not self._followed.trace:
            return
        with evaluating(network):
            calls = trace(network, lambda m: id(m) in self._leaves)
        if calls != self._followed.trace:
            reason = "its forward takes another course with converted modules: does it ask for their class?"
            self.entries.append(Converted("", type(network).__name__, "refused", "", reason))

    def _find_originals(self, network: nn.Module) -> None:
        """Plain lists of modules, and the like: they still hold what was replaced."""
        replaced = {id(old) for old, new in self._done.values() if new is not old}
        for path, module in _parts(network):
            for name, value in vars(module).items():
                values = value.values() if isinstance(value, dict) else value
                held = values if isinstance(value, (list, tuple, dict)) else [value]
                if any(id(item) in replaced for item in held):
                    reason = (
                        f"its {name} holds modules out of sight of torch: make it an nn.ModuleList or nn.ModuleDict"
                    )
                    self.entries.append(Converted(path, type(module).__name__, "refused", "", reason))


def _parts(network: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules in the order of definition, those that are converted as a whole without what they are made of."""
    yield path, network
    if not rules.is_leaf(network):
        for name, child in network.named_children():
            yield from _parts(child, join(path, name))
