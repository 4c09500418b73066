"""Random changes to a batch, on its device, drawn from an explicit generator."""

import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor

from bcos_vision.config import AugmentConfig


def augment(
    images: Shaped[Tensor, "n c h w"], config: AugmentConfig, generator: torch.Generator
) -> Shaped[Tensor, "n c h w"]:
    """Shift and mirror each image of a batch on its own.

    Args:
        images: Shape (N, C, H, W).
        config: Which changes, and how large.
        generator: Source of randomness, on the CPU: the draw is the same whatever the device.

    Example:
        >>> augment(torch.rand(2, 1, 8, 8), AugmentConfig(shift=1), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 8, 8])
    """
    n, c, h, w = images.shape
    if config.shift:
        corner = torch.randint(0, 2 * config.shift + 1, (2, n, 1), generator=generator)
        rows = (corner[0] + torch.arange(h)).to(images.device)
        columns = (corner[1] + torch.arange(w)).to(images.device)
        padded = F.pad(images, [config.shift] * 4)
        image = torch.arange(n, device=images.device)
        channel = torch.arange(c, device=images.device)
        images = padded[
            image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
        ]
    if config.flip:
        mirrored = (torch.rand(n, generator=generator) < 0.5).to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images
