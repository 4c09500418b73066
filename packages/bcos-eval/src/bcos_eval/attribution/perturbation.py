"""Methods that change an image, before it is encoded, and look at the logit; an image at a time.

What hides a part is another image (:mod:`bcos_eval.attribution.baseline`), so that a B-cos network sees [x, 1-x] of
what could be a picture. Draws depend on the seed and the image.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from bcos_core.run.error import InputError
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import KernelShap, Lime, Occlusion
from torch import Tensor

from .baseline import BaselineImage, baseline_images
from .subject import Found, Subject, at_least, relative_residual
from .superpixel import superpixels as find_superpixels

KERNEL_WIDTH = 0.25
"""Of LIME's similarity, in cosine distance of the switches: as its authors' image explainer has it."""


def occlusion(
    subject: Subject,
    images: Tensor,
    target: Tensor,
    *,
    baseline: BaselineImage = "grey",
    window: float = 1 / 7,
    stride: float = 0.5,
) -> Found:
    """Zeiler & Fergus, ECCV 2014, arXiv 1311.2901: how much the logit falls when a window is hidden.

    A pixel is given the mean over the windows that hide it. ``window`` is the window's side as a share of the image's
    shorter side (two pixels at least), ``stride`` the step as a share of the window.
    """
    for name, value in (("window", window), ("stride", stride)):
        if not 0 < value <= 1:
            raise InputError(f"{name}: expected a share in (0, 1], got {value}")
    channels, side = images.shape[1], min(images.shape[2:])
    pixels = max(min(2, side), round(window * side))
    step = max(1, round(stride * pixels))
    found = Occlusion(_logits(subject)).attribute(
        images,
        sliding_window_shapes=(channels, pixels, pixels),
        strides=(channels, step, step),
        baselines=baseline_images(baseline, images),
        target=target,
        perturbations_per_eval=subject.rows,
    )
    return found[:, 0], None  # every channel has the window's


def lime(
    subject: Subject,
    images: Tensor,
    target: Tensor,
    *,
    baseline: BaselineImage = "grey",
    samples: int = 500,
    superpixels: int = 64,
) -> Found:
    """Ribeiro et al., KDD 2016, arXiv 1602.04938: a ridge regression on superpixels switched on or off by a coin.

    Its penalty is 1 and samples weigh by :func:`switch_similarity`; captum's own default, a lasso of 0.01, leaves
    nothing where outputs change little. ``superpixels`` is about how many there are.
    """
    method = Lime(_logits(subject), interpretable_model=SkLearnRidge(alpha=1.0), similarity_func=switch_similarity)
    return _shares(method, subject, images, target, baseline, samples, superpixels), None


def kernel_shap(
    subject: Subject,
    images: Tensor,
    target: Tensor,
    *,
    baseline: BaselineImage = "grey",
    samples: int = 500,
    superpixels: int = 64,
) -> Found:
    """Lundberg & Lee, NeurIPS 2017, arXiv 1705.07874; ``superpixels`` is about how many there are.

    Their shares add up to f(image) - f(baseline), all but exactly, however few the samples.
    """
    found = _shares(KernelShap(_logits(subject)), subject, images, target, baseline, samples, superpixels)
    reference = subject.encode(baseline_images(baseline, images)).detach()
    total = subject.total(subject.encode(images), reference, target)
    return found, relative_residual(total, found.double().sum((1, 2)))


def rise(
    subject: Subject,
    images: Tensor,
    target: Tensor,
    *,
    baseline: BaselineImage = "grey",
    samples: int = 1000,
    cells: int = 8,
    share: float = 0.5,
) -> Found:
    """RISE (Petsiuk et al., BMVC 2018, arXiv 1806.07421): the mean logit over random masks that show a pixel.

    A mask is a grid of ``cells`` x ``cells`` switches, each on with probability ``share``, enlarged bilinearly and
    shifted by up to a cell. The paper's map is sum f(I * M) M / (samples * share), with f a probability; ours is a
    logit, to which training might have added any constant, so the mean over the masks is taken off f first: the map
    is positive where to show a pixel raises the logit above the average mask's.
    """
    at_least(2, "samples", samples)
    at_least(1, "cells", cells)
    if not 0 < share < 1:
        raise InputError(f"share: expected a probability in (0, 1), got {share}")
    hidden, forward = baseline_images(baseline, images), _logits(subject)
    weighted, masks_sum, logits_sum = torch.zeros_like(images[0, 0]), torch.zeros_like(images[0, 0]), 0.0
    for size in _batch_sizes(samples, subject.rows):
        masks = torch.stack([random_mask(images, cells, share) for _ in range(size)])[:, None]
        with torch.no_grad():
            logits = forward(images * masks + hidden * (1 - masks))[:, target[0]]
        weighted += (logits[:, None, None] * masks[:, 0]).sum(0)
        masks_sum += masks.sum((0, 1))
        logits_sum += float(logits.double().sum())
    return ((weighted - logits_sum / samples * masks_sum) / (samples * share))[None], None


def random_mask(images: Tensor, cells: int, share: float) -> Tensor:
    """A smooth random mask of RISE, (H, W)."""
    height, width = images.shape[2:]
    cell = -(-height // cells), -(-width // cells)
    switches = (torch.rand(1, 1, cells + 1, cells + 1) < share).to(images.dtype)
    size = [(cells + 1) * c for c in cell]
    enlarged = F.interpolate(switches, size=size, mode="bilinear", align_corners=False)[0, 0]
    top, left = (int(torch.randint(c, ())) for c in cell)
    return enlarged[top : top + height, left : left + width].to(images.device)


def switch_similarity(_image: Tensor, _changed: Tensor, switches: Tensor, **_options: object) -> Tensor:
    """LIME's weight of a sample, exp(-d²/2w²), of the cosine distance d between its switches and all on."""
    distance = 1 - switches.float().mean(1).sqrt()  # cosine of a binary vector with ones
    return (-distance.square() / (2 * KERNEL_WIDTH**2)).exp()


def _shares(
    method: Lime,
    subject: Subject,
    images: Tensor,
    target: Tensor,
    baseline: BaselineImage,
    samples: int,
    superpixels: int,
) -> Tensor:
    """Coefficients of superpixels, each shared equally by its pixels, so that maps add up as other methods' do."""
    regions = find_superpixels(images[0], at_least(2, "superpixels", superpixels))
    areas = regions.flatten().bincount()
    if samples <= len(areas):
        raise InputError(f"samples: expected more than the {len(areas)} superpixels that are weighed, got {samples}")
    coefficients = method.attribute(
        images,
        baselines=baseline_images(baseline, images),
        target=target,
        feature_mask=regions.expand(1, 1, -1, -1),
        n_samples=samples,
        perturbations_per_eval=subject.rows,
        return_input_shape=False,
    )
    return (coefficients.flatten().to(images) / areas)[regions][None]


def _logits(subject: Subject) -> Callable[[Tensor], Tensor]:
    def forward(images: Tensor) -> Tensor:
        return subject.network(subject.encode(images).detach())

    return forward


def _batch_sizes(total: int, most: int) -> list[int]:
    return [min(most, total - start) for start in range(0, total, most)]
