"""Batches, in an order that is a function of seed and epoch alone: so a resumed run sees what it would have seen."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from bcos_core.run.error import InputError
from bcos_core.run.seed import derive_seed
from torch.utils.data import DataLoader, Dataset, Sampler

from .change import PictureChange
from .images import Batch, Images


class Draw(NamedTuple):
    """The images of one batch."""

    indices: list[int]
    seeds: list[int]
    """One for each image, of whatever is drawn for it; empty where the order is the set's."""


class EpochBatches(Sampler[Draw]):
    """One process's share of each batch of an epoch; shuffled anew for each epoch, or in order.

    Args:
        num_samples: Size of the set.
        batch_size: Images in a batch, over all processes together.
        seed: The run's seed for a shuffled order; None for the order of the set.
        rank: Which process this is.
        world_size: How many processes share each batch.
        repeats: Times that a drawn image stands in a shuffled epoch.
    """

    def __init__(
        self, num_samples: int, batch_size: int, seed: int | None, rank: int = 0, world_size: int = 1, repeats: int = 1
    ) -> None:
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._repeats = repeats
        self._epoch = 0

    def start_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iterator has.

        Not ``set_epoch``: Lightning would call that with a count of its own.
        """
        self._epoch = epoch

    def __len__(self) -> int:
        whole, left = divmod(self._num_samples, self._batch_size)
        folded = whole and left < self._world_size
        return whole if folded else whole + bool(left)

    def __iter__(self) -> Iterator[Draw]:
        order, seeds = self._order()
        for i in range(len(self)):
            start = i * self._batch_size
            size = (self._num_samples if i == len(self) - 1 else start + self._batch_size) - start
            first, end = (start + size * rank // self._world_size for rank in (self._rank, self._rank + 1))
            yield Draw(order[first:end].tolist(), seeds[first:end].tolist())

    def _order(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._seed is None:
            return torch.arange(self._num_samples), torch.zeros(0, dtype=torch.long)
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "shuffle", self._epoch))
        order = torch.randperm(self._num_samples, generator=generator)
        order = order.repeat_interleave(self._repeats)[: self._num_samples]
        return order, torch.randint(2**63 - 1, (self._num_samples,), generator=generator)


class Loader(DataLoader[Batch]):
    """A DataLoader that raises a worker's InputError as it was, not as that worker's traceback."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override] - DataLoader promises its own iterator class
        for batch in super().__iter__():
            if isinstance(batch, InputError):
                raise batch
            yield batch


class _Reader(Dataset[Batch | InputError]):
    """What a worker does with a draw."""

    def __init__(self, images: Images, change: PictureChange | None) -> None:
        self._images = images
        self._change = change

    def __getitem__(self, draw: Draw) -> Batch | InputError:
        try:
            if self._change is None:
                return self._images[draw.indices]
            return self._change.read(self._images, draw.indices, draw.seeds)
        except InputError as error:
            return error


def make_loader(
    images: Images,
    batch_size: int,
    *,
    seed: int | None = None,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    repeats: int = 1,
    change: PictureChange | None = None,
) -> Loader:
    """A loader of (uint8 images, labels) batches, shuffled where a seed is given.

    Processes that train together see what one alone would see: each has its contiguous share of every batch, as many
    images as the others or one more. All have the same number of batches, none is empty, and no image is lost or comes
    twice: a last batch of fewer images than processes is joined to the one before it.

    Args:
        images: The set.
        batch_size: Images in a batch, over all processes together; the last may be shorter.
        seed: The run's seed for a shuffled order, another one each epoch (``loader.sampler.start_epoch``); None for
            the order of the set.
        num_workers: Processes that read ahead; 0 reads in this one.
        rank: Which of the processes that share each batch this is, from 0.
        world_size: How many they are.
        repeats: Times that a drawn image stands in a shuffled epoch, side by side; the epoch keeps its length, so
            fewer images are drawn (https://arxiv.org/abs/1901.09335).
        change: What is done to single pictures (:func:`picture_change`); needs a seed. It is a function of seed, epoch,
            image and repeat alone, whatever the number of workers and processes.

    Raises:
        InputError: If there are fewer images than processes, or shuffled batches cannot be shared evenly (the mean
            of the processes' gradients would not be the batch's).

    Example:
        >>> from bcos_vision.data import load_data
        >>> loaders = [make_loader(load_data("digits").test, 64, rank=rank, world_size=2) for rank in (0, 1)]
        >>> [len(loader) for loader in loaders], [len(next(iter(loader))[1]) for loader in loaders]
        ([6, 6], [32, 32])
    """
    training = seed is not None
    if len(images) < world_size and (training or len(images)):
        raise InputError(f"{len(images)} images for {world_size} process(es): expected at least one for each")
    if batch_size % world_size and (training or batch_size < world_size):
        raise InputError(f"--batch_size: expected a multiple of the {world_size} processes, got {batch_size}")
    return Loader(
        _Reader(images, change),  # type: ignore[arg-type] - the loader raises what is no batch
        sampler=EpochBatches(len(images), batch_size, seed, rank, world_size, repeats),
        batch_size=None,  # the set itself makes a batch, in one indexing
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),  # else each iterator takes a number from the global one, at a resume one earlier
    )
