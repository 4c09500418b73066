"""B-cos convolution."""

import torch.fx
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.utils import _pair, _reverse_repeat_tuple

from bcos_core.functional import IntOrPair, bcos_conv2d

from .exponent import Exponent
from .layer import BcosLayer

torch.fx.wrap("bcos_conv2d")  # a node of a traced graph, of torchvision's feature extractors say, as a whole


class BcosConv2d(BcosLayer):
    """Convolution whose response is scaled by the cosine between filter and patch to the power B-1.

    y = |cos(x, w)|^(B-1) (w/|w|)ᵀ x for each patch x (Böhle et al., CVPR 2022, eq. 3). There is
    no activation function, and no bias unless asked. The patch norm belongs to the padded input, whatever the
    padding mode.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Height and width of the window.
        stride: Step of the window.
        padding: Pixels on each side, or "same" or "valid".
        dilation: Spacing of the window's elements.
        groups: Channel groups; each has its own patch norm.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        b: Exponent B, at least 1; or an :class:`Exponent`, which is learnt.
        max_out: Filters that compete for one output channel (MaxOut).
        eps: Added to the patch's sum of squares.
        unit_weights: Divide each filter by its norm. False keeps the norm as a factor of the response, as
            B-cosification does for layers that were trained so (Arya et al., NeurIPS 2024, arXiv 2411.00715, sec. 3).
        bias: Add a bias to each output channel: a part of it that no input is responsible for.

    Attributes:
        weight: Shape (out_channels * max_out, in_channels / groups, kh, kw).
        bias: Shape (out_channels,), or None.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> BcosConv2d(6, 16, 3, padding=1)(torch.rand(1, 6, 8, 8)).shape
        torch.Size([1, 16, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair | str = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        *,
        b: float | Exponent = 2.0,
        max_out: int = 1,
        eps: float = 1e-6,
        unit_weights: bool = True,
        bias: bool = False,
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups: expected a positive divisor of in_channels {in_channels} and out_channels {out_channels},"
                f" got {groups}"
            )
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(f'padding_mode: expected zeros, reflect, replicate or circular, got "{padding_mode}"')
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f'padding: expected an integer, a pair, "valid" or "same", got "{padding}"')
            if padding == "same" and _pair(stride) != (1, 1):
                raise ValueError(f'padding: "same" needs stride 1, got stride {stride}')
        shape = (out_channels, in_channels // groups, *_pair(kernel_size))
        super().__init__(shape, b=b, max_out=max_out, eps=eps, unit_weights=unit_weights, bias=bias)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = padding if isinstance(padding, str) else _pair(padding)
        self.dilation = _pair(dilation)
        self.groups = groups
        self.padding_mode = padding_mode
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the filters from a normal distribution; only their directions matter where they are unit filters."""
        # the norm does set how far one optimiser step turns a filter: He's fan-out rule, as the public code has it
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o p q"]:
        padding = self.padding
        if self.padding_mode != "zeros" and padding != "valid":
            x = F.pad(x, self._padding_per_side(), mode=self.padding_mode)
            padding = 0
        y = bcos_conv2d(
            x,
            self.weight,
            b=self.exponent,
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=self.groups,
            max_out=self.max_out,
            detach=self.detach,
            eps=self.eps,
        )
        return self._complete(y, (-1, 1, 1))

    def _padding_per_side(self) -> list[int]:
        """Left, right, top, bottom, as F.pad takes them."""
        if self.padding == "same":
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [side for t in reversed(total) for side in (t // 2, t - t // 2)]
        return list(_reverse_repeat_tuple(self.padding, 2))

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        defaults = {"padding": (0, 0), "dilation": (1, 1), "groups": 1, "padding_mode": "zeros", "max_out": 1}
        text += "".join(f", {k}={v}" for k, default in defaults.items() if (v := getattr(self, k)) != default)
        return text + self._options_text()
