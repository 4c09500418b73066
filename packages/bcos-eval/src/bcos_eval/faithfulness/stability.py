"""How far a map moves when its image moves a little."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bcos_eval.attribution.attributor import Attributor
from bcos_eval.attribution.draw import image_seed


def sensitivity(
    attributor: Attributor,
    images: Float[Tensor, "n c h w"],
    target: Int[Tensor, "n"],
    *,
    radius: float = 0.02,
    samples: int = 10,
    seed: int = 0,
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Largest and mean relative change of the map over noise (Yeh et al., NeurIPS 2019, arXiv 1901.09392, eq. 2).

    |Φ(x + δ) - Φ(x)|₂ / |Φ(x)|₂ for δ uniform in [-radius, radius], images cut off at [0, 1]. Lower is more stable; a
    map that ignores the image is the most stable of all. A method that draws draws anew for each noisy image: what its
    maps vary by counts, too.

    Args:
        attributor: A method on a model.
        images: In [0, 1].
        target: Class to explain, for each.
        radius: Of the noise.
        samples: Noisy images for each; the largest change grows with them.
        seed: Of the noise.

    Returns:
        Largest and mean change, shape (N,) each; not a number where the map is zero.
    """
    generators = [torch.Generator().manual_seed(image_seed(image, seed, "noise")) for image in images]
    here = attributor.attribute(images, target).map.double().flatten(1)
    changes = []
    for _ in range(samples):
        uniform = torch.stack([torch.rand(images.shape[1:], generator=generator) for generator in generators])
        noise = (uniform.to(images) * 2 - 1) * radius
        there = attributor.attribute((images + noise).clamp(0, 1), target).map.double().flatten(1)
        changes.append((there - here).norm(dim=1) / here.norm(dim=1))
    found = torch.stack(changes)
    return found.amax(0), found.mean(0)
