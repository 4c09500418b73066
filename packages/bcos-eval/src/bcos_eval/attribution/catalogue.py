"""The methods by name, and what makes one ready for a model."""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from bcos_core.explanation.mode import evaluating, exact_arithmetic, uncompiled
from bcos_core.run.error import InputError
from bcos_core.run.registry import Registry
from jaxtyping import Float, Int
from torch import Tensor, nn

from . import cam, gradients, perturbation
from .attributor import Attribution, Attributor
from .baseline import Baseline, check_baseline
from .draw import image_seed
from .subject import Found, Subject

Cost = Literal["a pass", "tens of passes", "hundreds of passes"]

_INPUTS = 2**22
"""Numbers that the inputs of one pass hold at most, 27 photographs of 224x224 pixels; halved when memory runs out."""
_ROWS = 256


@dataclass(frozen=True)
class Method:
    """An attribution method."""

    name: str
    says: str
    """What it computes, in a line."""
    cost: Cost
    """Of an image."""
    compute: Callable[..., Found]
    draws: bool = False
    """Whether its result depends on the seed."""
    options: tuple[str, ...] = field(init=False)
    """What :func:`create_attributor` takes for it; of these "baseline" is common to those that have one."""

    def __post_init__(self) -> None:
        parameters = inspect.signature(self.compute).parameters.values()
        object.__setattr__(self, "options", tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY))

    @property
    def baselines(self) -> tuple[str, ...]:
        """What it can compare an image with; none where it does not compare."""
        parameter = inspect.signature(self.compute).parameters.get("baseline")
        return () if parameter is None else get_args(parameter.annotation)

    @property
    def is_quick(self) -> bool:
        """Whether it takes less than a hundred passes for an image."""
        return self.cost != "hundreds of passes"


METHODS: Registry[Method] = Registry("method")
for _method in (
    Method(
        "bcos", "what each pixel contributed: W(x) x, dynamic weights held constant", "a pass", gradients.contributions
    ),
    Method("saliency", "absolute gradient", "a pass", gradients.saliency),
    Method("gradient", "gradient", "a pass", gradients.gradient),
    Method("input_x_gradient", "input times gradient", "a pass", gradients.input_x_gradient),
    Method(
        "integrated_gradients",
        "input minus baseline, times the mean gradient on the way",
        "tens of passes",
        gradients.integrated_gradients,
    ),
    Method("deeplift", "differences to a baseline, by the Rescale rule", "a pass", gradients.deeplift),
    Method("gradcam", "last feature map, weighted with its mean gradient", "a pass", cam.gradcam),
    Method("guided_backprop", "gradient, at ReLUs only what is positive", "a pass", gradients.guided_backprop),
    Method("smoothgrad", "mean gradient of noisy inputs", "tens of passes", gradients.smoothgrad, draws=True),
    Method("occlusion", "fall of the logit when a window is hidden", "hundreds of passes", perturbation.occlusion),
    Method(
        "lime",
        "linear model of superpixels switched off at random",
        "hundreds of passes",
        perturbation.lime,
        draws=True,
    ),
    Method(
        "kernel_shap",
        "superpixels' Shapley values, by weighted regression",
        "hundreds of passes",
        perturbation.kernel_shap,
        draws=True,
    ),
    Method(
        "rise", "mean logit over random masks that show a pixel", "hundreds of passes", perturbation.rise, draws=True
    ),
):
    METHODS.register(_method.name)(_method)


def create_attributor(
    name: str, model: nn.Module, *, seed: int = 0, baseline: Baseline | None = None, **options: Any
) -> Attributor:
    """Make a method ready for a model.

    Args:
        name: One of :data:`METHODS`.
        model: From images (N, C, H, W) to logits (N, K). Where it encodes (``model.encode``), the encoded image is
            attributed and what perturbs perturbs the image; otherwise both are of the model's input, as are baselines.
        seed: Of what the method draws at random, for each image anew; the others have no use for it. An image's result
            depends on the seed and the image, not on its neighbours in the batch.
        baseline: What images are compared with, by the methods that do (:mod:`bcos_eval.attribution.baseline`); None
            for "grey".
        **options: The method's own, as ``METHODS[name].options`` lists them and the docstring of
            ``METHODS[name].compute`` explains.

    Raises:
        InputError: If the method or an option is unknown, naming the nearest one, or the method cannot compare with
            the baseline.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        >>> images, target = torch.rand(2, 1, 4, 4), torch.tensor([0, 2])
        >>> found = create_attributor("integrated_gradients", model, steps=20).attribute(images, target)
        >>> found.map.shape, bool((found.residual < 1e-5).all())
        (torch.Size([2, 4, 4]), True)
    """
    method = METHODS[name]
    if baseline is not None:
        options["baseline"] = baseline
    for option in options:
        if option not in method.options:
            near = difflib.get_close_matches(option, method.options, n=1, cutoff=0.5)
            hint = f'; did you mean "{near[0]}"?' if near else f"; it has {', '.join(method.options) or 'none'}"
            raise InputError(f'{name}: unknown option "{option}"{hint}')
    if "baseline" in options:
        check_baseline(options["baseline"], method.baselines)
    return _Prepared(name, method, model, seed, options)


@dataclass
class _Prepared:
    name: str
    method: Method
    model: nn.Module
    seed: int
    options: dict[str, Any]

    def attribute(self, images: Float[Tensor, "n c h w"], target: Int[Tensor, "n"]) -> Attribution:
        """As :class:`~bcos_eval.attribution.Attributor` says.

        The model's training flags are restored, no ``.grad`` is touched, and no hook stays.

        Raises:
            ValueError: If images or targets are of another shape, kind or range than the model's.
            InputError: If an option is out of range, or the method cannot work on the network.
        """
        model = uncompiled(self.model)
        _check_images(images, encodes=hasattr(model, "encode"))
        with torch.inference_mode(False), torch.enable_grad(), evaluating(model), exact_arithmetic():
            images = images.detach().clone()
            target = _checked_target(target, images, model)
            parts: list[Found] = []
            rows = max(1, min(_ROWS, _INPUTS // images[0].numel()))
            done = 0
            while done < len(images):
                # methods of many passes fill their batches with one image
                size = rows if self.method.cost == "a pass" else 1
                try:
                    part = images[done : done + size]
                    parts.append(self._compute(Subject(model, rows), part, target[done : done + size]))
                    done += size
                except torch.OutOfMemoryError:
                    if rows == 1:
                        raise
                    rows //= 2
        maps, residuals = zip(*parts, strict=True)
        known = [r for r in residuals if r is not None]
        kind = images.dtype  # captum's occlusion answers float32 whatever comes
        residual = torch.cat(known).to(kind) if known else None
        return Attribution(torch.cat(maps).detach().to(kind), target, residual)

    def _compute(self, subject: Subject, images: Tensor, target: Tensor) -> Found:
        if not self.method.draws:
            return self.method.compute(subject, images, target, **self.options)
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            torch.manual_seed(image_seed(images[0], self.seed))  # methods that draw take an image at a time
            return self.method.compute(subject, images, target, **self.options)


def _check_images(images: Tensor, *, encodes: bool) -> None:
    if not isinstance(images, Tensor) or images.dim() != 4 or not images.is_floating_point() or not len(images):
        got = f"{images.dtype} of shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images: expected floating-point images, shape (N, C, H, W) with N >= 1, got {got}")
    low, high = float(images.min()), float(images.max())
    if encodes and not (low >= -1e-3 and high <= 1 + 1e-3):  # interpolation may overshoot a little
        raise ValueError(f"images: expected values in [0, 1], got {low:g} to {high:g}")


def _checked_target(target: Tensor, images: Tensor, model: nn.Module) -> Tensor:
    if not isinstance(target, Tensor) or target.shape != (len(images),) or target.is_floating_point():
        got = f"{target.dtype} of shape {tuple(target.shape)}" if isinstance(target, Tensor) else repr(target)
        raise ValueError(f"target: expected {len(images)} class indices, one for each image, got {got}")
    with torch.no_grad():
        logits = model(images[:1])
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 1:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model: expected logits of shape (N, K), got {got} for N = 1")
    target = target.to(images.device).long()
    if not 0 <= int(target.min()) <= int(target.max()) < logits.shape[1]:
        raise ValueError(
            f"target: expected classes from 0 to {logits.shape[1] - 1}, got {target.min()} to {target.max()}"
        )
    return target
