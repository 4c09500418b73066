"""Regions that LIME and KernelSHAP switch off as wholes."""

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
        count: About how many; a square's side is a whole number of pixels, so that there may be fewer or more.

    Example:
        >>> superpixels(torch.rand(1, 4, 4), 4)
        tensor([[0, 0, 1, 1],
                [0, 0, 1, 1],
                [2, 2, 3, 3],
                [2, 2, 3, 3]])
    """
    height, width = image.shape[1:]
    side = max(1, round((height * width / count) ** 0.5))
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    squares = rows[:, None] * (int(columns[-1]) + 1) + columns
    if min(height, width) < SMALL:
        return squares.to(image.device)
    from skimage.segmentation import slic

    picture = image.detach().float().cpu().permute(1, 2, 0).numpy()
    labels = slic(picture, n_segments=count, compactness=10, channel_axis=-1, start_label=0)
    numbers = np.unique(labels, return_inverse=True)[1].reshape(height, width)
    found = torch.from_numpy(numbers).long()
    return (found if int(found.max()) > 0 else squares).to(image.device)
