"""Which methods say the same of a network: measured, so that a table does not count one method thrice."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor


def coincidences(attributions: Mapping[str, Float[Tensor, "n h w"]], tolerance: float = 0.01) -> list[tuple[str, ...]]:
    """Groups of methods whose maps agree up to their scale.

    Two methods agree if for each image the maps, scaled to length 1, are no further apart than ``tolerance``; each
    member of a group agrees with all others of it.

    Args:
        attributions: For each method the maps of the same N images, shape (N, H, W).
        tolerance: Distance, in [0, 2]; for small ones it is the angle between the maps.

    Returns:
        Groups of two and more, in the order of the methods.

    Example:
        >>> import torch
        >>> a = torch.rand(2, 4, 4)
        >>> coincidences({"a": a, "b": -a, "c": 3 * a})
        [('a', 'c')]
    """
    scaled = {}
    for name, maps in attributions.items():
        flat = maps.detach().double().cpu().flatten(1)
        length = flat.norm(dim=1, keepdim=True)
        scaled[name] = flat / length.where(length > 0, 1)
    groups: list[list[str]] = []
    for name, own in scaled.items():
        for group in groups:
            if all(float((own - scaled[other]).norm(dim=1).max()) <= tolerance for other in group):
                group.append(name)
                break
        else:
            groups.append([name])
    return [tuple(group) for group in groups if len(group) > 1]
