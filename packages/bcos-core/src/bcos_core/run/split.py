"""Index sets: which samples train, which select, which are scored once."""

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
