"""What runs are made of. Light to import: the command line answers ``--help`` from here."""

import dataclasses
import math
import pathlib
from dataclasses import dataclass
from typing import Literal, get_args

HARE_LYNX = "series:hare-lynx"
"""Data that is named as a file is, and is none."""

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
    degree: int | None = None
    """Degree p, and the layers' B (model degree); by default that of the system, and 2 where there is none."""
    depth: int | None = None
    """Hidden layers; a linear read-out follows. By default 1 of model degree, 3 of bcos, 2 of the others."""
    width: int = 32
    """Units in each."""
    encoding: EncodingKind = "constant"
    """constant: [z / std, constant]; inverse: [u, 1 - u] between the bounds seen in training; scaled: z / std alone, a
    control. A plain mlp standardises."""
    constant: float | None = None
    """Value of the constant channel; by default 3 of model degree, so that no unit changes its sign among the data, and
    1 of the others."""

    def resolve(self, degree: int = 2) -> "NetworkConfig":
        """The same with every default filled in.

        Args:
            degree: Of the system, for a model of that degree.

        Example:
            >>> NetworkConfig(model="degree").resolve(3).degree, NetworkConfig().resolve().depth
            (3, 3)
        """
        is_degree = self.model == "degree"
        depth = {"degree": 1, "bcos": 3}.get(self.model, 2)
        return dataclasses.replace(
            self,
            degree=self.degree or (max(degree, 1) if is_degree else None),
            depth=depth if self.depth is None else self.depth,
            constant=self.constant or (3.0 if is_degree else 1.0),
        )

    @property
    def exponent(self) -> float:
        """B of every layer of a resolved configuration."""
        if self.model != "degree":
            return self.b
        assert self.degree is not None
        return float(self.degree)

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
        if self.degree is not None and self.model != "degree":
            raise ValueError(f'--network.degree: belongs to model "degree", not "{self.model}"')
        for name, least in (("degree", 1), ("depth", 0), ("width", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"--network.{name}: expected at least {least}, got {value}")
        if self.constant is not None and not 0 < self.constant < math.inf:
            raise ValueError(f"--network.constant: expected a positive number, got {self.constant}")
        if not self.depth and self.depth is not None:  # the linear read-out alone
            for name in ("b", "width"):
                if getattr(self, name) != getattr(type(self), name):
                    raise ValueError(f"--network.{name}: belongs to hidden layers, and --network.depth is 0")
        if self.model == "mlp" and self.encoding != "constant":
            raise ValueError('--network.encoding: a plain "mlp" standardises its input; it has no other encoding')


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
        for name in ("lr", "weight_decay"):
            usual = getattr(type(self), name)
            if not self.adam_steps and getattr(self, name) != usual:
                raise ValueError(
                    f"--fit.{name}: belongs to Adam, and --fit.adam_steps is 0; expected {usual:g}, got "
                    f"{getattr(self, name):g}"
                )


def absolute(data: str) -> str:
    """A data name whose path, if it has one, means the same from anywhere.

    Example:
        >>> absolute("digits"), absolute("csv:/here/../there/a.csv")
        ('digits', 'csv:/there/a.csv')
    """
    kind, colon, path = data.partition(":")
    if not path or data == HARE_LYNX:
        return data
    return f"{kind}{colon}{pathlib.Path(path).expanduser().resolve()}"


def short_name(data: str) -> str:
    """A data name as experiments are called: a file or folder by its own name, not its path.

    Example:
        >>> short_name("csv:/there/a.csv"), short_name("folder:photos/"), short_name("digits")
        ('csv:a.csv', 'folder:photos', 'digits')
    """
    kind, _, path = data.partition(":")
    return f"{kind}:{pathlib.PurePath(path).name}" if path else kind
