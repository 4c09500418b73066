"""Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391), of feature maps and of tokens."""

import copy
from collections.abc import Callable
from typing import Literal

import torch
from bcos_core.run.error import InputError, unknown_name
from captum.attr import LayerAttribution, LayerGradCam
from jaxtyping import Float
from torch import Tensor, nn

from .subject import Found, Subject


def gradcam(
    subject: Subject,
    images: Tensor,
    target: Tensor,
    *,
    layer: str | None = None,
    upsample: Literal["bilinear", "nearest"] = "bilinear",
) -> Found:
    """Positive part of the feature maps' sum, weighted with the mean gradient, enlarged to the image.

    Args:
        subject: The model.
        images: Images.
        target: Classes.
        layer: Module whose output is used; by default the last feature map before the classifier, its pooling and its
            norm or, in a transformer, the tokens of the last block but one, laid out as the patches are.
        upsample: "bilinear", smooth and as Rao et al. (CVPR 2022) compare it, or "nearest", as the B-cos papers.
    """
    if upsample not in ("bilinear", "nearest"):
        raise unknown_name("upsample", upsample, ("bilinear", "nearest"))
    x = subject.encode(images)
    network = subject.network
    if layer is None:
        layer = find_layer(network, x[:1])
    if layer not in dict(network.named_modules()):
        raise unknown_name("layer", layer, [name for name, _ in network.named_modules() if name])
    shape = dict(_outputs(network, x[:1])).get(layer)
    if shape is not None and len(shape) == 3:
        network = copy.deepcopy(network)
        block = network.get_submodule(layer)
        grid = TokenGrid(block, (x.shape[2], x.shape[3]))
        network.set_submodule(layer, grid)
        hooked: nn.Module = grid.grid
    elif shape is not None and len(shape) == 4:
        hooked = network.get_submodule(layer)
    else:
        raise InputError(f"layer: {layer} gives neither feature maps, (N, C, H, W), nor tokens, (N, T, D), but {shape}")
    found = LayerGradCam(network, hooked).attribute(x, target, relu_attributions=True)
    assert isinstance(found, Tensor)
    return LayerAttribution.interpolate(found, tuple(x.shape[2:]), upsample)[:, 0].detach(), None


class TokenGrid(nn.Module):
    """A block of a transformer, whose tokens pass through :attr:`grid` laid out as an image: (N, D, h, w)."""

    def __init__(self, block: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.block = block
        self.grid = nn.Identity()
        self._size = size

    def forward(self, x: Tensor) -> Tensor:
        return through_grid(self.block(x), self._size, self.grid)


def through_grid(
    tokens: Float[Tensor, "n t d"], size: tuple[int, int], function: Callable[[Tensor], Tensor]
) -> Float[Tensor, "n t d"]:
    """Tokens whose patches pass through a function of feature maps, laid out over ``size`` pixels: (N, D, h, w).

    Raises:
        InputError: If the tokens are no grid over so many pixels.
    """
    found = token_grid(tokens.shape[1], size)
    if found is None:
        raise InputError(f"layer: its {tokens.shape[1]} tokens are no grid over {size[0]}x{size[1]} pixels")
    special, grid = found
    picture = function(tokens[:, special:].unflatten(1, grid).movedim(3, 1))
    return torch.cat([tokens[:, :special], picture.movedim(1, 3).flatten(1, 2)], 1)


def token_grid(tokens: int, size: tuple[int, int]) -> tuple[int, tuple[int, int]] | None:
    """How many tokens stand before the patches' (a class token or none), and the grid of those; None if no grid fits.

    Example:
        >>> token_grid(197, (224, 224)), token_grid(8, (32, 64)), token_grid(7, (32, 32))
        ((1, (14, 14)), (0, (2, 4)), None)
    """
    for special in (0, 1):
        for rows in range(1, tokens - special + 1):
            columns, rest = divmod(tokens - special, rows)
            if not rest and rows * size[1] == columns * size[0]:
                return special, (rows, columns)
    return None


def find_layer(network: nn.Module, encoded: Tensor) -> str:
    """Name of the module whose output Grad-CAM takes by default; see :func:`gradcam`.

    Raises:
        InputError: If nothing in the network gives feature maps or tokens.
    """
    found = _outputs(network, encoded)
    modules = dict(network.named_modules())
    shapes = dict(found)
    for name, module in reversed(list(modules.items())):  # the last stack of blocks
        blocks = [f"{name}.{child}" for child, _ in module.named_children()] if name else []
        size = (encoded.shape[2], encoded.shape[3])
        if len(blocks) > 1 and isinstance(module, (nn.Sequential, nn.ModuleList)):
            given = [shapes.get(block, ()) for block in blocks]
            if len({type(child) for child in module}) == 1 and all(
                len(shape) == 3 and token_grid(shape[1], size) for shape in given
            ):
                return blocks[-2]
    maps = [(name, shape) for name, shape in found if name and len(shape) == 4 and shape[2] * shape[3] > 1]
    if maps and _is_classifier(modules[maps[-1][0]]):  # of each position, before they are pooled
        head = maps[-1][0].partition(".")[0]
        maps = [found for found in maps if found[0].partition(".")[0] != head] or maps[:-1]
    if len(maps) > 1 and _is_norm(modules[maps[-1][0]]) and isinstance(modules[maps[-2][0]], nn.Sequential):
        maps.pop()  # of a whole stack of blocks, as ConvNeXt's, whose standard variant normalises what is pooled
    if not maps:
        raise InputError(
            "gradcam: no module of this network gives feature maps of more than one position; name a layer"
        )
    return maps[-1][0]


def _is_classifier(module: nn.Module) -> bool:
    """Whether the last module to give maps ends in a 1x1 convolution: nothing follows it but the pooling."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    kernel = getattr(module, "kernel_size", None)
    return kernel in (1, (1, 1)) and hasattr(module, "out_channels")


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__  # torch's, torchvision's and ours have no base in common


def _outputs(network: nn.Module, encoded: Tensor) -> list[tuple[str, tuple[int, ...]]]:
    """Names of modules and shapes of the tensors they give, in the order in which they end."""
    found: list[tuple[str, tuple[int, ...]]] = []

    def record(name: str) -> object:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            if isinstance(output, Tensor):
                found.append((name, tuple(output.shape)))

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in network.named_modules()]  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            network(encoded)
    finally:
        for handle in handles:
            handle.remove()
    return found
