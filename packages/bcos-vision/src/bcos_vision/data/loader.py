"""Batches, in an order that is a function of seed and epoch alone: so a resumed run sees what it would have seen."""

from collections.abc import Iterator

import torch
from bcos_core.run.seed import derive_seed
from torch.utils.data import DataLoader, Sampler

from .images import Images


class EpochBatches(Sampler[list[int]]):
    """Lists of indices, one for each batch; shuffled anew for each epoch, or in order.

    Args:
        num_samples: Size of the set.
        batch_size: Indices in a list; the last may be shorter.
        seed: The run's seed for a shuffled order; None for the order of the set.
    """

    def __init__(self, num_samples: int, batch_size: int, seed: int | None) -> None:
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def start_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iterator has.

        Not ``set_epoch``: Lightning would call that with a count of its own.
        """
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self._num_samples // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        if self._seed is None:
            order = torch.arange(self._num_samples)
        else:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "shuffle", self._epoch))
            order = torch.randperm(self._num_samples, generator=generator)
        return iter([part.tolist() for part in order.split(self._batch_size)])


def make_loader(images: Images, batch_size: int, *, seed: int | None = None, num_workers: int = 0) -> DataLoader:
    """A loader of (uint8 images, labels) batches, shuffled where a seed is given."""
    return DataLoader(
        images,  # type: ignore[arg-type] - a map from lists of indices to batches
        sampler=EpochBatches(len(images), batch_size, seed),
        batch_size=None,  # the set itself makes a batch, in one indexing
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),  # else each iterator takes a number from the global one, at a resume one earlier
    )
