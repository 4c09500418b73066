"""Digits and folders: what is loaded, how it is split, and what is said about folders that will not do."""

import numpy as np
import pytest
import torch
from bcos_core.run.error import InputError
from bcos_core.run.split import SplitConfig
from bcos_vision.data import FileImages, files, load_data
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import v2


def test_digits_are_scikit_learns_and_stratified():
    data = load_data("digits")
    assert (data.channels, data.size, len(data.classes)) == (1, (8, 8), 10)
    parts = [data.train, data.val, data.test]
    assert [len(p) for p in parts] == [1293, 144, 360]
    pixels = torch.cat([p[range(len(p))][0] for p in parts]).flatten(1)
    original = torch.from_numpy(np.rint(load_digits().data * (255 / 16)))
    assert sorted(map(tuple, pixels.tolist())) == sorted(map(tuple, original.long().tolist()))
    in_train, in_val, in_test = (np.bincount(part.labels.numpy()) for part in parts)
    assert np.abs(in_test - 0.2 * (in_train + in_val + in_test)).max() < 1
    assert np.abs(in_val - 0.1 * (in_train + in_val)).max() < 1


def test_split_seed_moves_the_split_and_nothing_else():
    first, again = load_data("digits"), load_data("digits")
    other = load_data("digits", SplitConfig(seed=1))
    torch.testing.assert_close(first.test.labels, again.test.labels, rtol=0, atol=0)
    assert not torch.equal(first.test.labels, other.test.labels)
    assert first.fingerprint == again.fingerprint == other.fingerprint


def test_statistics_are_numpys():
    data = load_data("digits")
    mean, std = data.statistics()
    pixels = data.train[range(len(data.train))][0].numpy() / 255
    assert mean == pytest.approx([pixels.mean()], rel=1e-9)
    assert std == pytest.approx([pixels.std()], rel=1e-9)


def test_train_and_val_folders(image_folder):
    data = load_data(f"folder:{image_folder}")
    assert (data.name, data.classes, data.channels, data.size) == ("stripes", ("ant", "bee"), 3, (8, 8))
    assert [len(p) for p in (data.train, data.val, data.test)] == [54, 6, 16]
    first = np.array(Image.open(image_folder / "val" / "ant" / "000.png"))
    torch.testing.assert_close(data.test[[0]][0][0], torch.from_numpy(first).permute(2, 0, 1), rtol=0, atol=0)


def test_a_test_folder_leaves_all_of_train_for_training(tmp_path, writer):
    for part, count in (("train", 10), ("val", 4), ("test", 3)):
        writer(tmp_path / part, {"a": count, "b": count})
    data = load_data(f"folder:{tmp_path}")
    assert [len(p) for p in (data.train, data.val, data.test)] == [20, 8, 6]


def test_class_folders_alone_are_split_by_shares(tmp_path, writer):
    writer(tmp_path, {"a": 50, "b": 50}, grey=True)
    data = load_data(f"folder:{tmp_path}")
    assert (data.channels, [len(p) for p in (data.train, data.val, data.test)]) == (1, [72, 8, 20])


def test_too_much_for_memory_stays_in_files(tmp_path, writer, monkeypatch):
    writer(tmp_path, {"a": 20, "b": 20})
    held = load_data(f"folder:{tmp_path}")
    monkeypatch.setattr(files, "MEMORY_LIMIT", 1000)
    read = load_data(f"folder:{tmp_path}")
    assert isinstance(read.train, FileImages)
    for a, b in zip(held.train[[0, 5, 9]], read.train[[0, 5, 9]], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_evaluation_has_a_geometry_of_its_own(tmp_path, writer, monkeypatch):
    writer(tmp_path, {"a": 20, "b": 20}, side=24)
    geometry = {"image_size": 8, "eval_size": 12, "eval_resize": 16}
    held = load_data(f"folder:{tmp_path}", **geometry)
    assert (held.size, held.eval_size, held.eval_resize) == ((8, 8), (12, 12), 16)
    chosen = v2.Compose([v2.Resize(16), v2.CenterCrop(12), v2.PILToTensor()])
    assert held.test.paths is not None
    expected = chosen(Image.open(held.test.paths[5]))
    monkeypatch.setattr(files, "MEMORY_LIMIT", 1000)
    read = load_data(f"folder:{tmp_path}", **geometry)
    for data in (held, read):
        assert [part[[0]][0].shape[-1] for part in (data.train, data.val, data.test)] == [8, 12, 12]
        torch.testing.assert_close(data.test[[5]][0][0], expected, rtol=0, atol=0)


@pytest.mark.parametrize("limit", [0, files.MEMORY_LIMIT])
def test_corrupt_files_are_left_out_and_listed(tmp_path, writer, monkeypatch, capsys, limit):
    monkeypatch.setattr(files, "MEMORY_LIMIT", limit)
    writer(tmp_path / "train", {"a": 20, "b": 20})
    writer(tmp_path / "val", {"a": 4, "b": 4})
    torn = tmp_path / "train" / "b" / "007.png"
    torn.write_bytes(torn.read_bytes()[:-60])
    (tmp_path / "val" / "a" / "002.png").write_text("no image")
    data = load_data(f"folder:{tmp_path}", skip_corrupt=True)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("left out 2 of 48 images that cannot be decoded: ")
    assert f"{torn}: a damaged image (" in said
    assert "002.png: not an image" in said
    assert [len(p) for p in (data.train, data.val, data.test)] == [35, 4, 7]
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    for part in (data.train, data.val, data.test):
        part[range(len(part))]  # what is left can be read
    for path in (tmp_path / "val" / "a").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r'val: no image of class "a" can be decoded'):
        load_data(f"folder:{tmp_path}", skip_corrupt=True)


def test_images_of_more_than_8_bits_are_not_corrupt(tmp_path, writer):
    writer(tmp_path, {"a": 20, "b": 20})
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "a" / "003.png")
    with pytest.raises(InputError, match=r"003.png: more than 8 bits"):
        load_data(f"folder:{tmp_path}", skip_corrupt=True)


def test_digits_are_not_scaled():
    assert load_data("digits", image_size=8).eval_size == (8, 8)
    with pytest.raises(InputError, match="--image_size: digits is 8x8 pixels and is not scaled, got 16"):
        load_data("digits", image_size=16)


def test_fingerprint_follows_the_pixels(tmp_path, writer):
    writer(tmp_path, {"a": 20, "b": 20})
    before = load_data(f"folder:{tmp_path}").fingerprint
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a" / "000.png")
    assert load_data(f"folder:{tmp_path}").fingerprint != before


def test_pictures_of_kinds_that_are_not_read_are_counted(tmp_path, writer, capsys):
    writer(tmp_path / "set", {"ant": 10, "bee": 10})
    for name in ("a.gif", "b.GIF", "c.avif", "notes.txt"):
        (tmp_path / "set" / "ant" / name).write_bytes(b"")
    load_data(f"folder:{tmp_path / 'set'}")
    printed = " ".join(capsys.readouterr().err.split())
    assert "left out 1 .avif, 2 .gif (known endings: .jpg" in printed
    assert ".txt" not in printed


def test_shares_that_folders_decide_are_refused(tmp_path, writer):
    for part in ("train", "val", "test"):
        writer(tmp_path / part, {"ant": 10, "bee": 10})
    name = f"folder:{tmp_path}"
    with pytest.raises(InputError, match=r"--split.test: has no effect, the data has a test of its own"):
        load_data(name, SplitConfig(test=0.5))
    with pytest.raises(InputError, match=r"--split.val: has no effect, the data has a validation set of its own"):
        load_data(name, SplitConfig(val=0.5))
    with pytest.raises(InputError, match=r"--split.test: has no effect, --split.folds says what is tested"):
        load_data(name, SplitConfig(test=0.5, folds=5))


def test_a_class_of_one_image_is_named(tmp_path, writer):
    writer(tmp_path / "set", {"ant": 10, "bee": 1})
    with pytest.raises(InputError, match='class "bee" has a single sample, which cannot be trained on and scored both'):
        load_data(f"folder:{tmp_path / 'set'}")


def test_bad_folders_say_what_is_wrong(tmp_path, writer):
    def message(name):
        with pytest.raises(InputError) as caught:
            load_data(f"folder:{tmp_path / name}")
        return str(caught.value)

    assert "no such folder" in message("nowhere")
    (tmp_path / "bare").mkdir()
    assert "no class folders" in message("bare")
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    (tmp_path / "hollow" / "b").mkdir()
    assert "no images" in message("hollow")
    writer(tmp_path / "one", {"a": 3})
    assert 'only one class, "a"' in message("one")
    writer(tmp_path / "gap", {"a": 3, "b": 3})
    (tmp_path / "gap" / "c").mkdir()
    assert 'class folder "c" holds no images' in message("gap")
    writer(tmp_path / "mixed", {"a": 3, "b": 3})
    Image.new("RGB", (9, 8)).save(tmp_path / "mixed" / "b" / "odd.png")
    assert "different sizes" in message("mixed")
    assert "odd.png is 9x8" in message("mixed")
    assert load_data(f"folder:{tmp_path / 'mixed'}", SplitConfig(0.5, 0), image_size=8).size == (8, 8)
    writer(tmp_path / "torn", {"a": 20, "b": 20})
    torn = tmp_path / "torn" / "b" / "007.png"
    torn.write_bytes(torn.read_bytes()[:-40])
    assert "007.png: a damaged image" in message("torn")
    torn.write_text("no image")
    assert "007.png: not an image" in message("torn")
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(torn)
    assert "007.png: more than 8 bits a channel (mode I;16); convert it to 8 bits" in message("torn")
    writer(tmp_path / "capital" / "Train", {"a": 3, "b": 3})
    writer(tmp_path / "capital" / "Test", {"a": 3, "b": 3})
    assert "folders instead of images; parts of a set are called train, val and test" in message("capital")
    writer(tmp_path / "valid" / "train", {"a": 3, "b": 3})
    (tmp_path / "valid" / "valid").mkdir()
    assert "valid: what is this?" in message("valid")
    writer(tmp_path / "upper" / "train", {"a": 3, "b": 3})
    (tmp_path / "upper" / "Val").mkdir()
    assert "Val: what is this?" in message("upper")
    writer(tmp_path / "uneven" / "train", {"a": 10, "b": 10})
    writer(tmp_path / "uneven" / "val", {"a": 3, "c": 3})
    assert 'no class folder "b"' in message("uneven")
    writer(tmp_path / "few", {"a": 1, "b": 30})
    assert 'class "a" has a single sample' in message("few")


@pytest.mark.parametrize(
    ("name", "near"), [("digit", "digits"), ("folders:x", "folder:PATH"), ("", None), ("imagenett", "imagenet")]
)
def test_unknown_data_names_the_nearest(name, near):
    with pytest.raises(InputError, match=f'unknown data "{name}".*digits, cifar10, imagenet') as caught:
        load_data(name)
    assert near is None or f'did you mean "{near}"?' in str(caught.value)


def test_statistics_are_of_all_classes(tmp_path, writer):
    writer(tmp_path, {"a": 30, "b": 30})
    data = load_data(f"folder:{tmp_path}", SplitConfig(test=0, val=0))
    few, _ = data.statistics(most=20)  # the folder is sorted by class
    pixels = data.train[range(0, 60, 1)][0].double() / 255
    assert few == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=0.03)
    assert few != pytest.approx((data.train[range(20)][0].double() / 255).mean((0, 2, 3)).tolist(), abs=1e-3)


def test_all_of_a_folder_is_scored_with_the_crop_of_evaluation(tmp_path, writer):
    writer(tmp_path / "all", {"a": 3, "b": 3}, side=24)
    data = load_data(f"folder:{tmp_path / 'all'}", SplitConfig(test=1, val=0), image_size=16, eval_resize=20)
    assert [len(part) for part in (data.train, data.val, data.test)] == [0, 0, 6]
    with Image.open(tmp_path / "all" / "a" / "000.png") as image:
        expected = v2.Compose([v2.Resize(20), v2.CenterCrop(16), v2.PILToTensor()])(image)
    assert torch.equal(data.test[[0]][0][0], expected)
