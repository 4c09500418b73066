"""stratified_split against counts."""

import re

import numpy as np
import pytest
import torch
from bcos_core.run.error import InputError
from bcos_core.run.split import stratified_split

LABELS = np.repeat([0, 1, 2, 3], [200, 100, 57, 23])


@pytest.fixture(params=[(0.2, 0.1), (0.25, 0.0), (0.0, 0.3), (0.5, 0.5), (0.0, 0.0)], ids=str)
def shares(request):
    return request.param


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_parts_are_disjoint_sorted_and_complete(shares, seed):
    test, val = shares
    split = stratified_split(LABELS, test=test, val=val, seed=seed)
    parts = [split.train, split.val, split.test]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))
    for part in parts:
        assert (np.diff(part) > 0).all()
        assert part.dtype.kind == "i"


def test_each_part_has_each_class_in_its_share(shares):
    test, val = shares
    labels = np.random.default_rng(0).permutation(LABELS)
    split = stratified_split(labels, test=test, val=val, seed=5)
    expected = {"test": test, "val": (1 - test) * val, "train": (1 - test) * (1 - val)}
    for name, share in expected.items():
        counts = np.bincount(labels[getattr(split, name)], minlength=4)
        assert (abs(counts - share * np.bincount(LABELS)) <= 1.5).all()
        assert abs(counts.sum() - share * len(LABELS)) <= 1.5


def test_seed_decides():
    first, again, other = (stratified_split(LABELS, test=0.2, val=0.1, seed=s) for s in (0, 0, 1))
    for part in ("train", "val", "test"):
        assert np.array_equal(getattr(first, part), getattr(again, part))
    assert not np.array_equal(first.test, other.test)


def test_global_random_state_is_left_alone():
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    stratified_split(LABELS, test=0.2, val=0.1, seed=9)
    assert np.random.random() == expected  # noqa: NPY002


@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor], ids=["list", "array", "tensor"])
def test_labels_of_any_kind(kind):
    expected = stratified_split(LABELS, test=0.2, val=0.1, seed=0).test
    assert np.array_equal(stratified_split(kind(LABELS.tolist()), test=0.2, val=0.1, seed=0).test, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 1.0, "val": 0.1}, "split.test: expected a share in [0, 1), got 1.0"),
        ({"test": -0.1, "val": 0.1}, "split.test: expected a share in [0, 1), got -0.1"),
        ({"test": 0.1, "val": 1.5}, "split.val: expected a share in [0, 1), got 1.5"),
        ({"test": float("nan"), "val": 0.1}, "split.test: expected a share in [0, 1), got nan"),
        ({"test": 0.005, "val": 0.0}, "split.test=0.005 does not work for these 380 samples"),
        ({"test": 0.0, "val": 0.995}, "split.val=0.995 does not work for these 380 samples"),
    ],
)
def test_shares(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        stratified_split(LABELS, seed=0, **options)


@pytest.mark.parametrize(
    ("labels", "test", "val", "name"),
    [
        ([0] * 50 + [1], 0.2, 0.0, "test"),
        ([0] * 98 + [1] * 2, 0.1, 0.0, "test"),  # would be left out of the test without a word
        ([0] * 98 + [1] * 2, 0.0, 0.1, "val"),
        ([0] * 98 + [1] * 3, 0.9, 0.0, "test"),  # and here out of training
        ([0] * 50 + [1] * 2, 0.5, 0.5, "val"),
        ([], 0.2, 0.0, "test"),
    ],
)
def test_a_class_too_small_for_every_part(labels, test, val, name):
    with pytest.raises(InputError, match=f"split.{name}="):
        stratified_split(labels, test=test, val=val, seed=0)


def test_message_names_the_class():
    with pytest.raises(InputError, match=re.escape("split.test=0.1: class 1 is too small with 2 samples")):
        stratified_split([0] * 98 + [1] * 2, test=0.1, val=0.0, seed=0)


def test_all_of_it_where_nothing_is_trained():
    split = stratified_split([0] * 9 + [1], test=1.0, val=0.0, seed=0)
    assert (len(split.train), len(split.val), split.test.tolist()) == (0, 0, list(range(10)))
