import numpy as np
import pytest
import torch
from bcos_core.run.error import InputError
from bcos_vision.data import ArrayImages, FileImages, read_image
from PIL import Image


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png", pixels


def test_bytes_come_as_they_are_in_the_file(picture):
    path, pixels = picture
    torch.testing.assert_close(read_image(path, 3), torch.from_numpy(pixels).permute(2, 0, 1), rtol=0, atol=0)


def test_scaling_crops_the_centre(tmp_path):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 4:12] = 200  # the central square
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert read_image(tmp_path / "wide.png", 3, (8, 8)).unique().tolist() == [200]
    assert read_image(tmp_path / "wide.png", 1, (4, 4)).shape == (1, 4, 4)


def test_orientation_of_a_photograph_is_applied(tmp_path):
    image = Image.fromarray(np.zeros((4, 8, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg", 3).shape == (3, 8, 4)


def test_bad_files_are_named(tmp_path, picture):
    path, _ = picture
    with pytest.raises(InputError, match=r"nothing.png: no such file"):
        read_image(tmp_path / "nothing.png", 3)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text.png: not an image"):
        read_image(tmp_path / "text.png", 3)
    (tmp_path / "half.png").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"half.png: a damaged image"):
        read_image(tmp_path / "half.png", 3)


def test_sets_in_memory_and_in_files_agree(tmp_path):
    rng = np.random.default_rng(0)
    paths = tuple(tmp_path / f"{i}.png" for i in range(5))
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)).save(path)
    labels = torch.arange(5)
    files = FileImages(paths, labels, 3, (4, 4))
    memory = ArrayImages(torch.stack([read_image(p, 3) for p in paths]), labels)
    for images in (files, files.subset(np.array([4, 2, 0])), memory.subset(np.array([4, 2, 0]))):
        assert len(images) in (3, 5)
    for a, b in zip(files[[3, 1]], memory[[3, 1]], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    for a, b in zip(files.subset(np.array([4, 2]))[[1]], memory.subset(np.array([4, 2]))[[1]], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
