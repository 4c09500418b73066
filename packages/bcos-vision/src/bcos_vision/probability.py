"""What a logit says as a probability."""

from jaxtyping import Float
from torch import Tensor


def probabilities(logits: Float[Tensor, "n k"], *, softmax: bool = False) -> Float[Tensor, "n k"]:
    """Probability of each class.

    Args:
        logits: Logits.
        softmax: The loss was the cross-entropy of the softmax; otherwise each logit was trained on its own.

    Example:
        >>> import torch
        >>> probabilities(torch.zeros(1, 4)), probabilities(torch.zeros(1, 4), softmax=True)
        (tensor([[0.5000, 0.5000, 0.5000, 0.5000]]), tensor([[0.2500, 0.2500, 0.2500, 0.2500]]))
    """
    return logits.softmax(1) if softmax else logits.sigmoid()
