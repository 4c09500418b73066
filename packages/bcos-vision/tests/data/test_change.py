import dataclasses

import numpy as np
import pytest
import torch
from bcos_vision.config import AugmentConfig
from bcos_vision.data import ArrayImages, FileImages, make_loader, picture_change
from PIL import Image

CROP = AugmentConfig(crop=0.3, policy="trivialaugment")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Files in which a pixel's red and green tell where it is."""
    folder = tmp_path_factory.mktemp("photographs")
    rows, columns = np.mgrid[:48, :64]
    for i in range(12):
        pixels = np.stack([rows * 5, columns * 4 - columns // 64, np.full_like(rows, 20 * i)], -1)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02}.png")
    return FileImages(tuple(sorted(folder.iterdir())), torch.arange(12), 3, (16, 16))


def seen(images, config=CROP, *, epoch=0, seed=0, **options):
    """Changed images of an epoch by label, each label's in their order."""
    loader = make_loader(images, 6, seed=seed, change=picture_change(config, (16, 16)), **options)
    loader.sampler.start_epoch(epoch)
    found = {}
    for batch, labels in loader:
        for image, label in zip(batch, labels.tolist(), strict=True):
            found.setdefault(label, []).append(image)
    return found


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(torch.stack(a[k]), torch.stack(b[k])) for k in a)


def test_pictures_depend_on_seed_epoch_and_image_alone(photographs):
    config = dataclasses.replace(CROP, policy="randaugment")
    first = seen(photographs, config, epoch=3, repeats=2)
    torch.manual_seed(5)  # the global generator has no say
    assert same(first, seen(photographs, config, epoch=3, repeats=2, num_workers=2))
    ranks = [seen(photographs, config, epoch=3, repeats=2, rank=r, world_size=2) for r in range(2)]
    joined = {k: ranks[0].get(k, []) + ranks[1].get(k, []) for k in ranks[0] | ranks[1]}
    assert same(first, joined)
    assert not same(first, seen(photographs, config, epoch=4, repeats=2))
    assert not same(first, seen(photographs, config, epoch=3, repeats=2, seed=1))
    assert all(not torch.equal(*pair) for pair in first.values())  # changed anew each time


def test_the_global_generator_is_left_alone(photographs):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    seen(photographs)
    assert torch.equal(torch.rand(3), expected)


def test_crops_are_of_the_whole_picture_in_share_and_shape(photographs):
    config = AugmentConfig(crop=0.25)
    areas, columns = [], []
    for epoch in range(20):
        for images in seen(photographs, config, epoch=epoch).values():
            for image in images:
                height = (image[0, -1, 8].item() - image[0, 0, 8].item()) / 5 * 16 / 15
                width = (image[1, 8, -1].item() - image[1, 8, 0].item()) / 4 * 16 / 15
                areas.append(height * width / (48 * 64))
                columns.append(image[1, 8, 0].item() / 4)
    assert 0.2 < min(areas) < 0.35
    assert 0.85 < max(areas) < 1.1
    assert min(columns) < 4  # the centre square would begin at column 8


def test_sets_in_memory_are_changed_likewise(photographs):
    small = dataclasses.replace(photographs, size=(48, 64))
    held = ArrayImages(*small[range(12)])
    assert same(seen(photographs), seen(held))
    scaled = ArrayImages(*photographs[range(12)], photographs.paths)  # held scaled; crops are cut from the files
    assert same(seen(photographs), seen(scaled))
    policy = AugmentConfig(policy="randaugment", magnitude=5)
    assert same(seen(photographs, policy), seen(scaled, policy))
    scaled_subset = scaled.subset(np.array([3, 4]))
    assert torch.equal(scaled_subset.labels, torch.tensor([3, 4]))
    assert scaled_subset.picture(0, whole=True).size == (64, 48)


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_grey_pictures_are_changed_too(policy):
    held = ArrayImages(torch.randint(0, 256, (12, 1, 16, 16), dtype=torch.uint8), torch.arange(12))
    for epoch in range(10):  # each of the policy's operations, sooner or later
        changed = seen(held, AugmentConfig(policy=policy), epoch=epoch)
        assert changed[0][0].shape == (1, 16, 16)
    assert any(not torch.equal(changed[k][0], held.images[k]) for k in range(12))


def test_no_change_is_none():
    assert picture_change(AugmentConfig(shift=4, flip=True, erase=0.5, mixup=1), (8, 8)) is None
