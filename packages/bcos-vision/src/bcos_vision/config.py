"""What a training run is made of. Light to import: the command line answers ``--help`` from here."""

import math
from dataclasses import dataclass, field
from typing import Literal

from bcos_core.run.split import SplitConfig

Variant = Literal["bcos", "baseline", "standard"]
Loss = Literal["bce", "bce_uniform", "cross_entropy"]


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to training images, drawn anew in each epoch from the run's seed.

    Crops and policies are a function of seed, epoch and image alone; the others of the place in the epoch, too, so that
    several processes draw otherwise than one.
    """

    shift: int = 0
    """Largest shift in pixels, up, down, left and right (zero-padded random crop)."""
    flip: bool = False
    """Mirror left-right with probability 1/2."""
    crop: float = 0.0
    """Smallest share of the image's area in a random crop of random shape, resized to the image size (ImageNet: 0.08);
    0 crops the centre."""
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    """Colour and shape changes: RandAugment (arXiv 1909.13719; two of them) or TrivialAugment (arXiv 2103.10158; one,
    wide ranges)."""
    magnitude: int = 9
    """Strength of RandAugment's changes, 0 to 30."""
    erase: float = 0.0
    """Probability that a random rectangle is blanked (arXiv 1708.04896)."""
    mixup: float = 0.0
    """Alpha of mixup (arXiv 1710.09412): images and targets are mixed in pairs; 0 is off."""
    cutmix: float = 0.0
    """Alpha of CutMix (arXiv 1905.04899): a rectangle of another image; with mixup, a coin decides for each batch."""
    repeats: int = 1
    """Times that a drawn image stands in an epoch, changed anew each time, while the epoch keeps its length (repeated
    augmentation, arXiv 1901.09335)."""


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and schedule: a linear warm-up, then a cosine down to zero."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    """adamw decays weights apart from the gradient, adam within it; sgd has Nesterov momentum 0.9."""
    lr: float = 1e-3
    """Learning rate after the warm-up."""
    weight_decay: float = 0.0
    """Weight decay; none on norms and biases."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""
    agc: float = 0.0
    """Adaptive gradient clipping (arXiv 2102.06171): largest norm of a unit's gradient, as a share of the norm of its
    weights; 0 is off."""
    clip: float = 0.0
    """Largest norm of the whole gradient; 0 is off."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, which is then what is scored and kept; 0 is off."""
    ema_every: int = 1
    """Steps between updates of the average."""
    accumulate: int = 1
    """Batches that make one step: as one batch of that many times the images would, for less memory."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    data: str = "digits"
    """digits; cifar10, imagenet or tiny-imagenet, with :PATH where they lie elsewhere than in the data folder; or
    folder:PATH (train/ and val/ folders of class folders, or class folders alone)."""
    model: str = "resnet20"
    """A name of `bcos-vision models`."""
    variant: Variant = "bcos"
    """bcos; baseline (plain layers, no bias); standard (as published)."""
    stem: Literal["cifar"] | None = None
    """cifar: the first layers for images of some 32 pixels, of any model; the model's own where it is not given."""
    b: float = 2.0
    """Exponent B, at least 1 (variant bcos)."""
    max_out: int = 1
    """Filters that compete for one output channel (variant bcos)."""
    norm: str | None = None
    """Norm layer: batch, layer, group, instance or position, each also with _uncentered, or none; the model's own
    where it is not given."""
    logit_bias: float | None = None
    """Fixed bias of the logits (variants bcos and baseline); by default that of probability 1/K."""
    temperature: float = 1.0
    """Fixed divisor of the logits (variants bcos and baseline)."""
    loss: Loss = "bce"
    """bce: binary cross-entropy of each logit; bce_uniform: the same with 1/K for the classes that are not there, as
    the papers train ImageNet; cross_entropy: of the softmax."""
    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 64
    """Images in a batch, over all devices together."""
    seed: int = 0
    """Seed of weights, shuffling and augmentation."""
    image_size: int | None = None
    """Side that images are cropped to; needed where image sizes differ."""
    eval_size: int | None = None
    """Side that images are cropped to where they are scored, if not image_size."""
    eval_resize: int | None = None
    """Size of the shorter side before that crop is taken from the centre (ImageNet: 256); by default the crop's."""
    skip_corrupt: bool = False
    """Leave out image files that cannot be decoded, and list them; otherwise the first one ends the run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    devices: int = 1
    """Devices on each node (with device cpu: processes); 0 takes every GPU."""
    nodes: int = 1
    """Nodes, as torchrun or SLURM have started them."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of training; the 16-bit ones are mixed precision."""
    compile: bool = False
    """Compile the training step (torch.compile)."""
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
        self._check_least(self, "", {"max_out": 1, "epochs": 1, "batch_size": 1, "nodes": 1})
        self._check_least(self, "", dict.fromkeys(("seed", "num_workers", "num_explained", "devices"), 0))
        self._check_least(self, "", dict.fromkeys(("image_size", "eval_size", "eval_resize"), 4))
        self._check_least(self.augment, "augment.", {"shift": 0, "magnitude": 0, "mixup": 0, "cutmix": 0, "repeats": 1})
        self._check_least(self.optim, "optim.", dict.fromkeys(("weight_decay", "warmup_epochs", "agc", "clip"), 0))
        self._check_least(self.optim, "optim.", {"ema_every": 1, "accumulate": 1})
        if not 1 <= self.b < math.inf:
            raise ValueError(f"--b: expected a finite number >= 1, got {self.b}")
        if self.variant != "bcos" and (self.b != 2 or self.max_out != 1):
            raise ValueError(f'--b, --max_out: they belong to variant "bcos", not "{self.variant}"')
        if self.variant == "standard" and (self.logit_bias is not None or self.temperature != 1):
            raise ValueError('--logit_bias, --temperature: they belong to variants "bcos" and "baseline"')
        if self.logit_bias is not None and not math.isfinite(self.logit_bias):
            raise ValueError(f"--logit_bias: expected a finite number, got {self.logit_bias}")
        for name, positive in (("temperature", self.temperature), ("optim.lr", self.optim.lr)):
            if not 0 < positive < math.inf:
                raise ValueError(f"--{name}: expected a positive number, got {positive}")
        for name, share in (
            ("augment.crop", self.augment.crop),
            ("augment.erase", self.augment.erase),
            ("optim.ema", self.optim.ema),
        ):
            if not 0 <= share < 1:
                raise ValueError(f"--{name}: expected a share in [0, 1), got {share}")
        if self.optim.warmup_epochs > self.epochs:
            raise ValueError(f"--optim.warmup_epochs: expected at most {self.epochs}, got {self.optim.warmup_epochs}")
        if self.optim.ema_every > 1 and not self.optim.ema:
            raise ValueError("--optim.ema_every: needs --optim.ema")
        if self.augment.repeats > 1 and self.augment == AugmentConfig(repeats=self.augment.repeats):
            raise ValueError("--augment.repeats: needs something random: the copies would all be alike")
        if self.augment.magnitude > 30:
            raise ValueError(f"--augment.magnitude: expected at most 30, got {self.augment.magnitude}")
        self.split.check()
        size = self.eval_size or self.image_size
        if self.eval_resize is not None and (size is None or self.eval_resize < size):
            raise ValueError(f"--eval_resize: expected at least the side of the crop, {size}, got {self.eval_resize}")

    @staticmethod
    def _check_least(group: object, prefix: str, least: dict[str, int]) -> None:
        for name, bound in least.items():
            value = getattr(group, name)
            if value is not None and not bound <= value < math.inf:
                raise ValueError(f"--{prefix}{name}: expected at least {bound}, got {value}")

    @property
    def arm(self) -> str:
        """Readable name of what is compared, everything but seed and fold: what is not as usual stands in it."""
        name = f"{self.data_name} {self.model} {self.variant}"
        unusual = [
            f"B={self.b:g}" * (self.variant == "bcos"),
            f"MaxOut {self.max_out}" * (self.max_out > 1),
            f"norm {self.norm}" * (self.norm is not None),
            f"stem {self.stem}" * (self.stem is not None),
            self.loss * (self.loss != "bce"),
            self.precision * (self.precision != "float32"),
            "EMA" * (self.optim.ema > 0),
        ]
        return " ".join([name, *filter(None, unusual)])

    @property
    def data_name(self) -> str:
        """The data as experiments call it: a folder by its own name, not its path."""
        kind, _, path = self.data.partition(":")
        return f"{kind}:{path.rstrip('/').rpartition('/')[2]}" if path else kind
