"""The one base class of everything that behaves differently while it explains."""

from torch import nn


class Detachable(nn.Module):
    """A module with a dynamic part that explanation mode treats as a constant.

    ``detach`` is a plain attribute (it survives ``torch.compile``, and saving); set it through
    :func:`bcos_core.explanation_mode`, which restores it.
    """

    detach: bool = False
