"""What the scores of a game come to: means with intervals over grids, and differences between what was scored alike."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from bcos_core.run.seed import derive_seed

Scored = tuple[str, str]
"""A model and a method, by name."""


@dataclass(frozen=True)
class Difference:
    """Mean difference of two scores over the same grids, with its interval."""

    first: Scored
    second: Scored
    mean: float
    """First minus second."""
    low: float
    high: float


def summarise(scores: pd.DataFrame, *, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Mean score of each method on each model, and how sure it is.

    The cells of a grid are explained on one picture and depend on one another: grids are resampled, not cells
    (percentile bootstrap). The interval is of drawing other images, for this very model: it does not say what
    training again would change.

    Args:
        scores: Columns game, model, method and those of :data:`.pointing_game.COLUMNS`.
        confidence: Level of the interval.
        seed: Of the bootstrap.

    Returns:
        A row for each game, model and method: mean, low, high, median, quartiles, what a uniform map scores, numbers
        of maps and of empty ones, seconds for a map.
    """
    rows = []
    for (game, model, method), part in scores.groupby(["game", "model", "method"], sort=False):
        by_grid = part.groupby("grid")["score"].mean().to_numpy()
        low, high = bootstrap_interval(by_grid, confidence=confidence, seed=seed)
        quartiles = np.percentile(part["score"], [25, 50, 75])
        rows.append(
            {
                "game": game,
                "model": model,
                "method": method,
                "mean": by_grid.mean(),
                "low": low,
                "high": high,
                "median": quartiles[1],
                "q25": quartiles[0],
                "q75": quartiles[2],
                "chance": part["chance"].mean(),
                "grids": len(by_grid),
                "maps": len(part),
                "empty": int(part["empty"].sum()),
                "seconds": part["seconds"].mean(),
            }
        )
    return pd.DataFrame(rows)


def difference(
    scores: pd.DataFrame, first: Scored, second: Scored, *, confidence: float = 0.95, seed: int = 0
) -> Difference:
    """Mean difference between two of a game's scores, grid by grid.

    Args:
        scores: Of one game.
        first: Model and method.
        second: Model and method.
        confidence: Level of the interval (percentile bootstrap over grids).
        seed: Of the bootstrap.

    Raises:
        ValueError: If the two were not scored on the same grids.

    Example:
        >>> frame = pd.DataFrame({"game": "grid", "model": "net", "method": ["a", "a", "b", "b"], "grid": [0, 1, 0, 1],
        ...                       "cell": 0, "class": 0, "score": [0.75, 0.5, 0.5, 0.25]})
        >>> difference(frame, ("net", "a"), ("net", "b")).mean
        0.25
    """
    one, other = (scores[(scores["model"] == s[0]) & (scores["method"] == s[1])] for s in (first, second))
    keys = ["grid", "cell", "class"]
    if one.empty or not one[keys].reset_index(drop=True).equals(other[keys].reset_index(drop=True)):
        raise ValueError(f"scores: {first} and {second} were not scored on the same grids")
    gaps = (one.groupby("grid")["score"].mean() - other.groupby("grid")["score"].mean()).to_numpy()
    return Difference(first, second, float(gaps.mean()), *bootstrap_interval(gaps, confidence=confidence, seed=seed))


def bootstrap_interval(values: np.ndarray, *, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean; not a number for a single value, of which nothing is known.

    Example:
        >>> bootstrap_interval(np.ones(10))
        (1.0, 1.0)
    """
    from scipy.stats import bootstrap

    if len(values) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
    found = bootstrap((values,), np.mean, confidence_level=confidence, method="percentile", rng=rng, n_resamples=4999)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
