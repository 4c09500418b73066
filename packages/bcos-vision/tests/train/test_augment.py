import numpy as np
import pytest
import torch
from bcos_vision.config import AugmentConfig
from bcos_vision.train.augment import augment, mix
from scipy import stats
from torchvision.transforms import v2


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


def test_erased_rectangles_are_distributed_as_torchvisions():
    images = torch.full((3000, 1, 24, 32), 9, dtype=torch.uint8)
    mine = (augment(images, AugmentConfig(erase=0.6), torch.Generator().manual_seed(0)) == 0)[:, 0]
    torch.manual_seed(0)
    erase = v2.RandomErasing(p=0.6)
    theirs = torch.stack([erase(image) == 0 for image in images])[:, 0]
    for masks in (mine, theirs):
        rows, columns = masks.any(2), masks.any(1)
        assert torch.equal(masks, rows[:, :, None] & columns[:, None, :])  # rectangles, or nothing

    def measured(masks):
        masks = masks[masks.any((1, 2))]
        rows, columns = masks.any(2), masks.any(1)
        return rows.sum(1), columns.sum(1), rows.int().argmax(1), columns.int().argmax(1)

    assert abs(mine.any((1, 2)).float().mean() - 0.6) < 0.03
    for a, b in zip(measured(mine), measured(theirs), strict=True):
        assert stats.ks_2samp(a.numpy(), b.numpy()).pvalue > 1e-3


def mixed_batch(seed, config, n=5, h=12, w=20):
    generator = torch.Generator().manual_seed(seed)
    images, targets = torch.rand(n, 3, h, w, generator=generator), torch.eye(n)
    return images, targets, *mix(images, targets, config, generator)


def test_mixup_is_torchvisions_with_a_share_from_beta():
    shares = []
    for seed in range(400):
        images, _, mixed, soft = mixed_batch(seed, AugmentConfig(mixup=0.4), h=2, w=2)
        shares.append(soft[0, 0].item())
        if seed < 20:
            params = {"labels": torch.arange(5), "batch_size": 5, "lam": shares[-1]}
            theirs = v2.MixUp(num_classes=5)
            torch.testing.assert_close(mixed, theirs.transform(images, params))
            torch.testing.assert_close(soft, theirs.transform(params["labels"], params))
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_cutmix_is_torchvisions_with_the_share_of_the_area_that_is_left():
    shares = []
    for seed in range(400):
        images, _, mixed, soft = mixed_batch(seed, AugmentConfig(cutmix=1.0))
        foreign = (mixed != images).any(1)
        assert torch.equal(foreign, foreign[:1].expand_as(foreign))  # one rectangle for the batch
        rows, columns = np.flatnonzero(foreign[0].any(1)), np.flatnonzero(foreign[0].any(0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else (0, 0, 0, 0)
        kept = 1 - (box[2] - box[0]) * (box[3] - box[1]) / (12 * 20)
        params = {"labels": torch.arange(5), "batch_size": 5, "box": box, "lam_adjusted": kept}
        theirs = v2.CutMix(num_classes=5)
        torch.testing.assert_close(mixed, theirs.transform(images, params), rtol=0, atol=0)
        torch.testing.assert_close(soft, theirs.transform(params["labels"], params))
        shares.append(kept)
    torch.manual_seed(0)
    drawn = [v2.CutMix(num_classes=5).make_params([torch.zeros(1, 3, 12, 20)])["lam_adjusted"] for _ in range(2000)]
    assert stats.ks_2samp(shares, drawn).pvalue > 1e-3


def test_with_both_a_coin_decides_and_with_neither_nothing_is_drawn():
    cut = 0
    for seed in range(300):
        images, _, mixed, _ = mixed_batch(seed, AugmentConfig(mixup=1.0, cutmix=1.0), n=2, h=4, w=4)
        cut += bool(((mixed == images) | (mixed == images.roll(1, 0))).all())
    assert stats.binomtest(cut, 300).pvalue > 1e-3
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    images, targets = torch.rand(2, 1, 4, 4), torch.eye(2)
    same = mix(images, targets, AugmentConfig(), generator)
    assert same[0] is images
    assert same[1] is targets
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("config", [AugmentConfig(mixup=0.2), AugmentConfig(cutmix=1.0), AugmentConfig(erase=0.5)])
def test_what_is_given_stays_as_it_was(config):
    images, targets = torch.rand(4, 1, 8, 8), torch.eye(4)
    copies = images.clone(), targets.clone()
    augment(images, config, torch.Generator().manual_seed(0))
    mix(images, targets, config, torch.Generator().manual_seed(0))
    assert torch.equal(images, copies[0])
    assert torch.equal(targets, copies[1])


@pytest.mark.parametrize("options", [{"mixup": 1.0}, {"cutmix": 1.0}], ids=str)
def test_copies_of_repeated_augmentation_are_not_mixed_with_each_other(options):
    """Four copies side by side, as the loader deals them: nothing of one's own is left in the other's share."""
    images = torch.arange(4.0).repeat_interleave(4).view(16, 1, 1, 1).expand(-1, 1, 8, 8)
    targets = torch.eye(4).repeat_interleave(4, 0)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        _, mixed = mix(images.clone(), targets, AugmentConfig(repeats=4, **options), generator)
        own = (mixed * targets).sum(1)
        assert (own == own[0]).all()
        assert ((mixed > 0).sum(1) == (1 if own[0] in (0, 1) else 2)).all()
