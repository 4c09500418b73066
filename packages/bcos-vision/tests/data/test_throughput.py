import itertools
import time

import pytest
import torch
from bcos_vision.data import ArrayImages, make_loader
from bcos_vision.data.throughput import measure, report


def test_images_after_the_first_batch_over_their_seconds(monkeypatch):
    ticks = itertools.count(100.0, 0.5)  # each look at the clock is half a second later
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    images = ArrayImages(torch.zeros(100, 1, 2, 2, dtype=torch.uint8), torch.arange(100))
    assert measure(make_loader(images, 10), seconds=1.2) == 30 / 1.5
    assert measure(make_loader(images.subset(range(25)), 10), seconds=60) == 15 / 1.0  # two batches, the last shorter
    with pytest.raises(ValueError, match="expected at least two batches, got 1"):
        measure(make_loader(images, 100))


def test_the_line_names_data_speed_and_workers(image_folder, capsys):
    report([f"--data=folder:{image_folder}", "--batch_size=8", "--augment.crop=0.5", "--seconds=0.1"])
    said = capsys.readouterr().out
    assert said.startswith("folder:stripes: ")
    assert said.endswith(" images/s of 8x8 from memory, 0 workers, batches of 8\n")
