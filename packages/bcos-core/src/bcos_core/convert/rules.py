"""What becomes of each kind of module: an ordered table from kinds to builders.

Classes of other libraries stand in it by their qualified names: nothing here imports them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from bcos_core import nn as bnn

from .first import EncodedConv2d, EncodedLinear, encoded_weight


@dataclass(frozen=True)
class Options:
    """How to convert; see :func:`bcos_core.bcosify`."""

    b: float
    keep_biases: bool
    average: bool
    unit_weights: bool
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


@dataclass(frozen=True)
class Context:
    """What a builder knows besides the module, and what it may ask for."""

    options: Options
    sees_encoded: bool
    """Whether the module is a first layer: its weights are for the image, and become weights for the encoded one."""
    innermost: int | None
    """Channels that are innermost among a first layer's features; see :func:`encoded_weight`."""
    convert: Callable[[nn.Module, str], nn.Module]
    """Convert a part of the module, by its name."""
    keep: Callable[[nn.Module, str, str], nn.Module]
    """Keep a part of the module, by its name, for a reason; its bias goes if biases do."""


class Refused(Exception):
    """The module cannot be converted; the message says why."""


Builder = Callable[[Any, Context], tuple[nn.Module, str]]
"""From a module to what it becomes, itself if it is kept, and what there is to say about that."""


def find_rule(module: nn.Module) -> Builder | None:
    """The builder for a module; None if the table does not know its kind."""
    return next((builder for kind, builder in RULES if _is(module, kind)), None)


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is converted, kept or refused as a whole, so that nobody asks what its forward calls."""
    return find_rule(module) is not None or (_is_torchs(module) and not isinstance(module, _CONTAINERS))


def is_layer(module: nn.Module) -> bool:
    """Whether a module becomes a B-cos layer."""
    return find_rule(module) in (_convolution, _linear)


def is_variant_of_layer(module: nn.Module) -> bool:
    """Whether a module is a convolution or linear layer by inheritance with its own forward (timm's Conv2dSame)."""
    return isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)) and not is_leaf(module)


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def refuse_unknown(module: nn.Module) -> str:
    """Why a module of PyTorch's that no rule knows is refused."""
    return _REASONS.get(type(module).__name__, "not known to be linear in explanation mode, whatever is held constant")


def with_bias(module: nn.Module, options: Options, reason: str) -> str:
    """The reason for which a module stays, and what becomes of its bias: gone if biases go."""
    notes = _bias_notes(module, options)
    if notes and not options.keep_biases:
        module.bias = None  # type: ignore[assignment]
    return "; ".join([reason, *notes])


def known_constants(module: nn.Module) -> tuple[str, ...]:
    """Parameters of a module that its forward adds or puts beside its input, where it could not be followed."""
    return _CONSTANTS.get(_qualified_name(module), ())


def innermost_channels(network: Any, path: str) -> int | None:
    """Channels that are innermost among the features of a network's first layer, where its forward cannot tell."""
    if has_known_forward(network) and path == "embed":
        return network.embed.in_features // network.patch**2
    return None


def has_known_forward(module: nn.Module) -> bool:
    """Whether a module's forward, though it cannot be followed, is known: patches, positions, blocks, a mean."""
    return _qualified_name(module) == "bcos_vision.models.vit.VisionTransformer"


def _qualified_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _is_torchs(module: nn.Module) -> bool:
    name = type(module).__module__
    return name.startswith(("torch.nn.", "torch.ao.nn.", "bcos_core.nn.")) and type(module) is not nn.Module


def _is(module: nn.Module, kind: type[nn.Module] | str) -> bool:
    if isinstance(kind, str):
        return _qualified_name(module) == kind
    if not isinstance(module, kind):
        return False
    # a subclass that computes something else is not of the kind
    methods = ("forward", "_conv_forward")
    return all(getattr(type(module), name, None) is getattr(kind, name, None) for name in methods)


# --- builders -------------------------------------------------------------------------------------------------------


def _kept(reason: str = "") -> Builder:
    return lambda module, _: (module, reason)


def _convolution(module: nn.Conv2d, context: Context) -> tuple[nn.Module, str]:
    _check_replaceable(module)
    if context.sees_encoded and module.groups != 1:
        raise Refused(f"the first layer sees twice the channels, which needs groups=1, got groups={module.groups}")
    with torch.device("meta"):
        new = (EncodedConv2d if context.sees_encoded else bnn.BcosConv2d)(
            module.in_channels * (2 if context.sees_encoded else 1),
            module.out_channels,
            module.kernel_size,  # type: ignore[arg-type] - a pair
            module.stride,  # type: ignore[arg-type]
            module.padding,  # type: ignore[arg-type]
            module.dilation,  # type: ignore[arg-type]
            module.groups,
            module.padding_mode,
            b=context.options.b,
            unit_weights=context.options.unit_weights,
        )
    return _with_weight(new, module, context)


def _linear(module: nn.Linear, context: Context) -> tuple[nn.Module, str]:
    _check_replaceable(module)
    with torch.device("meta"):
        new = (EncodedLinear if context.sees_encoded else bnn.BcosLinear)(
            module.in_features * (2 if context.sees_encoded else 1),
            module.out_features,
            b=context.options.b,
            unit_weights=context.options.unit_weights,
        )
    return _with_weight(new, module, context)


def _with_weight(new: bnn.BcosLayer, module: nn.Conv2d | nn.Linear, context: Context) -> tuple[nn.Module, str]:
    notes = []
    options = context.options
    if context.sees_encoded:
        weight = encoded_weight(module.weight, options.mean, options.std, innermost=context.innermost)
        new.weight = nn.Parameter(weight, requires_grad=module.weight.requires_grad)
        notes.append("sees [x, 1-x]" + ("" if options.mean is None else "; mean and std folded into its weights"))
    else:
        new.weight = module.weight  # type: ignore[assignment] - a parameter, as it is of a leaf
    new.bias = module.bias if options.keep_biases else None  # type: ignore[assignment]
    notes += _bias_notes(module, options)
    if options.unit_weights:
        notes.append("norms of its filters lost")
    return new, "; ".join(notes)


def _bias_notes(module: nn.Module, options: Options) -> list[str]:
    if getattr(module, "bias", None) is None:
        return []
    return ["bias kept" if options.keep_biases else "bias dropped"]


def _batch_norm(module: nn.BatchNorm2d | nn.SyncBatchNorm, context: Context) -> tuple[nn.Module, str]:
    _check_replaceable(module)
    mean, var = module.running_mean, module.running_var
    if mean is None or var is None:
        raise Refused("it keeps no statistics: those of the batch mix inputs")
    keep = context.options.keep_biases
    momentum = 0.1 if module.momentum is None else module.momentum
    with torch.device("meta"):
        new = bnn.BatchNormUncentered2d(
            module.num_features, eps=module.eps, momentum=momentum, affine=module.affine or keep
        )
    new.running_var = var
    assert module.num_batches_tracked is not None
    new.num_batches_tracked = module.num_batches_tracked
    if module.weight is not None:
        new.weight = module.weight
    elif keep:
        new.weight = nn.Parameter(torch.ones_like(var))
    if keep:
        factor = torch.rsqrt(var.double() + module.eps)
        factor = factor if module.weight is None else factor * module.weight.detach().double()
        bias = 0 if module.bias is None else module.bias.detach().double()
        trained = module.bias is None or module.bias.requires_grad
        new.bias = nn.Parameter((bias - factor * mean.double()).to(mean.dtype), requires_grad=trained)
    note = "mean folded into the bias" if keep else "mean and bias dropped"
    return new, note + ("; momentum 0.1 in place of a cumulative average" if module.momentum is None else "")


def _group_norm(module: nn.GroupNorm, context: Context) -> tuple[nn.Module, str]:
    _check_replaceable(module)
    with torch.device("meta"):
        new = bnn.GroupNorm2d(module.num_groups, module.num_channels, eps=module.eps, affine=module.affine)
    return _with_affine(new, module, context)


def _instance_norm(module: nn.InstanceNorm2d, context: Context) -> tuple[nn.Module, str]:
    _check_replaceable(module)
    if module.track_running_stats:
        raise Refused("it keeps running statistics, which no norm here does for single images")
    with torch.device("meta"):
        new = bnn.InstanceNorm2d(module.num_features, eps=module.eps, affine=module.affine)
    return _with_affine(new, module, context)


def _layer_norm(module: nn.LayerNorm, context: Context) -> tuple[nn.Module, str]:
    return _layer_norm_as(bnn.LayerNorm, module, context)


def _position_norm(module: nn.LayerNorm, context: Context) -> tuple[nn.Module, str]:
    return _layer_norm_as(bnn.PositionNorm2d, module, context)


def _layer_norm_as(
    kind: type[bnn.LayerNorm] | type[bnn.PositionNorm2d], module: nn.LayerNorm, context: Context
) -> tuple[nn.Module, str]:
    _check_replaceable(module)
    if len(module.normalized_shape) != 1:
        raise Refused(f"it is over {len(module.normalized_shape)} dimensions together, not over the last alone")
    with torch.device("meta"):
        new = kind(module.normalized_shape[0], eps=module.eps, affine=module.elementwise_affine)
    return _with_affine(new, module, context)


def _with_affine(new: Any, module: Any, context: Context) -> tuple[nn.Module, str]:
    if module.weight is not None:
        new.weight = module.weight
    if module.bias is not None and context.options.keep_biases:
        new.bias = module.bias
    return new, "; ".join(["centred still, which is linear", *_bias_notes(module, context.options)])


def _linear_as_it_is(reason: str) -> Builder:
    return lambda module, context: (module, with_bias(module, context.options, reason))


def _gelu(module: nn.GELU, _: Context) -> tuple[nn.Module, str]:
    return bnn.GELU(module.approximate), "its gate is a constant in explanation mode"  # type: ignore[arg-type]


def _gate(kind: Callable[[], nn.Module]) -> Builder:
    return lambda _module, _context: (kind(), "its gate is a constant in explanation mode")


def _max_pool(module: nn.MaxPool2d, context: Context) -> tuple[nn.Module, str]:
    if not context.options.average:
        return module, "piecewise linear"
    if module.return_indices:
        raise Refused("an average has no indices (return_indices=True)")
    if module.dilation not in (1, (1, 1)):
        raise Refused(f'averages have no dilation, got {module.dilation}; pooling="keep" leaves it')
    new = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
    return new, "averages, not maxima"


def _adaptive_max_pool(module: nn.AdaptiveMaxPool2d, context: Context) -> tuple[nn.Module, str]:
    if not context.options.average:
        return module, "piecewise linear"
    if module.return_indices:
        raise Refused("an average has no indices (return_indices=True)")
    return nn.AdaptiveAvgPool2d(module.output_size), "averages, not maxima"


def _attention(module: nn.MultiheadAttention, context: Context) -> tuple[nn.Module, str]:
    _check_replaceable(module)
    if not module._qkv_same_embed_dim:
        raise Refused("keys or values have features of their own: only self-attention is known")
    if module.bias_k is not None or module.add_zero_attn:
        raise Refused("it attends to tokens of its own (add_bias_kv, add_zero_attn)")
    with torch.device("meta"):
        new = bnn.MultiheadAttention(
            module.embed_dim,
            module.num_heads,
            nn.Identity(),
            dropout=module.dropout,
            batch_first=module.batch_first,
        )
    new.to_qkv.weight = module.in_proj_weight
    new.to_qkv.bias = module.in_proj_bias
    return _with_projections(new, new.to_qkv, "in_proj", module.out_proj, "out_proj", context)


def _timm_attention(module: Any, context: Context) -> tuple[nn.Module, str]:
    _check_replaceable(module)
    parts = ("q_norm", "k_norm", "norm")
    if any(not isinstance(getattr(module, part, nn.Identity()), nn.Identity) for part in parts):
        raise Refused("it normalises queries, keys or heads")
    dim, heads = module.qkv.in_features, module.num_heads
    if dim % heads or module.qkv.out_features != 3 * dim or module.proj.in_features != dim:
        raise Refused("its heads have features of their own number")
    with torch.device("meta"):
        new = bnn.SelfAttention(dim, heads, nn.Identity(), dropout=module.attn_drop.p)
    new, note = _with_projections(new, module.qkv, "qkv", module.proj, "proj", context)
    if module.proj_drop.p:
        new.to_out = nn.Sequential(new.to_out, module.proj_drop)
    return new, note


def _own_attention(module: bnn.SelfAttention, context: Context) -> tuple[nn.Module, str]:
    return _with_projections(module, module.to_qkv, "to_qkv", module.to_out, "to_out", context)


def _with_projections(
    new: Any, qkv: nn.Module, qkv_name: str, out: nn.Module, out_name: str, context: Context
) -> tuple[Any, str]:
    new.to_qkv = context.keep(qkv, qkv_name, "queries, keys and values stay a plain linear map")
    new.to_out = context.convert(out, out_name)
    return new, "queries and keys are constants in explanation mode"


def _norm_and_activation(module: Any, context: Context) -> tuple[nn.Module, str]:
    """A batch norm of timm's that has dropout and activation in it."""
    norm, note = _batch_norm(module, context)
    rest = [context.convert(getattr(module, name), name) for name in ("drop", "act")]
    return nn.Sequential(norm, *(part for part in rest if not isinstance(part, nn.Identity))), note


def _check_replaceable(module: nn.Module) -> None:
    if isinstance(module, LazyModuleMixin):
        raise Refused("its shape is not known yet: run the model once")
    if parametrize.is_parametrized(module):
        raise Refused("it is parametrised (torch.nn.utils.parametrize): remove the parametrisation, keeping its values")
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        raise Refused("it has hooks (weight_norm, say), which a new module would lack: remove them")


_PLAIN = "no B-cos layer of this kind: stays a linear map"
_AFFINE = "affine in evaluation; its mean and bias stay"

RULES: tuple[tuple[type[nn.Module] | str, Builder], ...] = (
    # layers
    (nn.Conv2d, _convolution),
    (nn.Linear, _linear),
    (nn.modules.linear.NonDynamicallyQuantizableLinear, _linear),
    (nn.Conv1d, _linear_as_it_is(_PLAIN)),
    (nn.Conv3d, _linear_as_it_is(_PLAIN)),
    (nn.ConvTranspose1d, _linear_as_it_is(_PLAIN)),
    (nn.ConvTranspose2d, _linear_as_it_is(_PLAIN)),
    (nn.ConvTranspose3d, _linear_as_it_is(_PLAIN)),
    # norms
    (bnn.BatchNorm2d, _batch_norm),
    (nn.BatchNorm2d, _batch_norm),
    (nn.SyncBatchNorm, _batch_norm),
    ("timm.layers.norm_act.BatchNormAct2d", _norm_and_activation),
    (nn.BatchNorm1d, _kept(_AFFINE)),
    (nn.BatchNorm3d, _kept(_AFFINE)),
    (nn.GroupNorm, _group_norm),
    ("timm.layers.norm.GroupNorm", _group_norm),
    ("timm.layers.norm.GroupNorm1", _group_norm),
    (nn.InstanceNorm2d, _instance_norm),
    (nn.LayerNorm, _layer_norm),
    ("timm.layers.norm.LayerNorm", _layer_norm),
    ("torchvision.models.convnext.LayerNorm2d", _position_norm),
    ("timm.layers.norm.LayerNorm2d", _position_norm),
    *(
        (kind, _linear_as_it_is("its variance is a constant in explanation mode"))
        for kind in (
            *(bnn.GroupNorm2d, bnn.LayerNorm2d, bnn.InstanceNorm2d, bnn.PositionNorm2d, bnn.LayerNorm),
            *(bnn.BatchNormUncentered2d, bnn.GroupNormUncentered2d, bnn.LayerNormUncentered2d),
            *(bnn.InstanceNormUncentered2d, bnn.PositionNormUncentered2d),
        )
    ),
    # activations
    *((kind, _kept("piecewise linear")) for kind in (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU)),
    (nn.GELU, _gelu),
    ("timm.layers.activations.GELU", _gate(bnn.GELU)),
    (nn.SiLU, _gate(bnn.SiLU)),
    (nn.Hardswish, _gate(bnn.Hardswish)),
    *((kind, _kept("its gate is a constant in explanation mode")) for kind in (bnn.GELU, bnn.SiLU, bnn.Hardswish)),
    # attention
    (nn.MultiheadAttention, _attention),
    (bnn.SelfAttention, _own_attention),
    ("timm.layers.attention.Attention", _timm_attention),
    ("timm.models.vision_transformer.Attention", _timm_attention),
    # pooling
    (nn.MaxPool2d, _max_pool),
    (nn.AdaptiveMaxPool2d, _adaptive_max_pool),
    *(
        (kind, _kept("piecewise linear"))
        for kind in (nn.MaxPool1d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool3d)
    ),
    *(
        (kind, _kept("linear"))
        for kind in (
            *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
            *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
            *(nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.Upsample),
            *(nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
            *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.CircularPad2d),
            "torchvision.ops.misc.Permute",
            "einops.layers.torch.Rearrange",
        )
    ),
    *(
        (kind, _kept("nothing in evaluation"))
        for kind in (
            *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
            *(nn.FeatureAlphaDropout, "torchvision.ops.stochastic_depth.StochasticDepth"),
            "timm.layers.drop.DropPath",
        )
    ),
    # constants that are known to explanations
    *((kind, _kept("a constant of the remainder")) for kind in (bnn.LogitLayer, bnn.SinCosPosition, bnn.TimeChannel)),
    (bnn.Constant, _kept("a constant of the remainder")),
)

_BOUNDED = "bounded: where it saturates, its value is a constant that no input is responsible for"
_CONSTANTS = {
    "torchvision.models.vision_transformer.VisionTransformer": ("class_token",),
    "torchvision.models.vision_transformer.Encoder": ("pos_embedding",),
    "timm.models.vision_transformer.VisionTransformer": ("cls_token", "reg_token", "pos_embed"),
}
_REASONS = {
    **dict.fromkeys(("ReLU6", "Hardtanh", "Hardsigmoid", "Sigmoid", "Tanh", "Softsign", "Threshold"), _BOUNDED),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Softmax2d", "Softmin"), "not linear: train and explain logits"),
    **dict.fromkeys(
        ("TransformerEncoderLayer", "TransformerEncoder", "TransformerDecoderLayer", "Transformer"),
        "its fast path reads the parameters of its parts: write the block with nn.MultiheadAttention",
    ),
}
