"""What a classification run is made of. Light to import: the command line answers ``--help`` from here."""

import math
from dataclasses import dataclass, field
from typing import Literal

from bcos_core.run.split import SplitConfig

from bcos_ode.config import short_name

Variant = Literal["bcos", "vanilla"]
Block = Literal["ode", "residual", "none"]
Method = Literal["euler", "midpoint", "heun", "rk4", "rk4_classic"]


@dataclass(frozen=True)
class ClassificationConfig:
    """One training run of a classifier whose depth is time."""

    data: str = "digits"
    """digits; or folder:PATH (train/ and test/ or val/ folders of class folders, or class folders alone)."""
    variant: Variant = "bcos"
    """bcos; vanilla (group norms, ReLUs and biases, as ODE-Net has them)."""
    block: Block = "ode"
    """Between stem and head. ode: the field, integrated over times 0 to 1; residual: one Euler step of it, which is a
    residual block; none: nothing. The latter two are controls."""
    b: float = 2.0
    """Exponent B of all layers, at least 1 (variant bcos)."""
    channels: int = 32
    """Channels of stem and field, a multiple of 8."""
    halvings: int = 1
    """Convolutions of stride 2 in the stem: each halves the side that the field works at."""
    method: Method = "midpoint"
    """Fixed-step method (block ode)."""
    steps: int = 4
    """Steps over the whole time (block ode)."""
    epochs: int = 20
    """Passes over the training images."""
    batch_size: int = 32
    lr: float = 1e-2
    """Largest learning rate of AdamW's one cycle."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    shift: int = 1
    """Largest shift of a training image in pixels, each way, drawn anew in each epoch (zero-padded)."""
    flip: bool = False
    """Mirror training images left-right with probability 1/2."""
    seed: int = 0
    """Seed of weights, shuffling and changes to images."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    num_explained: int = 500
    """Test images that are explained, and whose completeness is checked, after training."""
    split: SplitConfig = field(default_factory=SplitConfig)

    def __post_init__(self) -> None:
        """Refuse values that no run can have.

        Raises:
            ValueError: Naming the option, what came and what is expected.
        """
        for name in ("channels", "steps", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("halvings", "weight_decay", "shift", "seed", "num_explained"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name}: expected at least 0, got {getattr(self, name)}")
        if self.channels % 8:
            raise ValueError(f"--channels: expected a multiple of 8, got {self.channels}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"--lr: expected a positive number, got {self.lr}")
        if not 1 <= self.b < math.inf:
            raise ValueError(f"--b: expected a finite number >= 1, got {self.b}")
        if self.variant != "bcos" and self.b != 2:
            raise ValueError(f'--b: belongs to variant "bcos", not "{self.variant}"')
        if self.block != "ode" and (self.method, self.steps) != (type(self).method, type(self).steps):
            raise ValueError(f'--method, --steps: they belong to block "ode", not "{self.block}"')
        self.split.check()

    @property
    def arm(self) -> str:
        """Readable name of what is compared, everything but seed and fold."""
        name = f"{self.data_name} {self.variant} {self.block}"
        unusual = [
            f"B={self.b:g}" * (self.variant == "bcos"),
            f"{self.method} x{self.steps}" * (self.block == "ode"),
            f"{self.channels} channels" * (self.channels != type(self).channels),
        ]
        return " ".join([name, *filter(None, unusual)])

    @property
    def data_name(self) -> str:
        """The data as experiments call it: a folder by its own name, not its path."""
        return short_name(self.data)
