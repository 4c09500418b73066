"""What a training run is made of. Light to import: the command line answers ``--help`` from here."""

import math
from dataclasses import dataclass, field
from typing import Literal

Variant = Literal["bcos", "baseline", "standard"]


@dataclass(frozen=True)
class SplitConfig:
    """Which samples train, select and test, where the data does not say so itself."""

    test: float = 0.2
    """Share held out for the test, stratified."""
    val: float = 0.1
    """Share of the others that is scored after each epoch, stratified."""
    seed: int = 0
    """Seed of the draw; apart from the run's seed, so that runs with other seeds are tested on the same images."""


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to training images."""

    shift: int = 0
    """Largest shift in pixels, up, down, left and right (zero-padded random crop)."""
    flip: bool = False
    """Mirror left-right with probability 1/2."""


@dataclass(frozen=True)
class OptimConfig:
    """Adam with a cosine schedule down to zero."""

    lr: float = 1e-3
    """Learning rate after the warm-up."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW)."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    data: str = "digits"
    """digits, or folder:PATH (train/ and val/ folders of class folders, or class folders alone)."""
    model: str = "resnet20"
    """A name of `bcos-vision models`."""
    variant: Variant = "bcos"
    """bcos; baseline (plain layers, no bias); standard (as published)."""
    b: float = 2.0
    """Exponent B, at least 1 (variant bcos)."""
    max_out: int = 1
    """Filters that compete for one output channel (variant bcos)."""
    norm: str | None = None
    """Norm layer: batch_uncentered, layer_uncentered, group_uncentered, instance_uncentered, position_uncentered,
    batch or none; the variant's own where it is not given."""
    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 64
    """Images in a step."""
    seed: int = 0
    """Seed of weights, shuffling and augmentation."""
    image_size: int | None = None
    """Resize the shorter side to this and crop the centre; needed where image sizes differ."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    num_workers: int = 0
    """Processes that decode images too many to hold in memory."""
    keep: Literal["last", "best"] = "last"
    """Which epoch's model the run keeps: the last, where the schedule ends, or the one with the lowest validation
    loss. Both states stay in the run's folder."""
    num_explained: int = 500
    """Test images that are explained, and whose completeness is checked, after training."""
    split: SplitConfig = field(default_factory=SplitConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        """Refuse values that no run can have.

        Raises:
            ValueError: Naming the option, what came and what is expected.
        """
        if not 1 <= self.b < math.inf:
            raise ValueError(f"--b: expected a finite number >= 1, got {self.b}")
        for name in ("max_out", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("seed", "num_workers", "num_explained"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name}: expected at least 0, got {getattr(self, name)}")
        if self.image_size is not None and self.image_size < 4:
            raise ValueError(f"--image_size: expected at least 4, got {self.image_size}")
        if self.variant != "bcos" and (self.b != 2 or self.max_out != 1):
            raise ValueError(f'--b, --max_out: they belong to variant "bcos", not "{self.variant}"')
        for name, share in (("test", self.split.test), ("val", self.split.val)):
            if not 0 <= share < 1:
                raise ValueError(f"--split.{name}: expected a share in [0, 1), got {share}")
        if self.augment.shift < 0:
            raise ValueError(f"--augment.shift: expected at least 0, got {self.augment.shift}")
        if not 0 < self.optim.lr < math.inf:
            raise ValueError(f"--optim.lr: expected a positive number, got {self.optim.lr}")
        if self.optim.weight_decay < 0 or self.optim.warmup_epochs < 0:
            raise ValueError("--optim.weight_decay, --optim.warmup_epochs: expected at least 0")

    @property
    def arm(self) -> str:
        """Readable name of what is compared: everything but seed and fold."""
        options = "" if self.variant != "bcos" else f" B={self.b:g}" + (f" MaxOut {self.max_out}" * (self.max_out > 1))
        return f"{self.data_name} {self.model} {self.variant}{options}"

    @property
    def data_name(self) -> str:
        """The data as experiments call it: a folder by its own name, not its path."""
        kind, _, path = self.data.partition(":")
        return f"{kind}:{path.rstrip('/').rpartition('/')[2]}" if path else kind
