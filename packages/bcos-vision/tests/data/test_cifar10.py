import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from bcos_core.run.error import InputError
from bcos_vision.data import load_data


def test_parts_and_pixels(monkeypatch, tmp_path):
    class Small:
        """As torchvision's: pixels (N, 32, 32, 3), a list of labels, names."""

        classes = ("airplane", "ship")

        def __init__(self, root, train, download):
            count = 40 if train else 10
            self.data = np.random.default_rng(count).integers(0, 255, (count, 32, 32, 3), dtype=np.uint8)
            self.targets = [i % 2 for i in range(count)]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Small)
    data = load_data(f"cifar10:{tmp_path}", image_size=32)
    assert [len(part) for part in (data.train, data.val, data.test)] == [36, 4, 10]
    assert (data.classes, data.size, data.eval_size) == (("airplane", "ship"), (32, 32), (32, 32))
    pixels = Small(tmp_path, train=False, download=False).data
    images, labels = data.test[[3]]
    assert torch.equal(images[0, 1], torch.from_numpy(pixels[3, :, :, 1]))
    assert labels.tolist() == [1]
    with pytest.raises(InputError, match="--eval_size: cifar10 is 32x32 pixels and is not scaled, got 48"):
        load_data(f"cifar10:{tmp_path}", eval_size=48)


def test_without_a_network_the_message_says_which_file_goes_where(monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", unreachable)
    with pytest.raises(InputError, match=r"no network.*put cifar-10-python.tar.gz into .*there$"):
        load_data(f"cifar10:{tmp_path / 'there'}")
