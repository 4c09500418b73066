"""Grids as pictures, and where on them a map lies. Cells are numbered down the columns, as in the public B-cos code.

Without einops, which torch.fx cannot trace: attribution methods repair a traced copy of a network.
"""

import torch.nn.functional as F
from bcos_core.run.error import InputError
from jaxtyping import Float
from torch import Tensor


def tile(cells: Float[Tensor, "m c h w"], side: int) -> Float[Tensor, "n c y x"]:
    """Put each side² images (or feature maps) that follow one another together into one.

    Example:
        >>> import torch
        >>> tile(torch.arange(4.0).view(4, 1, 1, 1), 2)[0, 0]
        tensor([[0., 2.],
                [1., 3.]])
    """
    grid = cells.unflatten(0, (-1, side, side))  # n, column, row, c, h, w
    return grid.permute(0, 3, 2, 4, 1, 5).flatten(4, 5).flatten(2, 3)


def untile(mosaics: Float[Tensor, "n c y x"], side: int) -> Float[Tensor, "m c h w"]:
    """The cells of mosaics: undoes :func:`tile`."""
    grid = mosaics.unflatten(3, (side, -1)).unflatten(2, (side, -1))  # n, c, row, h, column, w
    return grid.permute(0, 4, 2, 1, 3, 5).flatten(0, 2)


def resize_cells(cells: Float[Tensor, "m c h w"], size: int) -> Float[Tensor, "m c s s"]:
    """Scale square images to ``size`` x ``size`` pixels (antialiased, bilinear): not every network takes large mosaics.

    Raises:
        InputError: If they are not square.
    """
    height, width = cells.shape[2:]
    if height != width:
        raise InputError(f"--cell_size {size}: scales square images, got {height}x{width} pixels")
    return F.interpolate(cells, (size, size), mode="bilinear", antialias=True).clamp(0, 1)


def cell_shares(maps: Float[Tensor, "n y x"], side: int, *, smooth: int = 1) -> Float[Tensor, "n cells"]:
    """How much of each map's positive part lies in each cell; nothing in any where there is none.

    Args:
        maps: Attributions of mosaics, shape (N, H, W), signed.
        side: Cells along a side.
        smooth: Side of the box that averages the signed map first, with zeros around it; odd.

    Raises:
        ValueError: If ``smooth`` is even or the cells do not divide the map.

    Example:
        >>> import torch
        >>> cell_shares(torch.tensor([[[3.0, -5.0], [0.0, 1.0]]]), 2)
        tensor([[0.7500, 0.0000, 0.0000, 0.2500]], dtype=torch.float64)
    """
    if maps.shape[1] % side or maps.shape[2] % side:
        raise ValueError(f"maps: {side} cells do not divide {maps.shape[1]}x{maps.shape[2]} pixels")
    positive = untile(positive_part(maps, smooth=smooth)[:, None], side)
    mass = positive.sum((1, 2, 3)).unflatten(0, (-1, side**2))
    return divide(mass, mass.sum(1, keepdim=True))


def positive_part(maps: Float[Tensor, "n h w"], *, smooth: int = 1) -> Float[Tensor, "n h w"]:
    """What is positive of maps, averaged first over boxes of ``smooth`` x ``smooth`` pixels, with zeros around the map.

    Raises:
        ValueError: If ``smooth`` is even.
    """
    if smooth < 1 or smooth % 2 == 0:
        raise ValueError(f"smooth: expected an odd number >= 1, got {smooth}")
    return F.avg_pool2d(maps[:, None].double(), smooth, stride=1, padding=smooth // 2)[:, 0].clamp(min=0)


def divide(part: Tensor, total: Tensor) -> Tensor:
    """Part by total: 0 of an empty map, and not a number of a map that is not finite."""
    return (part / total).where(total != 0, 0.0)
