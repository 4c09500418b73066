"""Grids against a slow search for what is possible, and the public rule written out step by step."""

import itertools
import re

import numpy as np
import pytest
import torch
from bcos_core.run.error import InputError
from bcos_eval.localisation import Grids, Prediction, count_grids, draw_grids, draw_official_grids, shared_images


def _most_grids(counts, cells):
    """The largest number of grids by trying every choice of classes."""
    best, seen, stack = 0, set(), [(tuple(sorted(counts)), 0)]
    while stack:
        left, made = stack.pop()
        best = max(best, made)
        for chosen in itertools.combinations([i for i, n in enumerate(left) if n], cells):
            rest = tuple(sorted(n - (i in chosen) for i, n in enumerate(left)))
            if (rest, made) not in seen:
                seen.add((rest, made))
                stack.append((rest, made + 1))
    return best


@pytest.mark.parametrize(
    "counts", [(5, 1, 1, 1), (4, 2, 2, 1, 1), (3, 3, 3, 3, 3), (6, 2, 2, 2, 2, 1), (1, 1, 1), (7,)]
)
def test_count_is_what_a_search_finds(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    assert count_grids(labels, 2) == _most_grids(counts, 4)


@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_grids_have_distinct_classes_and_every_image_at_most_once(side, share):
    rng = np.random.default_rng(side)
    labels = rng.choice(12, 400, p=np.arange(1, 13) / 78)
    usable = rng.random(400) < 0.7
    possible = count_grids(labels[usable], side)
    number = int(possible * share)
    grids = draw_grids(labels, usable, side=side, number=number, seed=1)
    assert grids.indices.shape == (number, side**2)
    assert (labels[grids.indices] == grids.classes).all()
    assert all(len(set(row)) == side**2 for row in grids.classes.tolist())
    assert len(np.unique(grids.indices)) == grids.indices.size
    assert usable[grids.indices].all()


def test_few_grids_do_not_favour_large_classes():
    labels = np.repeat(np.arange(9), [100, 10, 10, 10, 10, 10, 10, 10, 10])
    grids = draw_grids(labels, np.ones(len(labels), bool), side=2, number=9)
    assert np.bincount(grids.classes.ravel()).tolist() == [4] * 9


def test_classes_and_places_are_drawn():
    labels = np.arange(1000) % 10
    classes = draw_grids(labels, labels >= 0, side=2, number=200).classes
    left_out = {tuple(sorted(row)) for row in classes.tolist()}
    assert len(left_out) > 80  # of the 210 sets of four classes
    assert np.abs(classes.mean(0) - 4.5).max() < 0.8  # no place prefers a class: each mean has an sd of 0.2


def test_seed_and_hash():
    labels, usable = np.arange(200) % 10, np.ones(200, bool)
    first, again, other = (draw_grids(labels, usable, side=3, number=5, seed=s) for s in (0, 0, 1))
    assert first.hash == again.hash != other.hash
    assert first.hash != Grids(3, first.indices, first.classes, "other images").hash
    assert first.hash != Grids(3, first.indices[:, ::-1], first.classes[:, ::-1]).hash


def test_shared_images_are_right_and_sure_for_all():
    sure = Prediction(np.array([True, True, False, True]), np.array([0.9, 0.9, 0.9, 0.5]), np.zeros(4))
    other = Prediction(np.array([True, True, True, True]), np.array([0.9, 0.4, 0.9, 0.5]), np.zeros(4))
    assert shared_images([sure, other]).tolist() == [True, False, False, True]


def test_too_little_is_refused_with_what_to_lower():
    labels, usable = np.arange(90) % 9, np.ones(90, bool)
    with pytest.raises(InputError, match=re.escape("--grid 4: 16 cells need as many classes, and the data has 9: at")):
        draw_grids(labels, usable, side=4)
    with pytest.raises(InputError, match=re.escape("enough for 10 grids of 3x3; lower --grids to 10, or")):
        draw_grids(labels, usable, side=3, number=11)
    with pytest.raises(InputError, match=r"0 images of 0 classes .* lower --confidence or --grid"):
        draw_grids(labels, ~usable, side=3)
    with pytest.raises(InputError, match="at least 1"):
        draw_grids(labels, usable, side=3, number=0)
    with pytest.raises(InputError, match="at least 2 cells"):
        draw_grids(labels, usable, side=1)


def _public_grids(right, logits, labels, side, num_grids, threshold):
    """The rule of the public B-cos v2 code as it is described: lists, masks and counters."""
    per_class = {k: [] for k in range(labels.max() + 1)}
    for i, (ok, logit, label) in enumerate(zip(right, logits, labels, strict=True)):
        if ok:
            per_class[int(label)].append((i, float(logit)))
    for k in per_class:
        per_class[k] = sorted(per_class[k], key=lambda pair: pair[1], reverse=True)
    used = dict.fromkeys(per_class, 0)

    def open_(k):
        return used[k] < len(per_class[k]) and torch.tensor(per_class[k][used[k]][1]).sigmoid().item() > threshold

    n, flat = side**2, []
    state = np.random.RandomState(42)
    while sum(open_(k) for k in per_class) > n:
        for k in state.choice(np.array([k for k in per_class if open_(k)]), size=n, replace=False):
            flat.append(per_class[int(k)][used[int(k)]][0])
            used[int(k)] += 1
    grids, offset = [], 0
    for _ in range(num_grids):
        grid, seen, i = [], [], 0
        while len(grid) < n:
            image = flat[i + offset]
            i += 1
            if labels[image] in seen:
                continue
            grid.append(image)
            seen.append(labels[image])
        grids.append(grid)
        offset = i + offset + 1
    return np.array(grids), flat


@pytest.mark.parametrize(("side", "threshold"), [(2, 0.5), (3, 0.5), (3, 0.0)])
def test_official_grids_are_the_public_ones_index_for_index(side, threshold):
    rng = np.random.default_rng(side)
    labels = rng.integers(0, 12, 900)
    right = rng.random(900) < 0.8
    logits = rng.normal(0.5, 1, 900).round(1).astype(np.float32)  # rounded: ties keep their order
    expected, flat = _public_grids(right, logits, labels, side, 20, threshold)
    prediction = Prediction(right, np.full(900, 0.01), logits)
    grids = draw_official_grids(prediction, labels, side=side, number=20, threshold=threshold)
    assert (grids.indices == expected).all()
    assert grids.indices[1, 0] == flat[side**2 + 1]  # the image after the first grid is dropped


def test_official_grids_need_more_classes_than_cells():
    labels = np.arange(90) % 9
    prediction = Prediction(np.ones(90, bool), np.ones(90), np.ones(90, np.float32))
    with pytest.raises(InputError, match="too few for any grid"):
        draw_official_grids(prediction, labels, side=3)
    with pytest.raises(InputError, match=r"by this model, enough for .* lower --grids to"):
        draw_official_grids(prediction, labels, side=2, number=40)
