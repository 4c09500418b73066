"""B-cos layers. Everything here is linear in its input while :func:`bcos_core.explanation_mode` is on."""

from .conv import BcosConv2d
from .detachable import Detachable
from .encoding import InverseEncoding, Standardise
from .linear import BcosLinear
from .logit import LogitLayer
from .norm import (
    BatchNorm2d,
    BatchNormUncentered2d,
    GroupNormUncentered2d,
    InstanceNormUncentered2d,
    LayerNormUncentered2d,
    PositionNormUncentered2d,
)
from .synchronise import synchronise_batch_norms

__all__ = [
    "BatchNorm2d",
    "BatchNormUncentered2d",
    "BcosConv2d",
    "BcosLinear",
    "Detachable",
    "GroupNormUncentered2d",
    "InstanceNormUncentered2d",
    "InverseEncoding",
    "LayerNormUncentered2d",
    "LogitLayer",
    "PositionNormUncentered2d",
    "Standardise",
    "synchronise_batch_norms",
]
