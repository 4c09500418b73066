import itertools

import pytest
import torch
from bcos_core.run.error import InputError
from bcos_vision.data import ArrayImages, FileImages, make_loader


def numbered(count):
    return ArrayImages(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.arange(count))


def batches(loader, epoch):
    loader.sampler.start_epoch(epoch)
    return [labels for _, labels in loader]


def order(loader, epoch):
    return torch.cat(batches(loader, epoch))


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    loader = make_loader(numbered(23), 5, seed=0)
    assert len(loader) == 5
    first = order(loader, 0)
    assert sorted(first.tolist()) == list(range(23))
    second = order(loader, 1)
    assert not torch.equal(first, second)
    torch.manual_seed(99)  # the global generator has no say
    torch.testing.assert_close(order(make_loader(numbered(23), 5, seed=0), 1), second, rtol=0, atol=0)
    assert not torch.equal(order(make_loader(numbered(23), 5, seed=1), 0), first)


def test_without_a_seed_the_order_is_the_sets():
    assert order(make_loader(numbered(7), 3), 4).tolist() == list(range(7))


def test_workers_give_the_same_batches():
    alone, helped = (make_loader(numbered(9), 4, seed=0, num_workers=n) for n in (0, 1))
    torch.testing.assert_close(order(alone, 2), order(helped, 2), rtol=0, atol=0)


@pytest.mark.parametrize(("count", "batch", "seed"), [(22, 6, 0), (22, 6, None), (13, 6, 3), (14, 6, None), (3, 6, 0)])
def test_processes_together_see_what_one_sees(count, batch, seed):
    images = numbered(count)
    alone = [labels.tolist() for labels in batches(make_loader(images, batch, seed=seed), 4)]
    shares = [batches(make_loader(images, batch, seed=seed, rank=r, world_size=3), 4) for r in range(3)]
    together = [torch.cat(parts).tolist() for parts in zip(*shares, strict=True)]  # strict: as many batches each
    assert [*itertools.chain(*together)] == [*itertools.chain(*alone)]
    if len(alone[-1]) >= 3:
        assert together == alone
    else:  # one image for three processes goes with the batch before it
        assert together == [*alone[:-2], alone[-2] + alone[-1]]
    sizes = [[len(part) for part in parts] for parts in zip(*shares, strict=True)]
    assert all(min(s) >= 1 and max(s) - min(s) <= 1 for s in sizes)


def test_length_is_the_number_of_batches():
    for count in range(3, 30):
        for rank in range(3):
            loader = make_loader(numbered(count), 6, seed=0, rank=rank, world_size=3)
            assert len(loader) == len(list(loader))


def test_a_repeated_image_stands_side_by_side_and_the_epoch_keeps_its_length():
    epoch = order(make_loader(numbered(20), 6, seed=0, repeats=3), 1)
    assert len(epoch) == 20
    assert epoch.tolist() == epoch[::3].repeat_interleave(3)[:20].tolist()
    assert len(epoch.unique()) == 7
    assert epoch[::3].tolist() == order(make_loader(numbered(20), 6, seed=0), 1)[:7].tolist()


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(InputError, match="2 images for 3 process"):
        make_loader(numbered(2), 6, rank=0, world_size=3)
    with pytest.raises(InputError, match="--batch_size: expected a multiple of the 3 processes, got 7"):
        make_loader(numbered(20), 7, seed=0, rank=0, world_size=3)
    make_loader(numbered(20), 7, rank=0, world_size=3)  # scores are sums: any share will do
    with pytest.raises(InputError, match="0 images for 1 process"):
        make_loader(numbered(0), 7, seed=0)
    assert list(make_loader(numbered(0), 7)) == []


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_breaks_while_training_is_named_in_one_line(tmp_path, num_workers):
    (tmp_path / "text.png").write_text("no image")
    images = FileImages((tmp_path / "text.png",), torch.zeros(1, dtype=torch.long), 3, (4, 4))
    with pytest.raises(InputError) as caught:
        list(make_loader(images, 1, num_workers=num_workers))
    assert str(caught.value) == f"{tmp_path / 'text.png'}: not an image"
