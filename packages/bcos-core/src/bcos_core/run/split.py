"""Index sets: which samples train, which select, which are scored once; by shares, or fold by fold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .error import InputError


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
        >>> parts = [fold_split([0, 1] * 10, folds=5, fold=k, val=0, seed=0).test for k in range(5)]
        >>> sorted(np.concatenate(parts).tolist()) == list(range(20))
        True
    """
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
