"""The metrics of a method on a model, by name, each with its direction."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from bcos_vision.models import ImageClassifier
from bcos_vision.probability import probabilities
from jaxtyping import Float, Int
from torch import Tensor, nn

from bcos_eval.attribution.attributor import Attributor
from bcos_eval.attribution.baseline import BaselineImage, baseline_images

from .correlation import faithfulness_correlation
from .deletion import area, deletion_curve
from .randomisation import compare_randomised, compare_targets
from .sparseness import gini_index
from .stability import sensitivity


@dataclass(frozen=True)
class FaithfulnessMetric:
    """What a number means."""

    higher_is_better: bool
    says: str


METRICS = {
    "deletion_mean": FaithfulnessMetric(
        False, "area under the class's probability, most relevant pixels replaced by the image's mean colour first"
    ),
    "deletion_blur": FaithfulnessMetric(False, "the same, pixels blurred"),
    "insertion_mean": FaithfulnessMetric(
        True, "area under the class's probability, most relevant pixels put first onto that colour"
    ),
    "insertion_blur": FaithfulnessMetric(True, "the same, onto the blurred image"),
    "faithfulness_correlation": FaithfulnessMetric(
        True, "what a set of pixels is said to give, and what its loss costs the logit"
    ),
    "cascading_rank": FaithfulnessMetric(
        False, "likeness, up to sign, to maps of randomised layers and all above (absolute Spearman, mean over layers)"
    ),
    "cascading_ssim": FaithfulnessMetric(False, "the same (absolute structural similarity)"),
    "independent_rank": FaithfulnessMetric(
        False, "likeness, up to sign, to maps with one randomised layer (absolute Spearman, mean over layers)"
    ),
    "independent_ssim": FaithfulnessMetric(False, "the same (absolute structural similarity)"),
    "random_logit": FaithfulnessMetric(False, "likeness, up to sign, to the map of another class (absolute Spearman)"),
    "max_sensitivity": FaithfulnessMetric(False, "largest relative change of the map under small noise"),
    "avg_sensitivity": FaithfulnessMetric(False, "mean relative change of the map under small noise"),
    "gini": FaithfulnessMetric(True, "sparseness"),
}
"""Deletion, insertion and correlation depend on how a model takes images it never saw: they compare methods on one
model, not models (arXiv 2407.11910)."""


def measure(
    make: Callable[[nn.Module], Attributor],
    model: ImageClassifier,
    images: Float[Tensor, "n c h w"],
    target: Int[Tensor, "n"],
    *,
    softmax: bool = False,
    most: int = 4,
    seed: int = 0,
) -> pd.DataFrame:
    """All metrics of a method on N images.

    Args:
        make: From a model to the method on it; randomised copies of the model get the method anew.
        model: The trained model, in evaluation mode.
        images: In [0, 1], at least 7x7 pixels, few enough for one batch.
        target: Class to explain, for each.
        softmax: The model was trained through a softmax.
        most: Randomised copies, cascading and independent each.
        seed: Of all draws.

    Returns:
        A row for each image and metric: image (its place in the batch), metric, score, seconds (of the metric, an
        image). Scores are not numbers where a metric is not defined (of a map of zeros).
    """
    attributor = make(model)
    maps = attributor.attribute(images, target).map

    def logit(x: Tensor) -> Tensor:
        return model(x).gather(1, target[:, None])[:, 0]

    def probability(x: Tensor) -> Tensor:
        return probabilities(model(x), softmax=softmax).gather(1, target[:, None])[:, 0]

    def curve(kind: BaselineImage, most_relevant_first: bool) -> Tensor:
        replaced = baseline_images(kind, images)
        found = deletion_curve(probability, images, maps, replaced, most_relevant_first=most_relevant_first, seed=seed)
        return area(found)

    def randomised(cascading: bool) -> tuple[Tensor, Tensor]:
        options = {"cascading": cascading, "most": most, "seed": seed}
        _, rank, alike = compare_randomised(make, model, images, target, **options)
        return rank.abs().mean(0), alike.abs().mean(0)  # the negative of a map points to the same places

    parts: list[tuple[tuple[str, ...], Callable[[], tuple[Tensor, ...]]]] = [
        *(((f"deletion_{kind}",), lambda kind=kind: (curve(kind, True),)) for kind in ("mean", "blur")),
        *(((f"insertion_{kind}",), lambda kind=kind: (curve(kind, False),)) for kind in ("mean", "blur")),
        (
            ("faithfulness_correlation",),
            lambda: (faithfulness_correlation(logit, images, maps, baseline_images("mean", images), seed=seed),),
        ),
        (("cascading_rank", "cascading_ssim"), lambda: randomised(True)),
        (("independent_rank", "independent_ssim"), lambda: randomised(False)),
        (("random_logit",), lambda: (compare_targets(attributor, images, target, model.num_classes, seed=seed).abs(),)),
        (("max_sensitivity", "avg_sensitivity"), lambda: sensitivity(attributor, images, target, seed=seed)),
        (("gini",), lambda: (gini_index(maps),)),
    ]
    rows = []
    for names, compute in parts:
        began = time.perf_counter()
        found = [values.detach().cpu().double().numpy() for values in compute()]
        seconds = (time.perf_counter() - began) / len(images)
        for name, values in zip(names, found, strict=True):
            frame = {"image": range(len(images)), "metric": name, "score": values, "seconds": seconds}
            rows.append(pd.DataFrame(frame))
    return pd.concat(rows, ignore_index=True)
