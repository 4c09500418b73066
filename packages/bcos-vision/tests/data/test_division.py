import numpy as np
import pytest
from bcos_core.run.error import InputError
from bcos_core.run.split import divide
from bcos_vision.config import SplitConfig, TrainConfig
from bcos_vision.data import load_data

LABELS = np.repeat([0, 1, 2], 40).tolist()


def test_folds_are_each_the_test_once_and_never_train():
    seen = []
    for fold in range(4):
        part = divide(LABELS, SplitConfig(folds=4, fold=fold, val=0.2))
        sets = [set(p.tolist()) for p in (part.train, part.val, part.test)]
        assert set.union(*sets) == set(range(120))
        assert sum(map(len, sets)) == 120
        assert np.bincount(np.asarray(LABELS)[part.test]).tolist() == [10, 10, 10]
        seen += part.test.tolist()
    assert sorted(seen) == list(range(120))


def test_another_seed_is_another_cut():
    one, other = (divide(LABELS, SplitConfig(folds=4, seed=seed)).test.tolist() for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize("outer", [SplitConfig(folds=4, fold=2, val=0), SplitConfig(test=0.25, val=0)])
def test_inner_folds_never_see_the_outer_test(outer):
    import dataclasses

    whole = divide(LABELS, outer)
    inner = [divide(LABELS, dataclasses.replace(outer, inner_folds=3, inner_fold=k, val=0.1)) for k in range(3)]
    assert sorted(np.concatenate([p.test for p in inner]).tolist()) == whole.train.tolist()
    for part in inner:
        used = np.concatenate([part.train, part.val, part.test])
        assert not set(used.tolist()) & set(whole.test.tolist())
        assert sorted(used.tolist()) == whole.train.tolist()


def test_data_with_a_test_of_its_own_is_cut_without_it(image_folder):
    own = load_data(f"folder:{image_folder}", SplitConfig())
    folds = [load_data(f"folder:{image_folder}", SplitConfig(folds=3, fold=k, val=0)) for k in range(3)]
    assert len(own.test) == 16
    assert [len(d.test) for d in folds] == [20, 20, 20]
    assert [len(d.train) for d in folds] == [40, 40, 40]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"folds": 1}, "--split.folds: expected 0 or at least 2, got 1"),
        ({"folds": 3, "fold": 3}, "--split.fold: expected 0 to 2, got 3"),
        ({"fold": 1}, "--split.fold: expected 0 to 0, got 1"),
        ({"inner_folds": -2}, "--split.inner_folds"),
    ],
)
def test_folds_that_are_not_there(split, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(split=SplitConfig(**split))


def test_a_class_too_small_for_its_folds():
    with pytest.raises(InputError, match="5 folds: class 1 has only 4 samples"):
        divide([0] * 10 + [1] * 4, SplitConfig(folds=5))
