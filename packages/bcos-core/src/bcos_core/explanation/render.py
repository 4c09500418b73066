"""From contributions to a picture that shows what the model saw."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def render_rgba(
    weights: Float[Tensor, "n c h w"],
    contributions: Float[Tensor, "n c h w"],
    *,
    smooth: int = 1,
    percentile: float = 99.5,
) -> Float[Tensor, "n 4 h w"]:
    """Colour from the positive encoding weights, opacity from the strength of the positive contribution.

    The input encoding [x, 1-x] gives each colour channel two weights. Their positive parts (w, w') mark the colour
    w / (w + w') that would drive the logit most, so that a pixel shows what the model looks for there; a pixel that
    speaks against the class is transparent (Böhle et al., CVPR 2022, sec. 3.3 and fig. 1).

    Args:
        weights: W(x) of encoded images, shape (N, 2C, H, W), C = 1 (grey) or 3 (RGB).
        contributions: Weights times encoded images, same shape.
        smooth: Side of the box that averages the opacity; odd.
        percentile: The opacity reaches 1 at this percentile of each picture's opacities.

    Returns:
        Red, green, blue and opacity in [0, 1], shape (N, 4, H, W).

    Raises:
        ValueError: If the channels are not an [x, 1-x] encoding, or an argument is out of range.

    Example:
        >>> render_rgba(torch.rand(1, 6, 8, 8), torch.rand(1, 6, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """
    if weights.dim() != 4 or weights.shape[1] not in (2, 6):
        raise ValueError(
            "weights: colours need images in the encoding [x, 1-x], shape (N, 2 or 6, H, W); "
            f"got {tuple(weights.shape)}. For a plain network draw the contribution map instead."
        )
    if contributions.shape != weights.shape:
        raise ValueError(f"contributions: expected shape {tuple(weights.shape)}, got {tuple(contributions.shape)}")
    if smooth < 1 or smooth % 2 == 0:
        raise ValueError(f"smooth: expected an odd number >= 1, got {smooth}")
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile: expected a number in (0, 100], got {percentile}")
    colour, inverse = weights.float().clamp(min=0).chunk(2, dim=1)
    total = colour + inverse
    rgb = torch.where(total > 0, colour / total, 0).expand(-1, 3, -1, -1)
    strength = contributions.float().sum(1, keepdim=True).clamp(min=0)
    if smooth > 1:
        strength = F.avg_pool2d(strength, smooth, stride=1, padding=smooth // 2, count_include_pad=False)
    full = torch.quantile(strength.flatten(1), percentile / 100, dim=1).view(-1, 1, 1, 1)
    # where nearly every pixel is at zero the percentile is too: fall back to the strongest
    full = torch.where(full > 0, full, strength.amax(dim=(1, 2, 3), keepdim=True))
    alpha = torch.where(full > 0, strength / full, 0).clamp(max=1)
    return torch.cat([rgb, alpha], dim=1)
