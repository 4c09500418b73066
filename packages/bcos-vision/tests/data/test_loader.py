import torch
from bcos_vision.data import ArrayImages, make_loader


def numbered(count):
    return ArrayImages(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.arange(count))


def order(loader, epoch):
    loader.sampler.start_epoch(epoch)
    return torch.cat([labels for _, labels in loader])


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
