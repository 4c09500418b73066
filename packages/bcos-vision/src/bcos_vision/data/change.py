"""Random changes to single pictures, made where they are read; those of whole batches are in ``train/augment.py``."""

from collections.abc import Sequence

import torch
from torchvision.transforms import InterpolationMode, v2

from bcos_vision.config import AugmentConfig

from .images import Batch, Images
from .picture import Size, stack


class PictureChange:
    """A random crop of the whole picture and a policy of colour and shape changes, drawn from a seed for each picture.

    Args:
        config: Smallest share of the crop, policy and its magnitude.
        size: Height and width of the changed pictures.
    """

    def __init__(self, config: AugmentConfig, size: Size) -> None:
        self._crops = config.crop > 0
        bilinear = InterpolationMode.BILINEAR
        steps: list[v2.Transform] = []
        if config.crop:
            steps.append(v2.RandomResizedCrop(size, scale=(config.crop, 1.0), interpolation=bilinear))
        if config.policy == "randaugment":
            steps.append(v2.RandAugment(magnitude=config.magnitude, interpolation=bilinear))
        if config.policy == "trivialaugment":
            steps.append(v2.TrivialAugmentWide(interpolation=bilinear))
        self._change = v2.Compose(steps)

    def read(self, images: Images, indices: Sequence[int], seeds: Sequence[int]) -> Batch:
        """A batch of changed pictures; torch's own generator is left as it was."""
        before = torch.default_generator.get_state()
        changed = []
        try:
            for index, seed in zip(indices, seeds, strict=True):
                picture = images.picture(index, whole=self._crops)
                torch.default_generator.manual_seed(seed)  # torchvision draws from it, and takes no other
                changed.append(self._change(picture))
        finally:
            torch.default_generator.set_state(before)
        return stack(changed), images.labels[torch.as_tensor(indices, dtype=torch.long)]


def picture_change(config: AugmentConfig, size: Size) -> PictureChange | None:
    """What ``augment`` asks of single pictures, for :func:`make_loader`; None if nothing.

    Args:
        config: The run's augmentation.
        size: Height and width of training images.

    Example:
        >>> from bcos_vision.data import load_data, make_loader
        >>> digits = load_data("digits")
        >>> change = picture_change(AugmentConfig(crop=0.5), digits.size)
        >>> images, labels = next(iter(make_loader(digits.train, 16, seed=0, change=change)))
        >>> images.shape, picture_change(AugmentConfig(flip=True), digits.size)
        (torch.Size([16, 1, 8, 8]), None)
    """
    return PictureChange(config, size) if config.crop or config.policy != "none" else None
