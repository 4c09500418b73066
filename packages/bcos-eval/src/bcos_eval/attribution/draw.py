"""Seeds of what is drawn for an image: noise, masks, samples."""

from bcos_core.run.config import fingerprint
from bcos_core.run.seed import derive_seed
from jaxtyping import Float
from torch import Tensor


def image_seed(image: Float[Tensor, "c h w"], seed: int, *names: str | int) -> int:
    """A seed of an image's own: other images draw independently, and its place in a batch does not matter.

    With one seed for all images, what the draws happen to favour would be common to all scores: an interval over images
    or grids could not see it.

    Args:
        image: Its values.
        seed: Of all draws.
        names: What is drawn.

    Example:
        >>> import torch
        >>> a, b = torch.rand(2, 1, 4, 4)
        >>> image_seed(a, 0) == image_seed(a.clone(), 0) != image_seed(b, 0)
        True
    """
    return derive_seed(seed, *names, fingerprint(image.detach().cpu().contiguous().numpy().tobytes()))
