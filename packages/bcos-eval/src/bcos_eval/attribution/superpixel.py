"""Regions that LIME and KernelSHAP switch off as wholes."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

SMALL = 64
"""Images with a shorter side below this many pixels are cut into squares: their edges say little."""


def superpixels(image: Float[Tensor, "c h w"], count: int = 64) -> Int[Tensor, "h w"]:
    """Number the regions of an image from 0: SLIC's superpixels, or squares where an image is small.

    Args:
        image: In [0, 1], shape (C, H, W).
        count: About how many; a square's side is a whole number of pixels (:func:`square_side`), so that there may be
            fewer or more.

    Example:
        >>> superpixels(torch.rand(1, 4, 4), 4)
        tensor([[0, 0, 1, 1],
                [0, 0, 1, 1],
                [2, 2, 3, 3],
                [2, 2, 3, 3]])
    """
    height, width = image.shape[1:]
    side = square_side(height, width, count)
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    squares = rows[:, None] * (int(columns[-1]) + 1) + columns
    if min(height, width) < SMALL:
        return squares.to(image.device)
    from skimage.segmentation import slic

    # of colours SLIC compares lightness from 0 to 100; of a single channel the values, next to which distances are all
    colours = image.expand(3 if len(image) == 1 else -1, -1, -1)
    picture = colours.detach().float().cpu().permute(1, 2, 0).numpy()
    labels = slic(picture, n_segments=count, compactness=10, channel_axis=-1, start_label=0)
    numbers = np.unique(labels, return_inverse=True)[1].reshape(height, width)
    found = torch.from_numpy(numbers).long()
    return (found if int(found.max()) > 0 else squares).to(image.device)


def square_side(height: int, width: int, count: int) -> int:
    """Side of about ``count`` squares in an image, if possible one that divides it and, as a power of two, the cells
    that a mosaic may be made of: a square that lies in two cells cannot tell them apart.

    Example:
        >>> square_side(24, 24, 64)  # and not 3, which does not divide 3x3 cells of 8x8 pixels
        4
    """
    ideal = (height * width / count) ** 0.5
    whole = [k for k in range(1, math.gcd(height, width) + 1) if height % k == width % k == 0]
    near = [k for k in whole if 1 / 1.5 <= k / ideal <= 1.5]
    return min(near, key=lambda k: (k & (k - 1) != 0, abs(math.log(k / ideal))), default=max(1, round(ideal)))
