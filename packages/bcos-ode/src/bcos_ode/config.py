"""What runs are made of. Light to import: the command line answers ``--help`` from here."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["bcos", "degree", "mlp", "mlp_nobias"]
EncodingKind = Literal["constant", "inverse", "scaled"]


@dataclass(frozen=True)
class NetworkConfig:
    """A network over named variables."""

    model: Kind = "bcos"
    """bcos: B-cos layers; degree: B-cos layers raised to a homogeneous degree (mass action); mlp: a plain tanh network;
    mlp_nobias: a plain one without biases, encoded as the B-cos ones."""
    b: float = 2.0
    """Exponent B of the layers, at least 1 (model bcos)."""
    degree: int = 2
    """Degree p, and the layers' B (model degree)."""
    depth: int = 2
    """Hidden layers; a linear read-out follows."""
    width: int = 32
    """Units in each."""
    encoding: EncodingKind = "constant"
    """constant: [z / std, constant]; inverse: [u, 1 - u] between the bounds seen in training; scaled: z / std alone, a
    control. A plain mlp standardises."""
    constant: float = 1.0
    """Value of the constant channel."""

    @property
    def exponent(self) -> float:
        """B of every layer."""
        return float(self.degree) if self.model == "degree" else self.b

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            ValueError: Naming the option, what came and what is expected.
        """
        for name, known in (("model", get_args(Kind)), ("encoding", get_args(EncodingKind))):
            if getattr(self, name) not in known:
                raise ValueError(f'--network.{name}: expected one of {", ".join(known)}, got "{getattr(self, name)}"')
        if not 1 <= self.b < math.inf:
            raise ValueError(f"--network.b: expected a finite number >= 1, got {self.b}")
        if self.b != 2 and self.model != "bcos":
            raise ValueError(f'--network.b: belongs to model "bcos", not "{self.model}"')
        if self.degree != 2 and self.model != "degree":
            raise ValueError(f'--network.degree: belongs to model "degree", not "{self.model}"')
        for name, least in (("degree", 1), ("depth", 0), ("width", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--network.{name}: expected at least {least}, got {getattr(self, name)}")
        if not 0 < self.constant < math.inf:
            raise ValueError(f"--network.constant: expected a positive number, got {self.constant}")
        if self.model == "mlp" and self.encoding != "constant":
            raise ValueError('--network.encoding: a plain "mlp" standardises its input; it has no other encoding')
        if self.constant != 1 and (self.model == "mlp" or self.encoding != "constant"):
            raise ValueError('--network.constant: belongs to encoding "constant", which this network does not have')


@dataclass(frozen=True)
class FitConfig:
    """How a network over variables is fitted: Adam down a cosine, then L-BFGS, both on all samples at once."""

    adam_steps: int = 2000
    lr: float = 1e-2
    """Adam's first learning rate."""
    lbfgs_steps: int = 600
    weight_decay: float = 0.0
    """Of AdamW."""
    max_samples: int = 2000
    """Samples that are fitted, drawn from more; 0 takes all."""

    def __post_init__(self) -> None:
        """Refuse what no fit can have.

        Raises:
            ValueError: Naming the option, what came and what is expected.
        """
        for name in ("adam_steps", "lbfgs_steps", "max_samples", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--fit.{name}: expected at least 0, got {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"--fit.lr: expected a positive number, got {self.lr}")
        if not self.adam_steps + self.lbfgs_steps:
            raise ValueError("--fit.adam_steps and --fit.lbfgs_steps are both 0: nothing would be fitted")
