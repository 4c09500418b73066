"""Networks from named variables to named outputs: vector fields of ODEs, and regressors."""

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from bcos_core.functional import thin_product
from bcos_core.nn import BcosLinear, Detachable
from bcos_core.run.checkpoint import load_model, load_state, save_model
from bcos_core.run.error import InputError
from jaxtyping import Float
from torch import Tensor, nn

from .config import NetworkConfig
from .encoding import ConstantChannel, Encoding, InverseChannels, Standardised

EPS = 1e-30
"""Inside norms: a guard against 0/0 and nothing else. With more of it a B-cos network would not be homogeneous."""


class ReadOut(nn.Module):
    """The last layer: linear, without bias.

    Args:
        width: Units that are read.
        num_outputs: Outputs.
    """

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, width))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as nn.Linear

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch k"]:
        return thin_product(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"


class OutputScale(nn.Module):
    """Multiplies each output by a constant of its own."""

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.to(torch.float64).clone())

    def forward(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        return y * self.scale


class HomogeneousDegree(Detachable):
    """Raise a network that is homogeneous of degree one to degree p: network(e) · (|e| / κ)^(p-1).

    One wide enough B-cos layer with B = p, so raised, contains every polynomial of degree p and below in bounded
    variables, mass action among them: κ fills up what a monomial lacks, and tilts units away from changing sign, where
    an even power would turn odd. (For p > 2 to the 1e-6 that the layers add to the cosine.)

    Args:
        network: From channels to outputs.
        degree: p, at least 1.
        unit: κ, the constant channel's value.
    """

    def __init__(self, network: nn.Module, degree: float, unit: float) -> None:
        super().__init__()
        self.network = network
        self.degree = degree
        self.unit = unit

    def forward(self, e: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch k"]:
        size = (e.square().sum(-1, keepdim=True) + EPS).sqrt() / self.unit
        size = size ** (self.degree - 1)
        return self.network(e) * (size.detach() if self.detach else size)

    def extra_repr(self) -> str:
        return f"degree={self.degree:g}, unit={self.unit:g}"


class VariableModel(nn.Module):
    """Encoding and network over named variables: ``model(z) == model.network(model.encode(z))``.

    As a vector field, its outputs are the derivatives of its inputs.

    Args:
        encoding: From variables to channels.
        network: From channels to outputs.
        inputs: Names of the variables.
        outputs: Names of the outputs.
        config: What the network was built from.
    """

    def __init__(
        self,
        encoding: Encoding,
        network: nn.Module,
        inputs: Sequence[str],
        outputs: Sequence[str],
        config: NetworkConfig,
    ) -> None:
        super().__init__()
        self.encoding = encoding
        self.network = network
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.config = config

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of what the network sees, and contributions belong to."""
        return self.encoding.channels(self.inputs)

    @property
    def degree(self) -> float | None:
        """Degree p of homogeneity in the channels: J(e) e = p f(e). None of the tanh networks, which have none."""
        return {"degree": self.config.exponent, "bcos": 1.0}.get(self.config.model)

    @property
    def explains(self) -> bool:
        """Whether its contributions add up to its outputs."""
        return self.degree is not None

    def encode(self, z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """What the network sees of the variables.

        Raises:
            ValueError: If the last dimension is not that of the variables.
        """
        if z.shape[-1:] != (len(self.inputs),):
            raise ValueError(f"z: expected shape (..., {len(self.inputs)}), got {tuple(z.shape)}")
        return self.encoding(z)

    def forward(self, z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        return self.network(self.encode(z))

    def save(self, path: pathlib.Path) -> None:
        """Write the model with what rebuilds it; see :func:`bcos_core.run.checkpoint.save_model`."""
        description = {
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "network": dataclasses.asdict(self.config),
        }
        save_model(path, self, description)

    @classmethod
    def load(cls, path: pathlib.Path) -> "VariableModel":
        """Read what :meth:`save` wrote; in evaluation mode.

        Raises:
            InputError: If the file is missing, damaged, or describes another model than it holds.
        """
        state, found = load_model(path)
        try:
            config = NetworkConfig(**found["network"])
            data = DataScales.placeholder(len(found["inputs"]), len(found["outputs"]))
            model = create_model(config, found["inputs"], found["outputs"], data)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a description of a model of variables ({error})") from None
        load_state(model, state, str(path))
        return model.eval()


@dataclass(frozen=True)
class DataScales:
    """What a model has to know of its training data: constants, fixed before training."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    """Of each input."""
    output_mean: Tensor
    output_rms: Tensor
    """Root mean square of each output: sizes, not deviations."""

    @classmethod
    def of(cls, inputs: Float[Tensor, "n d"], outputs: Float[Tensor, "n k"]) -> "DataScales":
        """Of training samples.

        Raises:
            InputError: If an input never varies; names its column.
        """
        std = inputs.std(0, correction=0)
        if not (std > 0).all():
            raise InputError(f"input {int((std <= 0).nonzero()[0])} is the same in all training samples; leave it out")
        rms = outputs.square().mean(0).sqrt()
        rms = torch.where(rms > 0, rms, torch.ones_like(rms))
        return cls(inputs.mean(0), std, inputs.amin(0), inputs.amax(0), outputs.mean(0), rms)

    @classmethod
    def placeholder(cls, num_inputs: int, num_outputs: int) -> "DataScales":
        """Ones and zeros, until a state is loaded over them."""
        zero, one = torch.zeros(num_inputs, dtype=torch.float64), torch.ones(num_inputs, dtype=torch.float64)
        out = torch.ones(num_outputs, dtype=torch.float64)
        return cls(zero, one, zero, one, out * 0, out)


def create_model(
    config: NetworkConfig, inputs: Sequence[str], outputs: Sequence[str], scales: DataScales
) -> VariableModel:
    """Build a network over named variables, in float64, weights from torch's generator.

    Args:
        config: Kind, B or degree, depth, width, encoding.
        inputs: Names of the variables.
        outputs: Names of the outputs.
        scales: Of the training data.

    Example:
        >>> scales = DataScales.of(torch.rand(9, 2).double(), torch.rand(9, 1).double())
        >>> model = create_model(NetworkConfig(), ["x", "y"], ["z"], scales)
        >>> model(torch.rand(5, 2).double()).shape, model.channels
        (torch.Size([5, 1]), ('x', 'y', '1'))
    """
    config = config.resolve()
    assert config.depth is not None
    assert config.constant is not None
    encoding = _encoding(config, scales)
    width_in = encoding.rates().shape[0]
    layers: list[nn.Module] = []
    widths = [width_in, *[config.width] * config.depth]
    for before, after in itertools.pairwise(widths):
        if config.model in ("bcos", "degree"):
            layers.append(BcosLinear(before, after, b=config.exponent, eps=EPS))
        else:
            layers += [nn.Linear(before, after, bias=config.model == "mlp"), nn.Tanh()]
    # the last layer is linear: what it adds up are the contributions of all units, in the outputs' own units
    last = nn.Linear(widths[-1], len(outputs)) if config.model == "mlp" else ReadOut(widths[-1], len(outputs))
    layers += [last, OutputScale(scales.output_rms)]
    network: nn.Module = nn.Sequential(*layers)
    if config.model == "degree":
        network = HomogeneousDegree(network, config.exponent, config.constant)
    return VariableModel(encoding, network, inputs, outputs, config).double()


def _encoding(config: NetworkConfig, scales: DataScales) -> Encoding:
    if config.model == "mlp":
        return Standardised(scales.mean, scales.std)
    if config.encoding == "inverse":
        return InverseChannels(scales.low, scales.high)
    return ConstantChannel(scales.std, config.constant or 0.0 if config.encoding == "constant" else 0.0)
