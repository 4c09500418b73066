"""Whether a map depends on what the network has learnt, and on which class is asked for."""

import copy
from collections.abc import Callable, Iterator

import torch
from bcos_core.run.seed import derive_seed
from jaxtyping import Float, Int
from torch import Tensor, nn

from bcos_eval.attribution.attributor import Attributor
from bcos_eval.attribution.draw import image_seed

from .correlation import is_constant, rank_correlation, similarity


def randomised_models(
    model: nn.Module, *, cascading: bool = True, most: int | None = None, seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a model with layers' parameters drawn anew, from the output down (Adebayo et al., NeurIPS 2018, arXiv
    1810.03292).

    Each tensor is drawn from a normal distribution of its own mean and standard deviation, so that activations keep
    their scale; a constant one stays as it is.

    Args:
        model: Left as it is. Its layers come in the order in which it registers them.
        cascading: Each copy has all layers above randomised, too; otherwise that layer alone.
        most: Copies at most, at evenly spread layers, the last of which is the lowest; None for one a layer.
        seed: Of the draws.

    Returns:
        The layer's name, and the copy.
    """
    varying = [
        name
        for name, module in model.named_modules()
        if any(p.numel() > 1 and p.std() > 0 for p in module.parameters(recurse=False))
    ][::-1]
    chosen = range(len(varying))
    if most is not None and most < len(varying):
        chosen = sorted({round((k + 1) * len(varying) / most) - 1 for k in range(most)})
    for place in chosen:
        random = copy.deepcopy(model)
        for name in varying[0 if cascading else place : place + 1]:
            _randomise(random.get_submodule(name), derive_seed(seed, "randomise", name))
        yield varying[place], random


def _randomise(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            if parameter.numel() > 1:
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.copy_(parameter.mean() + parameter.std() * noise)


def compare_randomised(
    make: Callable[[nn.Module], Attributor],
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    target: Int[Tensor, "n"],
    *,
    cascading: bool = True,
    most: int | None = None,
    seed: int = 0,
) -> tuple[tuple[str, ...], Float[Tensor, "s n"], Float[Tensor, "s n"]]:
    """How like the original map the maps of randomised models are (the model parameter randomisation test).

    Nearer 0 is better: a map that outlives the network's weights, or comes back as its own negative, is not about
    them. Input times anything keeps the image's structure (Kokhlikyan et al., 2021, arXiv 2106.07475), and how much
    the test can tell depends on the task (Yona & Greenfeld, 2021, arXiv 2110.14297).

    Args:
        make: From a model to the method on it.
        model: The trained model.
        images: In [0, 1].
        target: Class to explain, for each.
        cascading: See :func:`randomised_models`, as for the rest.
        most: Copies at most.
        seed: Of the draws.

    Returns:
        Names of layers; Spearman correlation and structural similarity to the original map, shape (layers, N) each. A
        randomised model's constant map correlates with nothing, 0; not a number where the original is constant.
    """
    original = make(model).attribute(images, target).map
    names, ranks, alike = [], [], []
    for name, random in randomised_models(model, cascading=cascading, most=most, seed=seed):
        found = make(random).attribute(images, target).map
        names.append(name)
        rank = rank_correlation(original, found)
        ranks.append(rank.where(is_constant(original) | ~is_constant(found), 0.0))
        alike.append(similarity(original, found))
    return tuple(names), torch.stack(ranks), torch.stack(alike)


def compare_targets(
    attributor: Attributor,
    images: Float[Tensor, "n c h w"],
    target: Int[Tensor, "n"],
    num_classes: int,
    *,
    seed: int = 0,
) -> Float[Tensor, "n"]:
    """Spearman correlation of the map of a class with that of another, random one (random logit test, Sixt et al., ICML
    2020, arXiv 1912.09818).

    Near 0 is best. A map that is the same for every class, 1, explains none of them; one that is the other's negative,
    -1, says which class each pixel is for or against, yet points to the same places.
    """
    generators = (torch.Generator().manual_seed(image_seed(image, seed, "other class")) for image in images)
    steps = torch.cat([torch.randint(1, num_classes, (1,), generator=generator) for generator in generators])
    other = (target.cpu() + steps) % num_classes
    first = attributor.attribute(images, target).map
    return rank_correlation(first, attributor.attribute(images, other.to(target.device)).map)
