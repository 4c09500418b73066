"""Which images stand in which grid: drawn once for all models and methods, so that their scores pair."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bcos_core.run.config import fingerprint
from bcos_core.run.error import InputError
from bcos_core.run.seed import derive_seed
from bcos_vision.data import Images, make_loader, to_unit_range
from bcos_vision.models import ImageClassifier
from bcos_vision.probability import probabilities
from bcos_vision.progress import track


@dataclass(frozen=True)
class Prediction:
    """What one model answers for each of N labelled images."""

    right: np.ndarray
    """Whether the true class has the largest logit, bool, (N,)."""
    confidence: np.ndarray
    """Probability of the true class, (N,)."""
    top_logit: np.ndarray
    """The largest logit, (N,)."""


@dataclass(frozen=True)
class Grids:
    """Images of distinct classes in squares of ``side`` x ``side`` cells, numbered down the columns."""

    side: int
    indices: np.ndarray
    """Which image stands in which cell, int, (G, side²)."""
    classes: np.ndarray
    """The image's class, int, (G, side²)."""
    source: str = ""
    """Fingerprint of the images."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def hash(self) -> str:
        """The same for two tables exactly if their grids were: of images, their places, and their classes."""
        plain = [array.astype("<i8").tobytes() for array in (self.indices, self.classes)]
        return fingerprint(self.source, str(self.side), *plain)


def predict(
    model: ImageClassifier,
    images: Images,
    *,
    softmax: bool = False,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> Prediction:
    """Answer every image of a set.

    Args:
        model: The classifier, on ``device`` and in evaluation mode.
        images: Images whose labels are the model's logits.
        softmax: The model was trained through a softmax, not by each logit's own probability.
        batch_size: Images at a time.
        device: Where to compute.
    """
    right, confidence, top = [], [], []
    for batch, labels in track(make_loader(images, batch_size), "confidences", -(-len(images) // batch_size)):
        with torch.no_grad():
            logits = model(to_unit_range(batch.to(device))).cpu()
        right.append(logits.argmax(1) == labels)
        confidence.append(probabilities(logits, softmax=softmax).gather(1, labels[:, None])[:, 0])
        top.append(logits.amax(1))
    return Prediction(*(torch.cat(part).numpy() for part in (right, confidence, top)))


def shared_images(predictions: Sequence[Prediction], *, threshold: float = 0.5) -> np.ndarray:
    """The images that every model classifies correctly with at least this probability (Rao et al., CVPR 2022).

    Args:
        predictions: Of each model, for the same images.
        threshold: Least probability of the true class.

    Returns:
        Whether an image is among them, bool, (N,).

    Example:
        >>> sure = Prediction(np.array([True, True]), np.array([0.9, 0.6]), np.zeros(2))
        >>> other = Prediction(np.array([True, True]), np.array([0.7, 0.4]), np.zeros(2))
        >>> shared_images([sure, other]).tolist()
        [True, False]
    """
    return np.logical_and.reduce([p.right & (p.confidence >= threshold) for p in predictions])


def count_grids(labels: np.ndarray, side: int) -> int:
    """How many grids of distinct classes can be made if every image stands in one at most.

    T grids can hold at most T images of a class: T is possible exactly if Σ_k min(n_k, T) >= T side².

    Example:
        >>> count_grids(np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 4]), side=2)  # the fourth 0 has no partners left
        2
    """
    counts = np.bincount(labels) if len(labels) else np.zeros(0, int)
    low, high = 0, len(labels) // side**2
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(counts, middle).sum() >= middle * side**2 else (low, middle - 1)
    return low


def draw_grids(
    labels: np.ndarray, usable: np.ndarray, *, side: int, number: int | None = None, seed: int = 0, source: str = ""
) -> Grids:
    """Draw grids of images of distinct classes; no image stands in two, and classes occur as evenly as they can.

    Args:
        labels: Class of each image, int, (N,).
        usable: Which images may be drawn (:func:`shared_images`), bool, (N,).
        side: Cells along a side, at least 2.
        number: How many; None for as many as there can be, 250 at most.
        seed: Of the draw.
        source: Fingerprint of the images, for the grids' hash.

    Raises:
        InputError: If a grid has more cells than there are classes, or there are too few images.

    Example:
        >>> labels = np.arange(40) % 10
        >>> grids = draw_grids(labels, labels >= 0, side=3)
        >>> len(grids), bool((labels[grids.indices] == grids.classes).all())
        (4, True)
    """
    cells, labels = side**2, np.asarray(labels)
    check_side(side, len(np.unique(labels)))
    counts = np.bincount(labels[usable], minlength=int(labels.max()) + 1)
    possible = count_grids(labels[usable], side)
    number = min(possible, 250) if number is None else number
    if not 1 <= number <= possible:
        raise too_few(number, possible, side, int(usable.sum()), int((counts > 0).sum()))
    rng = np.random.default_rng(derive_seed(seed, "grids", side))
    left = _share(counts, number, cells, rng)
    piles = [rng.permutation(np.flatnonzero(usable & (labels == k))).tolist() for k in range(len(counts))]
    classes = np.empty((number, cells), int)
    for grid in range(number):
        # a class with an image for each grid that is still to come has to stand in this one
        forced = np.flatnonzero(left == number - grid)
        weights = np.where(left == number - grid, 0, left).astype(float)
        free = cells - len(forced)
        drawn = rng.choice(len(left), free, replace=False, p=weights / weights.sum()) if free else forced[:0]
        classes[grid] = rng.permutation(np.concatenate([forced, drawn]))
        left[classes[grid]] -= 1
    indices = np.array([[piles[k].pop() for k in row] for row in classes])
    return Grids(side, indices, classes, source)


def draw_official_grids(
    prediction: Prediction, labels: np.ndarray, *, side: int, number: int | None = None, threshold: float = 0.5,
    source: str = "",
) -> Grids:  # fmt: skip
    """Draw one model's grids as the public B-cos v2 code does, index for index.

    Of each class the correctly classified images, most confident first (by logit), while the sigmoid of the logit
    exceeds the threshold; classes drawn by NumPy's legacy generator, seed 42, while *more* than side² of them have
    images left. That sequence is then cut into grids, and each cut drops the image that follows it: most grids do not
    hold the classes that were drawn together, and an image whose class is in its grid already is passed over. Grids
    are another model's no more, so scores of models do not pair; :func:`draw_grids` has neither trait.

    Args:
        prediction: The model's, for the N images.
        labels: Class of each image, int, (N,).
        side: Cells along a side.
        number: How many; None for as many as there are, 250 at most.
        threshold: The sigmoid of the largest logit has to exceed it.
        source: Fingerprint of the images, for the grids' hash.

    Raises:
        InputError: If a grid has more cells than there are classes, or there are too few images.
    """
    cells, labels = side**2, np.asarray(labels)
    check_side(side, len(np.unique(labels)))
    confident = torch.from_numpy(prediction.top_logit).sigmoid().numpy() > threshold
    usable = prediction.right & confident
    piles = []
    for k in range(int(labels.max()) + 1):
        mine = np.flatnonzero(usable & (labels == k))
        piles.append(mine[np.argsort(-prediction.top_logit[mine], kind="stable")][::-1].tolist())
    rng = np.random.RandomState(42)
    sequence: list[int] = []
    while len(available := np.flatnonzero([len(pile) > 0 for pile in piles])) > cells:
        sequence += [piles[k].pop() for k in rng.choice(available, cells, replace=False)]
    rows, place = [], 0
    while len(rows) < (250 if number is None else number):
        row: dict[int, int] = {}  # class -> image
        while len(row) < cells and place < len(sequence):
            row.setdefault(int(labels[sequence[place]]), sequence[place])
            place += 1
        if len(row) < cells:
            break
        rows.append(list(row.values()))
        place += 1
    if not rows or (number is not None and len(rows) < number):
        known = int(sum(np.bincount(labels[usable]) > 0)) if usable.any() else 0
        raise too_few(number or 1, len(rows), side, int(usable.sum()), known, whose="this model")
    indices = np.array(rows)
    return Grids(side, indices, labels[indices], source)


def check_side(side: int, num_classes: int) -> None:
    """Refuse grids that cannot be filled with distinct classes.

    Raises:
        InputError: Saying what fits.
    """
    if side < 2:
        raise InputError(f"--grid: expected at least 2 cells along a side, got {side}")
    if side**2 > num_classes:
        fits = f"at most --grid {int(num_classes**0.5)}" if num_classes >= 4 else "the game needs at least 4"
        raise InputError(f"--grid {side}: {side**2} cells need as many classes, and the data has {num_classes}: {fits}")


def too_few(
    number: int, possible: int, side: int, images: int, classes: int, *, whose: str = "every model"
) -> InputError:
    """The line for grids that cannot be drawn."""
    if number < 1 <= possible:
        return InputError(f"--grids: expected at least 1, got {number}")
    found = f"{images} images of {classes} classes are classified correctly and confidently enough by {whose}"
    if not possible:
        return InputError(f"--grid {side}: {found}, too few for any grid; lower --confidence or --grid")
    return InputError(
        f"--grids {number}: {found}, enough for {possible} grids of {side}x{side}; "
        f"lower --grids to {possible}, or --confidence or --grid"
    )


def _share(counts: np.ndarray, number: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """How many images each class gives, as equally as possible: number x cells in sum, at most ``number`` a class."""
    most = np.minimum(counts, number)
    level = next(z for z in range(number + 1) if np.minimum(most, z).sum() >= number * cells)
    shares = np.minimum(most, level)
    spare = int(shares.sum()) - number * cells
    shares[rng.choice(np.flatnonzero(shares == level), spare, replace=False)] -= 1
    return shares
