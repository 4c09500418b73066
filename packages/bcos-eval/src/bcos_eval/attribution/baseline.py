"""What an image is compared with, and what its pixels are replaced by: the image that shows nothing.

No image is neutral, so the choice is the user's. The default, "grey", is 0.5 in every channel: encoded as [x, 1-x] it
speaks for no colour; standardised, it is near the zeros that the literature takes (the data's mean colour); and black
and white parts of an image both differ from it, where "black" would give black parts nothing, whatever the network
makes of them. "zero" is what the B-cos papers' code takes, zeros of the *encoded* input: under [x, 1-x] no image has
it, and as a network without biases is homogeneous, integrated gradients are then input times gradient. "mean" and
"blur" leave an image its own colour.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from bcos_core.run.error import InputError, unknown_name
from jaxtyping import Float
from torch import Tensor

from .subject import Subject

BaselineImage = Literal["grey", "black", "mean", "blur"]
Baseline = Literal["grey", "black", "mean", "blur", "zero"]

BLUR = 1 / 8
"""Standard deviation of the Gaussian that blurs an image, as a share of its shorter side."""


def check_baseline(name: str, known: Sequence[str]) -> None:
    """Refuse a baseline that a method cannot compare with.

    Raises:
        InputError: If it is not one of ``known``.
    """
    if name == "zero" and name not in known:
        raise InputError(
            'baseline: "zero" is of the encoded input, and this method changes images before they are encoded; '
            f"expected one of {', '.join(known)}"
        )
    if name not in known:
        raise unknown_name("baseline", name, known)


def baseline_images(name: BaselineImage, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The images that images are compared with.

    Args:
        name: "grey": 0.5; "black": 0; "mean": the image's own mean colour; "blur": the image itself, blurred
            (:data:`BLUR`).
        images: In [0, 1], shape (N, C, H, W).

    Raises:
        InputError: If the name is unknown, or "zero", which is no image.

    Example:
        >>> baseline_images("grey", torch.rand(1, 3, 2, 2)).unique()
        tensor([0.5000])
    """
    check_baseline(name, get_args(BaselineImage))
    if name == "grey":
        return torch.full_like(images, 0.5)
    if name == "black":
        return torch.zeros_like(images)
    if name == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    from torchvision.transforms.v2.functional import gaussian_blur

    side = min(images.shape[2:])
    # three standard deviations, and no wider than the padding by reflection can fill
    reach = min(round(3 * BLUR * side), side - 1)
    return gaussian_blur(images, [2 * reach + 1] * 2, [BLUR * side] * 2)


def encoded_baseline(name: Baseline, subject: Subject, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h w"]:
    """The encoded inputs that encoded images are compared with; see :func:`baseline_images`.

    Raises:
        InputError: If the name is unknown.
    """
    check_baseline(name, get_args(Baseline))
    if name == "zero":
        return torch.zeros_like(subject.encode(images)).detach()
    return subject.encode(baseline_images(name, images)).detach()
