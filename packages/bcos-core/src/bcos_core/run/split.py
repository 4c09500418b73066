"""Index sets: which samples train, which select, which are scored once; by shares, or fold by fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .error import InputError

if TYPE_CHECKING:
    import numpy as np

VARIES = ("seed", "split.seed", "split.fold", "split.inner_fold")
"""Options that runs of one arm differ in."""


@dataclass(frozen=True)
class SplitConfig:
    """Which samples train, select and test, where the data does not say so itself."""

    test: float = 0.2
    """Share held out for the test, stratified where there are classes."""
    val: float = 0.1
    """Share of the others that is scored after each epoch, likewise."""
    seed: int = 0
    """Seed of the draw; apart from the run's seed, so that runs with other seeds are tested on the same samples."""
    folds: int = 0
    """Cross-validation: parts that all samples but the data's own test are cut into, each the test once; 0 is off."""
    fold: int = 0
    """Which part is the test, from 0."""
    inner_folds: int = 0
    """Parts that the training samples of all this are cut into again, one of which is then the test: for choosing
    options without a look at the outer test; 0 is off."""
    inner_fold: int = 0
    """Which of these parts is the test."""

    @property
    def has_folds(self) -> bool:
        """Whether the test is a fold, and not what the data or a share says."""
        return bool(self.folds or self.inner_folds)

    def check(self) -> None:
        """Refuse what no training run can have.

        Raises:
            ValueError: Naming the option, what came and what is expected.
        """
        for name in ("test", "val"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--split.{name}: expected a share in [0, 1), got {getattr(self, name)}")
        for name, parts, part in (("fold", self.folds, self.fold), ("inner_fold", self.inner_folds, self.inner_fold)):
            if parts == 1 or parts < 0:
                raise ValueError(f"--split.{name}s: expected 0 or at least 2, got {parts}")
            if not 0 <= part < max(parts, 1):
                raise ValueError(f"--split.{name}: expected 0 to {max(parts, 1) - 1}, got {part} (--split.{name}s)")


@dataclass(frozen=True)
class Split:
    """Disjoint, sorted index sets."""

    train: np.ndarray
    val: np.ndarray
    """Chooses the best epoch; may be empty."""
    test: np.ndarray
    """Scored once, at the end; may be empty."""


def stratified_split(labels: Sequence[int], *, test: float, val: float, seed: int) -> Split:
    """Split samples so that each part has each class in its share.

    Args:
        labels: Class of each sample.
        test: Share of all samples held out for the test, in [0, 1); or 1 for all of them, where nothing is trained.
        val: Share of the others for validation, in [0, 1).
        seed: Seed of the draw.

    Raises:
        InputError: If a class is too small to be in every part, or a share is out of range.

    Example:
        >>> split = stratified_split([0, 1] * 50, test=0.2, val=0.1, seed=0)
        >>> len(split.train), len(split.val), len(split.test)
        (72, 8, 20)
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

    y = np.asarray(labels)
    if test == 1 and val == 0:
        return Split(np.arange(0), np.arange(0), np.arange(len(y)))
    for name, share in (("test", test), ("val", val)):
        if not 0 <= share < 1:
            raise InputError(f"split.{name}: expected a share in [0, 1), got {share}")

    def hold_out(pool: np.ndarray, share: float, name: str) -> tuple[np.ndarray, np.ndarray]:
        if share == 0:
            return pool, pool[:0]
        try:
            kept, held = train_test_split(pool, test_size=share, stratify=y[pool], random_state=seed)
        except ValueError as error:
            raise InputError(f"split.{name}={share:g} does not work for these {len(pool)} samples: {error}") from None
        for part in (kept, held):  # the draw rounds, and leaves out a class too small without a word
            if (absent := np.setdiff1d(y[pool], y[part])).size:
                count = int((y[pool] == absent[0]).sum())
                raise InputError(f"split.{name}={share:g}: class {absent[0]} is too small with {count} samples")
        return np.sort(kept), np.sort(held)

    rest, test_indices = hold_out(np.arange(len(y)), test, "test")
    train, val_indices = hold_out(rest, val, "val")
    return Split(train, val_indices, test_indices)


def fold_split(labels: Sequence[int], *, folds: int, fold: int, val: float, seed: int) -> Split:
    """One fold of a stratified K-fold cross-validation: each sample is in the test of exactly one of them.

    Args:
        labels: Class of each sample.
        folds: Parts that the samples are cut into, at least 2.
        fold: Which part is the test, from 0.
        val: Share of the others for validation, in [0, 1).
        seed: Seed of the cut: other seeds, other folds.

    Raises:
        InputError: If a class has fewer samples than there are folds, or a number is out of range.

    Example:
        >>> import numpy as np
        >>> parts = [fold_split([0, 1] * 10, folds=5, fold=k, val=0, seed=0).test for k in range(5)]
        >>> sorted(np.concatenate(parts).tolist()) == list(range(20))
        True
    """
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    y = np.asarray(labels)
    if folds < 2 or not 0 <= fold < folds:
        raise InputError(f"folds: expected at least 2 and a fold below their number, got {folds} and {fold}")
    classes, counts = np.unique(y, return_counts=True)
    if counts.min() < folds:
        raise InputError(f"{folds} folds: class {classes[counts.argmin()]} has only {counts.min()} samples")
    train, test = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y))[fold]
    chosen = stratified_split(y[train].tolist(), test=0, val=val, seed=seed)
    return Split(train[chosen.train], train[chosen.val], test)


def divide(
    labels: Sequence[int],
    split: SplitConfig,
    *,
    own_test: bool = False,
    own_val: bool = False,
    names: Sequence[str] | None = None,
) -> Split:
    """Divide samples as a configuration says: by shares, or as a fold of a cross-validation.

    With inner folds the test is one of the parts that the training samples of the outer split are cut into: nothing
    that is chosen by inner scores has seen the outer test.

    Args:
        labels: Class of each sample; all the same where there are none.
        split: Shares, or folds.
        own_test: The data has test samples of its own; none are held out, unless as a fold.
        own_val: It has validation samples of its own.
        names: Of the classes, for messages.

    Raises:
        InputError: If a class is too small for it, or a share was given for a part that the data has itself.
    """
    import numpy as np

    if split.test not in (SplitConfig.test, 1) and (split.folds or own_test):
        decided = "--split.folds says what is tested" if split.folds else "the data has a test of its own"
        raise InputError(f"--split.test: has no effect, {decided}; leave it out")
    if split.val not in (SplitConfig.val, 0) and own_val:
        raise InputError("--split.val: has no effect, the data has a validation set of its own; leave it out")
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) > 1 and counts.min() == 1 and (split.has_folds or split.val or (split.test and not own_test)):
        single = int(classes[counts.argmin()])
        which = single if names is None else f'"{names[single]}"'
        raise InputError(f"class {which} has a single sample, which cannot be trained on and scored both")
    val = 0.0 if own_val else split.val

    def outer(val: float) -> Split:
        if split.folds:
            return fold_split(labels, folds=split.folds, fold=split.fold, val=val, seed=split.seed)
        return stratified_split(labels, test=0.0 if own_test else split.test, val=val, seed=split.seed)

    if not split.inner_folds:
        return outer(val)
    pool = outer(0.0).train
    inner = fold_split(
        np.asarray(labels)[pool].tolist(), folds=split.inner_folds, fold=split.inner_fold, val=val, seed=split.seed
    )
    return Split(pool[inner.train], pool[inner.val], pool[inner.test])
