"""B-cos layers. Everything here is linear in its input while :func:`bcos_core.explanation_mode` is on."""

from .activation import GELU, Hardswish, SiLU
from .attention import MultiheadAttention, SelfAttention
from .conv import BcosConv2d
from .detachable import Detachable
from .encoding import InverseEncoding, Standardise
from .exponent import Exponent
from .layer import BcosLayer, layer_exponents, learn_exponents, learnt_exponents, set_exponent
from .linear import BcosLinear
from .logit import LogitLayer
from .norm import (
    BatchNorm2d,
    BatchNormUncentered2d,
    GroupNorm2d,
    GroupNormUncentered2d,
    InstanceNorm2d,
    InstanceNormUncentered2d,
    LayerNorm,
    LayerNorm2d,
    LayerNormUncentered2d,
    PositionNorm2d,
    PositionNormUncentered2d,
)
from .position import Constant, SinCosPosition
from .synchronise import synchronise_batch_norms
from .time import TimeChannel

__all__ = [
    "GELU",
    "BatchNorm2d",
    "BatchNormUncentered2d",
    "BcosConv2d",
    "BcosLayer",
    "BcosLinear",
    "Constant",
    "Detachable",
    "Exponent",
    "GroupNorm2d",
    "GroupNormUncentered2d",
    "Hardswish",
    "InstanceNorm2d",
    "InstanceNormUncentered2d",
    "InverseEncoding",
    "LayerNorm",
    "LayerNorm2d",
    "LayerNormUncentered2d",
    "LogitLayer",
    "MultiheadAttention",
    "PositionNorm2d",
    "PositionNormUncentered2d",
    "SelfAttention",
    "SiLU",
    "SinCosPosition",
    "Standardise",
    "TimeChannel",
    "layer_exponents",
    "learn_exponents",
    "learnt_exponents",
    "set_exponent",
    "synchronise_batch_norms",
]
