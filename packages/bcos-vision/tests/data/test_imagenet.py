"""The layouts in which the ImageNets lie about, built small."""

import numpy as np
import pytest
from bcos_core.run.error import InputError
from bcos_core.run.split import SplitConfig
from bcos_vision.data import data_folder, load_data
from PIL import Image

WNIDS = ("n01", "n02", "n03")


def write(path, side=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, path.name))
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path, "JPEG")


def write_parts(root, train=10, val=2):
    for wnid in WNIDS:
        for part, count in (("train", train), ("val", val)):
            for i in range(count):
                write(root / part / wnid / f"{part}_{wnid}_{i}.JPEG")


def counts(data):
    return [len(part) for part in (data.train, data.val, data.test)]


def test_train_and_val_folders_with_names(tmp_path):
    write_parts(tmp_path)
    data = load_data(f"imagenet:{tmp_path}")
    assert (data.name, data.classes, counts(data)) == ("imagenet", WNIDS, [27, 3, 6])
    (tmp_path / "LOC_synset_mapping.txt").write_text(
        "n01 crane, a bird\nn02 great white shark, Carcharodon\nn03 crane\n"
    )
    assert load_data(f"imagenet:{tmp_path}").classes == ("crane (n01)", "great white shark", "crane (n03)")
    (tmp_path / "classes.csv").write_text('wnid,name\nn03,tench\nn02,great_white_shark\nn01,"goldfish, Carassius"\n')
    assert load_data(f"imagenet:{tmp_path}").classes == ("goldfish", "great white shark", "tench")


def test_val_alone_is_scored_only(tmp_path):
    for wnid in WNIDS:
        write(tmp_path / "val" / wnid / "0.JPEG", side=20)
    write(tmp_path / "val" / "n03" / "1.JPEG", side=30)
    data = load_data(f"imagenet:{tmp_path}", image_size=8, eval_size=10, eval_resize=12)
    assert counts(data) == [0, 0, 4]
    assert (data.size, data.eval_size, data.eval_resize) == ((8, 8), (10, 10), 12)
    assert data.test[[3]][0].shape == (1, 3, 10, 10)


def test_tiny_imagenet_as_published(tmp_path):
    boxes = []
    for wnid in WNIDS:
        for i in range(10):
            write(tmp_path / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
        (tmp_path / "train" / wnid / f"{wnid}_boxes.txt").write_text("not read\n")
    lines = []
    for i, wnid in enumerate(("n02", "n01", "n03", "n01")):
        write(tmp_path / "val" / "images" / f"val_{i}.JPEG")
        boxes.append((i, 1, i + 2, 7))
        lines.append("\t".join([f"val_{i}.JPEG", wnid, *map(str, boxes[-1])]))
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    write(tmp_path / "test" / "images" / "test_0.JPEG")  # has no label
    (tmp_path / "words.txt").write_text("n00\tentity\nn01\tgoldfish, Carassius\nn02\tkoala\nn03\ttench\n")
    data = load_data(f"tiny-imagenet:{tmp_path}")
    assert (data.classes, counts(data)) == (("goldfish", "koala", "tench"), [27, 3, 4])
    assert data.test.labels.tolist() == [1, 0, 2, 0]
    assert data.boxes == dict(enumerate(boxes))
    doubled = load_data(f"tiny-imagenet:{tmp_path}", image_size=8, eval_size=16)
    assert doubled.boxes[1] == (2, 2, 7, 15)  # of columns 1 to 3 and rows 1 to 7
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG n02 0 0 7 7\n")
    with pytest.raises(InputError, match=r"val_annotations.txt: expected lines of image, wnid, x_min"):
        load_data(f"tiny-imagenet:{tmp_path}")


def test_tiny_imagenet_in_class_folders_with_boxes(tmp_path):
    write_parts(tmp_path)
    rows = ["train/n01/train_n01_0.JPEG,n01,1,1,2,2", "val/n02/val_n02_1.JPEG,n02,3,2,7,6"]
    (tmp_path / "boxes.csv").write_text("image,class,x_min,y_min,x_max,y_max\n" + "\n".join(rows) + "\n")
    data = load_data(f"tiny-imagenet:{tmp_path}", SplitConfig(val=0.2))
    assert counts(data) == [24, 6, 6]
    assert data.boxes == {3: (3, 2, 7, 6)}  # the second image of the second class
    (tmp_path / "boxes.csv").write_text("image,x_min,y_min,x_max\n")
    with pytest.raises(InputError, match=r'boxes.csv: no column "y_max"'):
        load_data(f"tiny-imagenet:{tmp_path}")


def test_a_class_without_images_to_score_is_named(tmp_path):
    write_parts(tmp_path)
    write(tmp_path / "train" / "n04" / "0.JPEG")
    with pytest.raises(InputError, match=r'val: no class folder "n04", which .*train has'):
        load_data(f"imagenet:{tmp_path}")


def test_sets_lie_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BCOS_DATA", raising=False)
    (tmp_path / "uv.lock").touch()
    assert data_folder("imagenet") == tmp_path / "data" / "imagenet"
    with pytest.raises(InputError, match=r'"imagenet": no folder .*data/imagenet; .*--data imagenet:PATH'):
        load_data("imagenet")
    monkeypatch.setenv("BCOS_DATA", str(tmp_path / "elsewhere"))
    write_parts(tmp_path / "elsewhere" / "imagenet")
    assert counts(load_data("imagenet")) == [27, 3, 6]


def test_a_class_is_called_the_same_whichever_others_there_are(tmp_path):
    (tmp_path / "words.txt").write_text("n01\tcrane, a bird\nn02\tshark\nn03\tcrane\n")
    for wnid in WNIDS[:2]:
        for i in range(3):
            write(tmp_path / "val" / wnid / f"{i}.JPEG")
    data = load_data(f"imagenet:{tmp_path}")
    assert data.classes == ("crane (n01)", "shark")
    assert data.folders == ("n01", "n02")
