"""Seeds by name: the same everywhere, for ever."""

import random

import numpy as np
import pytest
import torch
from bcos_core.run.seed import derive_seed, seed_everything


def test_values_do_not_drift():
    """A run's numbers hang on them. First 8 bytes of SHA-256 of the tuple's repr, little-endian, halved."""
    assert derive_seed(0) == 3582888934675442504
    assert derive_seed(7, "shuffle", 3) == 2459628292729909179


def test_unrelated_between_names_and_seeds():
    keys = [(s, *n) for s in range(20) for n in ((), ("a",), ("b",), ("a", 1), ("a", "1"), (1,), ("1",), (1, "a"))]
    seeds = [derive_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert 0.3 < np.mean([seed >= 2**62 for seed in seeds]) < 0.7


def test_numpys_numbers_are_numbers():
    """np.int64(3) reads otherwise than 3, and otherwise again from NumPy 2 on."""
    assert derive_seed(np.int64(7), np.str_("shuffle"), np.int32(3)) == derive_seed(7, "shuffle", 3)


@pytest.mark.parametrize("part", [1.5, None, b"a", (1,)])
def test_other_parts_are_refused(part):
    with pytest.raises(TypeError):
        derive_seed(0, part)


def test_does_not_touch_the_global_state():
    random.seed(0)
    state = random.getstate(), torch.get_rng_state()
    derive_seed(5, "a")
    assert random.getstate() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])


@pytest.mark.parametrize("seed", [0, 2**32 + 5, 2**63 - 1])
def test_seed_everything(seed):
    def draw():
        return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002

    seed_everything(seed)
    first = draw()
    assert draw() != first
    seed_everything(seed)
    assert draw() == first
    seed_everything(seed - 1 if seed else 1)
    assert all(a != b for a, b in zip(draw(), first, strict=True))
