"""Which images train, select and test, as the configuration says: by shares, or as a fold of a cross-validation."""

from collections.abc import Sequence

import numpy as np
from bcos_core.run.split import Split, fold_split, stratified_split

from bcos_vision.config import SplitConfig


def divide(labels: Sequence[int], split: SplitConfig, *, own_test: bool = False, own_val: bool = False) -> Split:
    """Divide a set's training images.

    With inner folds the test is one of the parts that the training images of the outer split are cut into: nothing that
    is chosen by inner scores has seen the outer test.

    Args:
        labels: Class of each image.
        split: Shares, or folds.
        own_test: The set has test images of its own; none are held out, unless as a fold.
        own_val: It has validation images of its own.

    Raises:
        InputError: If a class is too small for it.
    """
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
