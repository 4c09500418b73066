"""What a picture has room for: the largest by name, the others together, and names that fit."""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def label_names(names: Sequence[str], most: int = 16) -> list[str]:
    """Names as a picture can write them, still all different: of a long one the middle gives way, or what others share.

    Matplotlib reads what stands between two dollar signs as a formula, and leaves what begins with an underscore out of
    legends.

    Args:
        names: All different.
        most: Characters that fit, at least 10.

    Example:
        >>> label_names(["x", "temperature of the reactor", "level of tank 1 (m)", "level of tank 2 (m)"], 10)
        ['x', 'tempe…ctor', 'leve…1 (m)', 'leve…2 (m)']
    """
    found = [name if len(name) <= most else f"{name[: most // 2]}…{name[most // 2 + 1 - most :]}" for name in names]
    for text in _repeated(found):
        alike = [k for k, other in enumerate(found) if other == text]
        letters = zip(*(names[k] for k in alike), strict=False)
        shared = sum(1 for _ in itertools.takewhile(lambda same: len(set(same)) == 1, letters))
        for k in alike:
            found[k] = f"{names[k][:4]}…{names[k][shared:][: most - 5]}"
    for text in _repeated(found):
        for k, other in enumerate(found):
            if other == text:
                found[k] = f"{names[k][: most // 2]}…{k + 1}"
    return [f"{' ' * text.startswith('_')}{text}".replace("$", r"\$") for text in found]


def _repeated(texts: Sequence[str]) -> set[str]:
    return {text for text, count in Counter(texts).items() if count > 1}


def find_largest(sizes: Float[np.ndarray, "m"], most: int) -> tuple[Int[np.ndarray, "k"], Int[np.ndarray, "rest"]]:
    """Which of m are shown, and which are left to be shown as one; both in their own order.

    A single one is never left.

    Example:
        >>> find_largest(np.array([3.0, 1.0, 5.0, 2.0]), 2)
        (array([0, 2]), array([1, 3]))
    """
    if len(sizes) <= most + 1:
        return np.arange(len(sizes)), np.arange(0)
    order = np.argsort(-np.nan_to_num(sizes), kind="stable")
    return np.sort(order[:most]), np.sort(order[most:])


def find_moving(states: Float[np.ndarray, "*batch d"], most: int) -> Int[np.ndarray, "k"]:
    """Which of d variables a picture of so many shows: those that vary most against their own size, in their own order.

    Example:
        >>> find_moving(np.array([[1.0, 100.0, -1.0], [1.5, 101.0, 1.0]]), 2)
        array([0, 2])
    """
    rows = states.reshape(-1, states.shape[-1])
    size = np.abs(rows).max(0)
    moved = np.divide(np.ptp(rows, axis=0), size, out=np.zeros(len(size)), where=size > 0)
    return np.sort(np.argsort(-moved, kind="stable")[:most])
