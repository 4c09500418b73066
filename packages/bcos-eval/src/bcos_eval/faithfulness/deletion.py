"""Deletion and insertion curves: what becomes of the score as pixels go in the order of the map, or come in it.

Removing the least relevant pixels first (LeRF) passes through the same images as inserting the most relevant first,
from the other end: the insertion curve is the LeRF curve, and has no second name here.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Score = Callable[[Tensor], Tensor]
"""From images (N, C, H, W) to a number for each, (N,): a class's probability, say."""


def deletion_curve(
    score: Score,
    images: Float[Tensor, "n c h w"],
    maps: Float[Tensor, "n h w"],
    imputed: Float[Tensor, "n c h w"],
    *,
    most_relevant_first: bool = True,
    steps: int = 20,
    seed: int = 0,
) -> Float[Tensor, "n s"]:
    """Scores while pixels are replaced by ``imputed`` ones in the order of a map (Samek et al., 2017, arXiv 1509.06321;
    insertion: Petsiuk et al., BMVC 2018, arXiv 1806.07421).

    Args:
        score: What is watched.
        images: In [0, 1].
        maps: Signed relevance of each pixel; equal ones go in random order.
        imputed: What pixels are replaced by (:func:`~bcos_eval.attribution.baseline.baseline_images`).
        most_relevant_first: MoRF: a faithful map's curve falls fast. Otherwise LeRF: it stays high; read backwards,
            this is the insertion curve.
        steps: In how many equal parts pixels are replaced.
        seed: Of the order of equal values.

    Returns:
        The score with none, 1/steps, ..., all pixels replaced, shape (N, steps + 1).

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> deletion_curve(lambda images: images.sum((1, 2, 3)), x, x[:, 0], torch.zeros_like(x), steps=4)
        tensor([[10.,  6.,  3.,  1.,  0.]])
    """
    num_pixels = maps[0].numel()
    shuffle = torch.randperm(num_pixels, generator=torch.Generator().manual_seed(seed)).to(maps.device)
    order = maps.flatten(1)[:, shuffle].argsort(dim=1, descending=most_relevant_first, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, shuffle[order], torch.arange(num_pixels, device=maps.device).expand_as(order)
    )
    rank = rank.view(len(maps), 1, *maps.shape[1:])
    values = []
    for step in range(steps + 1):
        with torch.no_grad():
            values.append(score(torch.where(rank < round(step * num_pixels / steps), imputed, images)))
    return torch.stack(values, 1)


def area(curve: Float[Tensor, "n s"]) -> Float[Tensor, "n"]:
    """Area under curves over the share of pixels, by trapezia.

    Example:
        >>> area(torch.tensor([[1.0, 0.5, 0.0]]))
        tensor([0.5000])
    """
    return torch.trapezoid(curve, dim=1) / (curve.shape[1] - 1)
