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
class ExponentConfig:
    """How the exponent B comes about: fixed, rising, or learnt, alone or against an objective (docs/maths.md)."""

    learn: Literal["global", "layer", "channel"] | None = None
    """Learn B, from where b says: one for the network, for each layer, or for each output channel."""
    objective: Literal["none", "max", "smooth_max", "at_most", "at_least"] = "none"
    """What learning it answers to besides the loss: max adds strength times the largest B; smooth_max its smooth form,
    which moves all that are near the largest; at_most and at_least keep the largest B below the bound, or the least
    above it, by multipliers."""
    strength: float = 0.1
    """Lambda of max and smooth_max."""
    sharpness: float = 20.0
    """Of smooth_max, log-sum-exp: the largest B to log(number of exponents) / sharpness."""
    bound: float = 2.0
    """Tau of at_most and at_least."""
    dual_lr: float = 0.001
    """Step of the multipliers of at_most and at_least, at each optimiser step."""
    lr: float = 0.02
    """Learning rate of B after the warm-up; the schedule is that of the weights."""
    start: float | None = None
    """B at the first step, where a fixed B is to rise to b."""
    rise_epochs: float | None = None
    """Epochs in which it does, in a straight line; by default a quarter of all."""


@dataclass(frozen=True)
class ConversionConfig:
    """Fine-tune a network: a plain one is made a B-cos one first (Arya et al., NeurIPS 2024, arXiv 2411.00715)."""

    source: str | None = None
    """Run or model file of the network. --from sets it, and the rest of the configuration for a fine-tuning."""
    biases: Literal["drop", "keep"] = "drop"
    """Whether biases, and the means of norms in them, go: kept, they are in every explanation's remainder."""
    pooling: Literal["average", "keep"] = "average"
    """Whether max pooling becomes average pooling."""


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
    encoding: Literal["inverse", "standardised"] | None = None
    """What the first layer sees: inverse, [x, 1-x]; standardised, mean 0 and standard deviation 1, as plain networks;
    by default what the variant is made for."""
    bias: bool = False
    """Give B-cos layers and their norms biases, which no input is responsible for (variant bcos)."""
    detach: bool = False
    """Train with the scales held constant in the backward pass, as explanations hold them (variant bcos)."""
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
    exponent: ExponentConfig = field(default_factory=ExponentConfig)
    conversion: ConversionConfig = field(default_factory=ConversionConfig)

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
        if self.variant != "bcos" and (self.bias or self.detach):
            raise ValueError(f'--bias, --detach: they belong to variant "bcos", not "{self.variant}"')
        if self.variant != "bcos" and self.encoding == "inverse":
            raise ValueError(f'--encoding inverse: belongs to variant "bcos", not "{self.variant}"')
        self._check_exponent()
        self._check_conversion()
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
        if self.augment.magnitude != AugmentConfig.magnitude and self.augment.policy != "randaugment":
            raise ValueError("--augment.magnitude: belongs to --augment.policy randaugment")
        self.split.check()
        size = self.eval_size or self.image_size
        if self.eval_resize is not None and size is None:
            raise ValueError("--eval_resize: needs the side of the crop, --image_size or --eval_size")
        if self.eval_resize is not None and size is not None and self.eval_resize < size:
            raise ValueError(f"--eval_resize: expected at least the side of the crop, {size}, got {self.eval_resize}")

    def _check_exponent(self) -> None:
        e, default = self.exponent, ExponentConfig()
        if self.variant != "bcos" and e != default:
            raise ValueError(f'--exponent: belongs to variant "bcos", not "{self.variant}"')
        self._check_least(e, "exponent.", {"strength": 0, "bound": 1, "rise_epochs": 0})
        for name in ("sharpness", "dual_lr", "lr"):
            if not 0 < getattr(e, name) < math.inf:
                raise ValueError(f"--exponent.{name}: expected a positive number, got {getattr(e, name)}")
        for name, objectives in (
            ("strength", ("max", "smooth_max")),
            ("sharpness", ("smooth_max",)),
            ("bound", ("at_most", "at_least")),
            ("dual_lr", ("at_most", "at_least")),
        ):
            if getattr(e, name) != getattr(default, name) and e.objective not in objectives:
                raise ValueError(f"--exponent.{name}: belongs to --exponent.objective {' or '.join(objectives)}")
        if e.lr != default.lr and e.learn is None:
            raise ValueError("--exponent.lr: belongs to exponents that are learnt (--exponent.learn)")
        if e.learn is None and e.objective != "none":
            raise ValueError(
                f"--exponent.objective {e.objective}: needs --exponent.learn, a fixed B answers to nothing"
            )
        if e.learn is not None and not self.b > 1:
            raise ValueError(f"--b: a learnt exponent starts above 1, where it can move; got {self.b}")
        if e.start is None:
            if e.rise_epochs is not None:
                raise ValueError("--exponent.rise_epochs: needs --exponent.start, from where B rises")
            return
        if e.learn is not None:
            raise ValueError("--exponent.start: moves a fixed B; a learnt one starts at --b")
        if not 1 <= e.start < math.inf:
            raise ValueError(f"--exponent.start: expected a finite number >= 1, got {e.start}")
        if e.rise_epochs is not None and e.rise_epochs > self.epochs:
            raise ValueError(f"--exponent.rise_epochs: expected at most {self.epochs}, got {e.rise_epochs:g}")
        if self.compile:
            raise ValueError("--exponent.start: every new B would be compiled anew; leave out --compile")
        if self.keep == "best":
            raise ValueError("--keep best: the best epoch may be one in which B was still rising; keep the last")
        if self.optim.ema:
            raise ValueError("--optim.ema: would average norms whose statistics are of smaller B; not while B rises")

    def _check_conversion(self) -> None:
        if self.conversion.source is None:
            if self.conversion != ConversionConfig():
                raise ValueError("--conversion: needs a network to begin with, --from RUN_ID or --from FILE")
            return
        if self.variant != "bcos":
            raise ValueError(f'--from: what it makes is of variant "bcos", not "{self.variant}"')
        own = {"max_out": 1, "norm": None, "encoding": None, "bias": False, "stem": None, "temperature": 1}
        for name, usual in own.items():
            if getattr(self, name) != usual:
                raise ValueError(f"--{name}: the network that --from names has its own")

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
            f"B={self.b:g}" * (self.variant == "bcos" and self.exponent.learn is None),
            self._learnt_text,
            f"rising from {self.exponent.start}" * (self.exponent.start is not None),
            self._fine_tuned_text,
            f"MaxOut {self.max_out}" * (self.max_out > 1),
            f"norm {self.norm}" * (self.norm is not None),
            f"encoding {self.encoding}" * (self.encoding is not None),
            "biases" * self.bias,
            "detached" * self.detach,
            f"stem {self.stem}" * (self.stem is not None),
            self.loss * (self.loss != "bce"),
            self.precision * (self.precision != "float32"),
            "EMA" * (self.optim.ema > 0),
        ]
        return " ".join([name, *filter(None, unusual)])

    @property
    def _fine_tuned_text(self) -> str:
        c, usual = self.conversion, ConversionConfig()
        if c.source is None:
            return ""
        kept = [
            f"{name} {getattr(c, name)}" for name in ("biases", "pooling") if getattr(c, name) != getattr(usual, name)
        ]
        return ", ".join(["fine-tuned", *kept])

    @property
    def _learnt_text(self) -> str:
        e = self.exponent
        if e.learn is None:
            return ""
        numbers = {"max": e.strength, "smooth_max": e.strength, "at_most": e.bound, "at_least": e.bound}
        objective = f" {e.objective} {numbers[e.objective]:g}" if e.objective != "none" else ""
        shared = "global" if e.learn == "global" else f"by {e.learn}"
        return f"B {shared}{objective}" + f" from {self.b:g}" * (self.b != 2)

    @property
    def data_name(self) -> str:
        """The data as experiments call it: a folder by its own name, not its path."""
        kind, _, path = self.data.partition(":")
        return f"{kind}:{path.rstrip('/').rpartition('/')[2]}" if path else kind
