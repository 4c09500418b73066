"""Reading images: what is where, and what is refused."""

import numpy as np
import pytest
import torch
from bcos_core.run.error import InputError
from bcos_core.run.split import SplitConfig
from bcos_ode.classification import load_images
from PIL import Image
from sklearn.datasets import load_digits

SPLIT = SplitConfig(test=0.25, val=0.25)


def write(folder, count, *, side=8, seed=0):
    """Two classes; the first pixel's red says which image it is."""
    random = np.random.default_rng(seed)
    for name in ("ant", "bee"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03}.png")


def test_digits_are_scikit_learns():
    data = load_images("digits", SplitConfig())
    features, labels = load_digits(return_X_y=True)
    own = torch.cat([data.train.images, data.val.images, data.test.images]).flatten(1).numpy()
    assert len(own) == len(labels)
    theirs = np.rint(features * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, own)) == sorted(map(bytes, theirs))
    row = int(np.flatnonzero((theirs == own[0]).all(1))[0])
    assert labels[row] == int(data.train.labels[0])


def test_statistics_are_numpys(tmp_path):
    write(tmp_path, 8)
    data = load_images(f"folder:{tmp_path}", SPLIT)
    mean, std = data.statistics()
    pixels = data.train.images.numpy() / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-9)


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        ((), (9, 3, 4)),
        (("train", "val"), (12, 4, 4)),
        (("train", "test"), (12, 4, 4)),
        (("train", "val", "test"), (16, 4, 4)),
    ],
)
def test_parts_of_a_folder(tmp_path, parts, sizes):
    for seed, part in enumerate(parts):
        write(tmp_path / part, 8 if part == "train" else 2, seed=seed)
    if not parts:
        write(tmp_path, 8)
    # shares of what the folder does not have itself; others are refused
    split = SplitConfig(
        test=SplitConfig.test if parts else SPLIT.test, val=SplitConfig.val if len(parts) == 3 else SPLIT.val
    )
    data = load_images(f"folder:{tmp_path}", split)
    assert (len(data.train), len(data.val), len(data.test)) == sizes
    assert (data.classes, data.shape) == (("ant", "bee"), (3, 8, 8))
    if parts:
        first = np.asarray(Image.open(tmp_path / parts[-1] / "ant" / "000.png"))
        np.testing.assert_array_equal(data.test.images[0].permute(1, 2, 0), first)


def test_folds_replace_the_datas_own_test(tmp_path):
    write(tmp_path / "train", 8)
    write(tmp_path / "test", 3, seed=1)
    data = load_images(f"folder:{tmp_path}", SplitConfig(val=0, folds=4, fold=1))
    assert (len(data.train), len(data.test)) == (12, 4)


def test_fingerprint_follows_the_images(tmp_path):
    write(tmp_path, 8)
    before = load_images(f"folder:{tmp_path}", SPLIT).fingerprint
    assert load_images(f"folder:{tmp_path}", SPLIT).fingerprint == before
    Image.new("RGB", (8, 8)).save(tmp_path / "bee" / "003.png")
    assert load_images(f"folder:{tmp_path}", SPLIT).fingerprint != before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("digit", 'unknown data "digit"; did you mean "digits"'),
        ("folder:nowhere", 'data "folder:nowhere": no such folder'),
        ("folder:empty", "empty: Couldn't find any class folder"),
        ("folder:single", 'only one class, "ant"'),
        ("folder:sizes", r"999.png: expected an image of 8x8, as the first, got 9x9"),
        ("folder:broken", "999.png: no readable image"),
        ("folder:headless", "expected train/ beside val/"),
        ("folder:uneven", 'class folder "bee" is in only one of train/ and val/'),
        ("folder:scaled", "images of val/ are 9x9, those of train/ 8x8"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, monkeypatch, data, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "one", 1)
    (tmp_path / "one" / "ant").rename(tmp_path / "ant")
    (tmp_path / "single").mkdir()
    (tmp_path / "ant").rename(tmp_path / "single" / "ant")
    for name in ("sizes", "broken"):
        write(tmp_path / name, 2)
    Image.new("RGB", (9, 9)).save(tmp_path / "sizes" / "bee" / "999.png")
    (tmp_path / "broken" / "bee" / "999.png").write_bytes(b"no image")
    write(tmp_path / "headless" / "val", 1)
    for name, side in (("uneven", 8), ("scaled", 9)):
        write(tmp_path / name / "train", 2)
        write(tmp_path / name / "val", 2, side=side)
    (tmp_path / "uneven" / "val" / "bee").rename(tmp_path / "uneven" / "val" / "cow")
    with pytest.raises(InputError, match=message):
        load_images(data, SPLIT)
