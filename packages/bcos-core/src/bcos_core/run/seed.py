"""Explicit seeds: each use of randomness draws from a seed derived by name, never from what ran before it."""

import hashlib
import operator
import random


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed for one use of randomness: the same on every machine, unrelated between names.

    Args:
        seed: The run's seed.
        names: What the randomness is for, and where in the run it stands ("shuffle", epoch).

    Returns:
        An integer in [0, 2^63).

    Example:
        >>> derive_seed(0, "shuffle", 3) == derive_seed(0, "shuffle", 3) != derive_seed(0, "shuffle", 4)
        True
    """
    # plain values: NumPy's own have another repr, and the same fold would draw from another seed
    parts = [str(part) if isinstance(part, str) else operator.index(part) for part in (seed, *names)]
    digest = hashlib.sha256(repr(tuple(parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries still draw from the global generator
    torch.manual_seed(seed)
