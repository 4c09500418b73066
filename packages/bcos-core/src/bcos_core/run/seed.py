"""Explicit seeds: each use of randomness draws from a seed derived by name, never from what ran before it."""

import hashlib
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
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries still draw from the global generator
    torch.manual_seed(seed)
