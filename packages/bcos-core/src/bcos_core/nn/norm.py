"""Normalisation layers for B-cos networks: scale without bias, centred or not.

A bias would be a part of the output that no input is responsible for, so none of them has one unless asked. An
uncentred norm divides by the standard deviation and does not subtract the mean: y = weight · x / sqrt(var + eps),
where var is still the variance about the mean, as in the public B-cos v2 code (Böhle et al., TPAMI 2024,
arXiv 2306.10898, sec. 3). In explanation mode var is a constant, and the layer linear: a mean of the input itself is.
"""

import torch
import torch.fx
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bcos_core.functional import uncentred_batch_norm

from .detachable import Detachable
from .synchronise import moments_of_all

torch.fx.wrap("_at_least_float32")  # it asks for a dtype, and this for a shape: nothing has any while torch.fx traces
torch.fx.wrap("uncentred_batch_norm")

Images = Float[Tensor, "n c h w"]


class _ScaledNorm(Detachable):
    """The per-channel weight, the optional bias, and the division that all norms below share."""

    def __init__(self, num_channels: int, *, eps: float = 1e-5, affine: bool = True, bias: bool = False) -> None:
        super().__init__()
        if num_channels < 1:
            raise ValueError(f"num_channels: expected at least 1, got {num_channels}")
        if bias and not affine:
            raise ValueError("bias: expected affine=True with bias=True")
        self.num_channels = num_channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_channels)) if bias else None

    def _divide(self, x: Images, var: Tensor, mean: Tensor | None = None) -> Images:
        """X (less the mean) over the standard deviation, times the weight, plus the bias; all broadcast against x."""
        factor = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            factor = factor * self.weight.view(-1, 1, 1)
        y = (x if mean is None else x - mean.to(x.dtype)) * factor.to(x.dtype)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1).to(y.dtype)

    def _variance(self, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        """Biased variance over dims, kept; a constant in explanation mode; float32 at least."""
        x = x.detach() if self.detach else x
        return _at_least_float32(x).var(dims, correction=0, keepdim=True)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, eps={self.eps:g}, affine={self.weight is not None}, bias={self.bias is not None}"


class BatchNormUncentered2d(_ScaledNorm):
    """Batch norm without centring: divides each channel by its standard deviation over batch and space.

    Args:
        num_channels: Channels C of the input (N, C, H, W).
        eps: Added to the variance.
        momentum: Share of the batch in the running variance.
        affine: Whether there is a weight for each channel.
        bias: Whether there is a bias for each channel.

    Example:
        >>> BatchNormUncentered2d(4)(torch.rand(2, 4, 5, 5)).shape
        torch.Size([2, 4, 5, 5])
    """

    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__(num_channels, eps=eps, affine=affine, bias=bias)
        self.momentum = momentum
        self.synchronised = False  # see synchronise_batch_norms
        self.register_buffer("running_var", torch.ones(num_channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Images) -> Images:
        if not self.training:
            return self._divide(x, self.running_var.view(1, -1, 1, 1))
        if self.synchronised:
            _, var, _ = moments_of_all(x.detach() if self.detach else x)
            y = self._divide(x, var.view(1, -1, 1, 1))
        else:
            y, _, var = uncentred_batch_norm(x, self.weight, self.bias, detach=self.detach, eps=self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)
        return y


class _GroupNorm(_ScaledNorm):
    """One standard deviation for each image and channel group."""

    centred: bool

    def __init__(
        self, num_groups: int, num_channels: int, *, eps: float = 1e-5, affine: bool = True, bias: bool = False
    ) -> None:
        super().__init__(num_channels, eps=eps, affine=affine, bias=bias)
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"num_groups: expected a divisor of {num_channels} channels, got {num_groups}")
        self.num_groups = num_groups

    def forward(self, x: Images) -> Images:
        if self.centred and not self.detach:  # PyTorch's own, in one pass
            return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        n, c, h, w = x.shape
        groups = x.reshape(n, self.num_groups, c // self.num_groups, h, w)
        mean = self._per_channel(_at_least_float32(groups).mean((2, 3, 4), keepdim=True)) if self.centred else None
        return self._divide(x, self._per_channel(self._variance(groups, (2, 3, 4))), mean)

    def _per_channel(self, statistic: Tensor) -> Tensor:
        n, groups = statistic.shape[:2]
        return statistic.reshape(n, groups, 1, 1).repeat_interleave(self.num_channels // groups, dim=1)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {super().extra_repr()}"


class GroupNormUncentered2d(_GroupNorm):
    """Group norm without centring: one standard deviation for each image and channel group.

    Args:
        num_groups: Groups the channels are split into.
        num_channels: Channels C of the input (N, C, H, W), a multiple of ``num_groups``.
        eps: Added to the variance.
        affine: Whether there is a weight for each channel.
        bias: Whether there is a bias for each channel.

    Raises:
        ValueError: If ``num_groups`` does not divide ``num_channels``.
    """

    centred = False


class LayerNormUncentered2d(_GroupNorm):
    """Layer norm without centring: one standard deviation for each image, over channels and space."""

    centred = False

    def __init__(self, num_channels: int, *, eps: float = 1e-5, affine: bool = True, bias: bool = False) -> None:
        super().__init__(1, num_channels, eps=eps, affine=affine, bias=bias)


class InstanceNormUncentered2d(_GroupNorm):
    """Instance norm without centring: one standard deviation for each image and channel, over space."""

    centred = False

    def __init__(self, num_channels: int, *, eps: float = 1e-5, affine: bool = True, bias: bool = False) -> None:
        super().__init__(num_channels, num_channels, eps=eps, affine=affine, bias=bias)


class GroupNorm2d(_GroupNorm):
    """Group norm in its ordinary, centred form, without bias unless asked; arguments as the uncentred one's."""

    centred = True


class LayerNorm2d(_GroupNorm):
    """Layer norm over channels and space, centred. Of a transformer's tokens it is the position norm."""

    centred = True

    def __init__(self, num_channels: int, *, eps: float = 1e-5, affine: bool = True, bias: bool = False) -> None:
        super().__init__(1, num_channels, eps=eps, affine=affine, bias=bias)


class InstanceNorm2d(_GroupNorm):
    """Instance norm, centred: mean and standard deviation for each image and channel, over space."""

    centred = True

    def __init__(self, num_channels: int, *, eps: float = 1e-5, affine: bool = True, bias: bool = False) -> None:
        super().__init__(num_channels, num_channels, eps=eps, affine=affine, bias=bias)


class PositionNormUncentered2d(_ScaledNorm):
    """Position norm without centring: one standard deviation for each image and pixel, over channels.

    Args:
        num_channels: Channels C of the input (N, C, H, W).
        eps: Added to the variance.
        affine: Whether there is a weight for each channel.
        bias: Whether there is a bias for each channel.
    """

    def forward(self, x: Images) -> Images:
        return self._divide(x, self._variance(x, (1,)))


class PositionNorm2d(_ScaledNorm):
    """Position norm, centred: the layer norm of each pixel's (or token's) channels.

    Args:
        num_channels: Channels C of the input (N, C, H, W).
        eps: Added to the variance.
        affine: Whether there is a weight for each channel.
        bias: Whether there is a bias for each channel.

    Example:
        >>> bool(PositionNorm2d(4)(torch.rand(2, 4, 5, 5)).mean(1).abs().max() < 1e-5)
        True
    """

    def forward(self, x: Images) -> Images:
        if self.detach:
            return self._divide(x, self._variance(x, (1,)), _at_least_float32(x).mean(1, keepdim=True))
        channels_last = x.permute(0, 2, 3, 1)  # PyTorch's own, in one pass
        y = F.layer_norm(channels_last, (self.num_channels,), self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


class LayerNorm(Detachable):
    """Layer norm of the last dimension, centred: of tokens, or of pixels whose channels come last.

    In explanation mode the variance is a constant, and the layer linear; :class:`PositionNorm2d` is the same of
    (N, C, H, W).

    Args:
        features: Size of the input's last dimension.
        eps: Added to the variance.
        affine: Whether there is a weight for each feature.
        bias: Whether there is a bias for each feature.

    Raises:
        ValueError: If ``features`` is below 1, or there is a bias without a weight.

    Example:
        >>> bool(LayerNorm(4)(torch.rand(2, 5, 4)).mean(-1).abs().max() < 1e-5)
        True
    """

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True, bias: bool = False) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"features: expected at least 1, got {features}")
        if bias and not affine:
            raise ValueError("bias: expected affine=True with bias=True")
        self.features = features
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        if not self.detach:  # PyTorch's own, in one pass
            return F.layer_norm(x, (self.features,), self.weight, self.bias, self.eps)
        wide = _at_least_float32(x)
        mean, var = wide.mean(-1, keepdim=True), wide.detach().var(-1, correction=0, keepdim=True)
        factor = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            factor = factor * self.weight
        y = (x - mean.to(x.dtype)) * factor.to(x.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        return f"{self.features}, eps={self.eps:g}, affine={self.weight is not None}, bias={self.bias is not None}"


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm in its ordinary, centred form, without bias unless asked.

    In evaluation it is an affine map: an explanation holds the part of the running mean in its remainder.

    Args:
        num_channels: Channels C of the input (N, C, H, W).
        eps: Added to the variance.
        momentum: Share of the batch in the running statistics.
        affine: Whether there is a weight for each channel.
        bias: Whether there is a bias for each channel.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        bias: bool = False,
    ) -> None:
        if bias and not affine:
            raise ValueError("bias: expected affine=True with bias=True")
        super().__init__(num_channels, eps=eps, momentum=momentum, affine=affine)
        self.synchronised = False  # see synchronise_batch_norms
        if not bias:
            self.register_parameter("bias", None)

    def forward(self, input: Images) -> Images:
        x = input
        if not (self.synchronised and self.training):
            return super().forward(x)
        mean, var, count = moments_of_all(x)
        with torch.no_grad():
            tracked, running_mean, running_var = self.num_batches_tracked, self.running_mean, self.running_var
            assert tracked is not None
            assert running_mean is not None
            assert running_var is not None
            assert self.momentum is not None
            tracked += 1
            running_mean.lerp_(mean.to(running_mean.dtype), self.momentum)
            running_var.lerp_((var * count / (count - 1)).to(running_var.dtype), self.momentum)
        factor = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            factor = factor * self.weight
        y = (x - mean.view(-1, 1, 1)) * factor.view(-1, 1, 1)
        return (y if self.bias is None else y + self.bias.view(-1, 1, 1)).to(x.dtype)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
