"""Checkpoints of others, as they are: the public B-cos v2 model zoo's, and torchvision's for the standard CNNs.

A layout is a rule from our names to theirs; the architectures differ from them in little but these names.
"""

import pathlib
import re
from collections.abc import Callable, Mapping

from bcos_core.nn import BatchNormUncentered2d, BcosConv2d, BcosLinear
from bcos_core.run.checkpoint import check_state, read_shapes
from torch import Tensor, nn

from .convnext import ConvNeXt
from .vit import VisionTransformer

_Renaming = tuple[tuple[str, str], ...]
"""Patterns at the beginning of one of our names, and what stands there in theirs; the first that fits counts."""

_VIT: _Renaming = (
    (r"stem\.", "to_patch_embedding.conv_stem."),
    (r"embed\.", "to_patch_embedding.linear."),
    (r"blocks\.(\d+)\.norm1\.", r"transformer.encoder_\1.attn.norm."),
    (r"blocks\.(\d+)\.attention\.", r"transformer.encoder_\1.attn."),
    (r"blocks\.(\d+)\.norm2\.", r"transformer.encoder_\1.ff.net.norm."),
    (r"blocks\.(\d+)\.expand\.", r"transformer.encoder_\1.ff.net.linear1."),
    (r"blocks\.(\d+)\.project\.", r"transformer.encoder_\1.ff.net.linear2."),
    (r"norm\.", "linear_head.norm."),
    (r"head\.", "linear_head.linear."),
)
_CONVNEXT_BCOS: _Renaming = (
    *((rf"features\.0\.{k}\.", f"features.{k}.") for k in (0, 1)),
    *(
        (rf"features\.{k}\.(\d+)\.{ours}", rf"features.{k + 1}.\1.{theirs}")
        for k in (1, 3, 5, 7)
        for ours, theirs in (
            ("depthwise", "block.0"),
            ("norm", "block.1"),
            ("expand", "block.2"),
            ("project", "block.3"),
            ("layer_scale", "layer_scale"),
        )
    ),
    *((rf"features\.{k}\.", f"features.{k + 1}.") for k in (2, 4, 6)),
    (r"norm\.", "classifier.0."),
    (r"classifier\.", "classifier.1."),
)
_CONVNEXT_TORCHVISION: _Renaming = (
    (r"features\.(\d+)\.(\d+)\.depthwise", r"features.\1.\2.block.0"),
    (r"features\.(\d+)\.(\d+)\.norm", r"features.\1.\2.block.2"),
    (r"features\.(\d+)\.(\d+)\.expand", r"features.\1.\2.block.3"),
    (r"features\.(\d+)\.(\d+)\.project", r"features.\1.\2.block.5"),
    (r"norm\.", "classifier.0."),
    (r"classifier\.", "classifier.2."),
)
# densenets on torchvision's download site still have the names of an old PyTorch
_DENSENET_OLD: _Renaming = ((r"(.*denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2."),)


def from_public(network: nn.Module, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """A public checkpoint under our names.

    Args:
        network: The network that it is for.
        state: The checkpoint.
        source: Where it comes from, for the message.

    Returns:
        What ``network.load_state_dict`` takes.

    Raises:
        InputError: If it does not fit; says in the checkpoint's own names what is missing, unexpected or of another
            shape.
    """
    own = network.state_dict()
    layouts = [{rule(name): name for name in own} for rule in _rules(network)]
    layout = max(layouts, key=lambda names: len(names.keys() & state.keys()))
    tensors = dict(state)
    for theirs, ours in layout.items():  # a linear layer is a 1x1 convolution
        if theirs in tensors and (*tensors[theirs].shape, 1, 1) == own[ours].shape:
            tensors[theirs] = tensors[theirs][:, :, None, None]
    for name in tensors.keys() - layout.keys():
        # their uncentred batch norm inherits a running mean that it never updates nor uses
        variance = layout.get(name.removesuffix("running_mean") + "running_var")
        if variance and isinstance(network.get_submodule(variance.rpartition(".")[0]), BatchNormUncentered2d):
            del tensors[name]
    for theirs, ours in layout.items():  # files from before PyTorch counted batches
        if theirs.endswith("num_batches_tracked"):
            tensors.setdefault(theirs, own[ours])
    check_state({theirs: own[ours].shape for theirs, ours in layout.items()}, tensors, source)
    return {ours: tensors[theirs] for theirs, ours in layout.items()}


def count_classes(file: pathlib.Path) -> int:
    """Rows of the last weights of what looks like a head in a public checkpoint; ImageNet's 1000 where nothing does.

    Raises:
        InputError: If the file is no checkpoint.
    """
    heads = {"fc", "head", "heads", "classifier", "linear_head"}
    rows = [shape[0] for name, shape in read_shapes(file).items() if len(shape) >= 2 and heads & set(name.split("."))]
    return rows[-1] if rows else 1000


def is_public_bcos(file: pathlib.Path) -> bool:
    """Whether a file is a checkpoint of the public B-cos v2 zoo: its layers hold a ``linear``, and nothing a bias.

    Raises:
        InputError: If the file is no checkpoint.
    """
    names = read_shapes(file)
    return any(n.endswith(".linear.weight") for n in names) and not any(n.endswith(".bias") for n in names)


def _rules(network: nn.Module) -> list[Callable[[str], str]]:
    """The layouts that a network's checkpoint may have."""
    bcos = {name for name, module in network.named_modules() if isinstance(module, (BcosConv2d, BcosLinear))}
    if not bcos:
        if isinstance(network, ConvNeXt):
            return [_renamed(_CONVNEXT_TORCHVISION)]
        if isinstance(network, VisionTransformer):
            return [_renamed(_VIT)]
        return [_renamed(()), _renamed(_DENSENET_OLD)]
    if isinstance(network, VisionTransformer):
        rename = _renamed(_VIT)
    else:
        rename = _renamed(_CONVNEXT_BCOS if isinstance(network, ConvNeXt) else ())
    prefix = "0." if isinstance(network, VisionTransformer) else ""  # a Sequential with the logit layer

    def rule(name: str) -> str:
        module, _, kind = name.rpartition(".")
        renamed = rename(name)
        return prefix + (f"{renamed.removesuffix(kind)}linear.{kind}" if module in bcos else renamed)

    return [rule]


def _renamed(renaming: _Renaming) -> Callable[[str], str]:
    def rename(name: str) -> str:
        for pattern, theirs in renaming:
            if re.match(pattern, name):
                return re.sub(f"^{pattern}", theirs, name, count=1)
        return name

    return rename
