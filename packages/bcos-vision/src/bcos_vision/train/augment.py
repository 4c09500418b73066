"""Random changes to a batch, on its device, drawn from an explicit generator.

What needs the whole picture, or is made to each by Pillow, is done where pictures are read:
:mod:`bcos_vision.data.change`.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from bcos_vision.config import AugmentConfig


def augment(
    images: Shaped[Tensor, "n c h w"], config: AugmentConfig, generator: torch.Generator
) -> Shaped[Tensor, "n c h w"]:
    """Shift, mirror and blank a rectangle of each image of a batch on its own.

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
    if config.erase:
        images = images.masked_fill(_rectangles(n, h, w, config.erase, generator).to(images.device), 0)
    return images


def _rectangles(n: int, h: int, w: int, probability: float, generator: torch.Generator) -> Tensor:
    """One rectangle for each image that is to be erased, as torchvision's RandomErasing draws it: (N, 1, H, W)."""
    tries = 10
    area = torch.empty(n, tries).uniform_(0.02, 0.33, generator=generator) * (h * w)
    ratio = torch.empty(n, tries).uniform_(math.log(0.3), math.log(3.3), generator=generator).exp()
    height, width = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (height < h) & (width < w)
    first = fits.int().argmax(1, keepdim=True)
    height, width = height.gather(1, first), width.gather(1, first)
    top = (torch.rand(n, 1, generator=generator) * (h - height + 1)).floor()
    left = (torch.rand(n, 1, generator=generator) * (w - width + 1)).floor()
    erased = (torch.rand(n, 1, generator=generator) < probability) & fits.any(1, keepdim=True)
    row, column = torch.arange(h), torch.arange(w)
    rows = (row >= top) & (row < top + height) & erased
    columns = (column >= left) & (column < left + width)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def mix(
    images: Float[Tensor, "n c h w"],
    targets: Float[Tensor, "n k"],
    config: AugmentConfig,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n k"]]:
    """Mix each image of a batch, and its target, with another: mixup or CutMix, at one strength.

    The other is the one before it, or with repeated augmentation the one that is ``repeats`` before: a copy of an image
    stands beside it.

    Mixup (https://arxiv.org/abs/1710.09412): λ x + (1-λ) x', λ ~ Beta(α, α). CutMix (https://arxiv.org/abs/1905.04899):
    a rectangle of x' of the share 1-λ of the area, before it is cut off at the edges; targets follow what is left.

    Args:
        images: Shape (N, C, H, W).
        targets: Soft or one-hot, shape (N, K).
        config: ``mixup`` and ``cutmix`` are the α, 0 is off; with both, a fair coin decides.
        generator: Source of randomness, on the CPU.

    Example:
        >>> images, targets = torch.rand(4, 3, 8, 8), torch.eye(4)
        >>> _, mixed = mix(images, targets, AugmentConfig(mixup=0.2), torch.Generator().manual_seed(0))
        >>> mixed.sum(1)
        tensor([1., 1., 1., 1.])
    """
    if not config.mixup and not config.cutmix:
        return images, targets
    cut = not config.mixup or (config.cutmix > 0 and bool(torch.rand((), generator=generator) < 0.5))
    # torch's Beta takes no generator
    numpy = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))
    alpha = config.cutmix if cut else config.mixup
    kept = float(numpy.beta(alpha, alpha))
    if cut:
        h, w = images.shape[-2:]
        y, x = int(numpy.integers(h)), int(numpy.integers(w))
        half = 0.5 * math.sqrt(1 - kept)
        top, bottom = max(y - int(half * h), 0), min(y + int(half * h), h)
        left, right = max(x - int(half * w), 0), min(x + int(half * w), w)
        kept = 1 - (bottom - top) * (right - left) / (h * w)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images.roll(config.repeats, 0)[..., top:bottom, left:right]
    else:
        mixed = images.roll(config.repeats, 0).mul(1 - kept).add_(images, alpha=kept)
    return mixed, targets.roll(config.repeats, 0).mul(1 - kept).add_(targets, alpha=kept)
