"""Image classifiers whose depth is time: a stem, dh/dt = f(h, t) over times 0 to 1, a head (Chen et al., NeurIPS 2018).

The field f is one function of state and time: its norms take statistics of each image alone, never of a batch.
"""

import pathlib
from collections.abc import Sequence

from bcos_core.nn import (
    BcosConv2d,
    GroupNorm2d,
    InverseEncoding,
    LayerNormUncentered2d,
    LogitLayer,
    Standardise,
    TimeChannel,
)
from bcos_core.run.checkpoint import load_model, load_state, save_model
from bcos_core.run.config import from_dict, to_dict
from bcos_core.run.error import InputError
from jaxtyping import Float
from torch import Tensor, nn

from bcos_ode.runge_kutta import TABLEAUX, Tableau, step

from .config import ClassificationConfig

_GROUPS = 8
_TEMPERATURE = 0.3
"""Of a B-cos network's logits: with 1 they stay small, and training on digits ends at twice the loss."""


class _BcosField(nn.Module):
    """Two B-cos convolutions that see the time, each divided by the standard deviation of its image's responses.

    Without these norms the field would begin near zero, and learn slowly: a B-cos response to random filters is small.
    """

    def __init__(self, channels: int, b: float) -> None:
        super().__init__()
        self.time = TimeChannel()
        self.conv1, self.norm1 = BcosConv2d(channels + 1, channels, 3, padding=1, b=b), LayerNormUncentered2d(channels)
        self.conv2, self.norm2 = BcosConv2d(channels + 1, channels, 3, padding=1, b=b), LayerNormUncentered2d(channels)

    def forward(self, h: Float[Tensor, "n c s1 s2"], t: float) -> Float[Tensor, "n c s1 s2"]:
        hidden = self.norm1(self.conv1(self.time(h, t)))
        return self.norm2(self.conv2(self.time(hidden, t)))


class _VanillaField(nn.Module):
    """ODE-Net's: norm, ReLU, convolution, twice, and a norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.time, self.relu = TimeChannel(), nn.ReLU()
        self.norm1, self.conv1 = _group_norm(channels), nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.norm2, self.conv2 = _group_norm(channels), nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.norm3 = _group_norm(channels)

    def forward(self, h: Float[Tensor, "n c s1 s2"], t: float) -> Float[Tensor, "n c s1 s2"]:
        hidden = self.conv1(self.time(self.relu(self.norm1(h)), t))
        return self.norm3(self.conv2(self.time(self.relu(self.norm2(hidden)), t)))


class DepthBlock(nn.Module):
    """Integrate a field over times 0 to 1 in equal steps; a single Euler step is a residual block.

    Args:
        field: dh/dt, from state (N, C, H, W) and time to the like of the state.
        tableau: Runge-Kutta method.
        steps: Steps, at least 1.

    Example:
        >>> import torch
        >>> decay = DepthBlock(lambda h, t: -h, TABLEAUX["rk4"], 4)
        >>> f"{decay(torch.ones(1, 1, 1, 1)).item():.4f}", decay.num_evaluations
        ('0.3679', 16)
    """

    def __init__(self, field: nn.Module, tableau: Tableau, steps: int) -> None:
        super().__init__()
        self.field = field
        self.tableau = tableau
        self.steps = steps

    @property
    def num_evaluations(self) -> int:
        """Evaluations of the field in one forward pass (NFE)."""
        return self.steps * len(self.tableau.b)

    def trajectory(self, h: Float[Tensor, "n c s1 s2"]) -> list[Tensor]:
        """States at times 0, 1/steps, ..., 1."""
        states = [h]
        for k in range(self.steps):
            states.append(step(self.field, states[-1], 1 / self.steps, self.tableau, k / self.steps))
        return states

    def forward(self, h: Float[Tensor, "n c s1 s2"]) -> Float[Tensor, "n c s1 s2"]:
        return self.trajectory(h)[-1]


class OdeClassifier(nn.Module):
    """Encoding, stem, depth block and head: ``model(x) == model.network(model.encode(x))``, for images in [0, 1].

    Args:
        config: Variant, block, B, channels, method and steps; the rest of it is kept with the model.
        classes: Names of the classes.
        in_channels: Channels of an image.
        statistics: Mean and standard deviation of each channel, which variant vanilla is standardised with.

    Attributes:
        network: ``stem``, ``block`` and ``head``, by these names.

    Example:
        >>> import torch
        >>> from bcos_core import explain
        >>> model = OdeClassifier(ClassificationConfig(channels=8), classes="0123456789", in_channels=1)
        >>> explanation = explain(model, torch.rand(2, 1, 8, 8))
        >>> explanation.contribution_map.shape, bool((explanation.completeness_error < 1e-5).all())
        (torch.Size([2, 8, 8]), True)
    """

    def __init__(
        self,
        config: ClassificationConfig,
        *,
        classes: Sequence[str],
        in_channels: int,
        statistics: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.classes = tuple(classes)
        self.in_channels = in_channels
        is_bcos = config.variant == "bcos"
        mean, std = statistics or ([0.0] * in_channels, [1.0] * in_channels)
        self.encoding = InverseEncoding() if is_bcos else Standardise(mean, std)
        build = (_bcos_stem, _bcos_head) if is_bcos else (_vanilla_stem, _vanilla_head)
        self.network = nn.Sequential()
        self.network.add_module("stem", build[0](config, in_channels))
        self.network.add_module("block", _block(config))
        self.network.add_module("head", build[1](config, len(self.classes)))

    @property
    def num_evaluations(self) -> int:
        """Evaluations of the field in one forward pass (NFE); 0 without one."""
        block = self.network.get_submodule("block")
        return block.num_evaluations if isinstance(block, DepthBlock) else 0

    def encode(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h w"]:
        """What the stem sees: [x, 1-x] of variant bcos, standardised images of vanilla.

        Raises:
            ValueError: If the shape is not (N, in_channels, H, W).
        """
        if images.dim() != 4 or images.shape[1] != self.in_channels:
            raise ValueError(f"images: expected shape (N, {self.in_channels}, H, W), got {tuple(images.shape)}")
        return self.encoding(images)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.network(self.encode(images))

    def save(self, path: pathlib.Path) -> None:
        """Write the model with what rebuilds it; see :func:`bcos_core.run.checkpoint.save_model`."""
        description = {
            "classifier": to_dict(self.config),
            "classes": list(self.classes),
            "in_channels": self.in_channels,
        }
        save_model(path, self, description)

    @classmethod
    def load(cls, path: pathlib.Path) -> "OdeClassifier":
        """Read what :meth:`save` wrote; in evaluation mode.

        Raises:
            InputError: If the file is missing, damaged, or describes another model than it holds.
        """
        state, found = load_model(path)
        try:
            config = from_dict(ClassificationConfig, found["classifier"])
            model = cls(config, classes=found["classes"], in_channels=found["in_channels"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a description of a classifier over depth time ({error})") from None
        load_state(model, state, str(path))
        return model.eval()


def _group_norm(channels: int) -> GroupNorm2d:
    return GroupNorm2d(_GROUPS, channels, bias=True)


def _block(config: ClassificationConfig) -> nn.Module:
    if config.block == "none":
        return nn.Identity()
    field = _BcosField(config.channels, config.b) if config.variant == "bcos" else _VanillaField(config.channels)
    method, steps = (config.method, config.steps) if config.block == "ode" else ("euler", 1)
    return DepthBlock(field, TABLEAUX[method], steps)


def _bcos_stem(config: ClassificationConfig, in_channels: int) -> nn.Sequential:
    c, b = config.channels, config.b
    layers: list[nn.Module] = [BcosConv2d(2 * in_channels, c, 3, padding=1, b=b), LayerNormUncentered2d(c)]
    for _ in range(config.halvings):
        layers += [BcosConv2d(c, c, 3, stride=2, padding=1, b=b), LayerNormUncentered2d(c)]
    return nn.Sequential(*layers)


def _vanilla_stem(config: ClassificationConfig, in_channels: int) -> nn.Sequential:
    c = config.channels
    layers: list[nn.Module] = [nn.Conv2d(in_channels, c, 3, padding=1)]
    for _ in range(config.halvings):
        layers += [_group_norm(c), nn.ReLU(), nn.Conv2d(c, c, 3, stride=2, padding=1)]
    return nn.Sequential(*layers)


def _bcos_head(config: ClassificationConfig, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        BcosConv2d(config.channels, num_classes, 1, b=config.b),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        LogitLayer(bias=LogitLayer.prior_bias(num_classes), temperature=_TEMPERATURE),
    )


def _vanilla_head(config: ClassificationConfig, num_classes: int) -> nn.Sequential:
    c = config.channels
    return nn.Sequential(_group_norm(c), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, num_classes))
