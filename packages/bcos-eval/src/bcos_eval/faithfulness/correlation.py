"""Whether removing pixels costs what the map says, and how alike two maps are."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .deletion import Score


def faithfulness_correlation(
    score: Score,
    images: Float[Tensor, "n c h w"],
    maps: Float[Tensor, "n h w"],
    imputed: Float[Tensor, "n c h w"],
    *,
    share: float = 0.2,
    samples: int = 50,
    seed: int = 0,
) -> Float[Tensor, "n"]:
    """Pearson correlation, over random sets of pixels, of the map's sum over the set and what the score loses without
    it (Bhatt et al., IJCAI 2020, arXiv 2005.00631). 1 is best; not a number where either never varies.

    Args:
        score: What is watched.
        images: In [0, 1].
        maps: Signed relevance of each pixel.
        imputed: What the set's pixels are replaced by (:func:`~bcos_eval.attribution.baseline.baseline_images`).
        share: Of the pixels, in each set.
        samples: Number of sets.
        seed: Of the sets.
    """
    generator = torch.Generator().manual_seed(seed)
    num_pixels = maps[0].numel()
    size = max(1, round(share * num_pixels))
    sums, losses = [], []
    with torch.no_grad():
        whole = score(images).double()
        for _ in range(samples):
            chosen = torch.zeros(num_pixels, dtype=torch.bool)
            chosen[torch.randperm(num_pixels, generator=generator)[:size]] = True
            chosen = chosen.view(maps.shape[1:]).to(maps.device)
            sums.append(maps.double()[:, chosen].sum(1))
            losses.append(whole - score(torch.where(chosen, imputed, images)).double())
    return pearson(torch.stack(sums, 1), torch.stack(losses, 1))


def pearson(a: Float[Tensor, "n s"], b: Float[Tensor, "n s"]) -> Float[Tensor, "n"]:
    """Pearson correlation of each row; not a number where a row never varies."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a.double(), b.double()))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def rank_correlation(a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"]) -> Float[Tensor, "n"]:
    """Spearman correlation of the pixels of two maps; not a number where a map is constant.

    Example:
        >>> a = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        >>> round(rank_correlation(a, a.exp()).item(), 12)
        1.0
    """
    from scipy.stats import rankdata  # means of ties, as the coefficient is defined

    ranks = [torch.from_numpy(rankdata(x.detach().cpu().flatten(1).numpy(), axis=1)) for x in (a, b)]
    return pearson(*ranks)


def is_constant(maps: Float[Tensor, "n h w"]) -> Bool[Tensor, "n"]:
    """Whether a map has one value everywhere, on the CPU; a map that is not finite has not."""
    flat = maps.detach().cpu().flatten(1)
    return flat.amax(1) == flat.amin(1)


def similarity(a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"]) -> Float[Tensor, "n"]:
    """Structural similarity (Wang et al., 2004) of two maps, each scaled to its largest absolute value.

    Raises:
        ValueError: If the maps are smaller than the index's 7x7 window.
    """
    from skimage.metrics import structural_similarity

    if min(a.shape[1:]) < 7:
        raise ValueError(f"maps: expected at least 7x7 pixels, got {a.shape[1]}x{a.shape[2]}")
    maps = [x.detach().double().cpu() for x in (a, b)]
    scaled = [(x / x.abs().amax((1, 2), keepdim=True).clamp(min=1e-300)).numpy() for x in maps]
    return torch.tensor([structural_similarity(x, y, data_range=2.0) for x, y in zip(*scaled, strict=True)])
