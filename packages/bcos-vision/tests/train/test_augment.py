import torch
from bcos_vision.config import AugmentConfig
from bcos_vision.train.augment import augment


def test_each_image_is_one_of_its_padded_crops_or_their_mirror():
    images = torch.randint(1, 255, (32, 2, 5, 6), dtype=torch.uint8)
    changed = augment(images, AugmentConfig(shift=2, flip=True), torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, [2] * 4)
    seen = set()
    for before, after in zip(padded, changed, strict=True):
        crops = {(i, j): before[:, i : i + 5, j : j + 6] for i in range(5) for j in range(5)}
        plain = [key for key, crop in crops.items() if torch.equal(crop, after)]
        mirrored = [key for key, crop in crops.items() if torch.equal(crop.flip(-1), after)]
        assert len(plain) + len(mirrored) == 1
        seen.add((*(plain + mirrored)[0], bool(mirrored)))
    assert len(seen) > 10  # images are changed each on its own


def test_the_generator_decides():
    images = torch.randint(0, 255, (8, 1, 8, 8), dtype=torch.uint8)
    config = AugmentConfig(shift=1, flip=True)
    first, again, other = (augment(images, config, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(augment(images, AugmentConfig(), torch.Generator()), images)
