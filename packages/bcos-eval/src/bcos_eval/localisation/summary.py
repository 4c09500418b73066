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
        of maps and of empty ones, the largest residual, seconds for a map.
    """
    rows = []
    for game, model, method in dict.fromkeys(zip(scores["game"], scores["model"], scores["method"], strict=True)):
        part = select(scores, game=game, model=model, method=method)
        by_grid = grid_means(part)
        low, high = bootstrap_interval(by_grid, confidence=confidence, seed=seed)
        q25, median, q75 = np.percentile(part["score"], [25, 50, 75])
        rows.append(
            {
                "game": game,
                "model": model,
                "method": method,
                "mean": by_grid.mean(),
                "low": low,
                "high": high,
                "median": median,
                "q25": q25,
                "q75": q75,
                "chance": np.mean(part["chance"]),
                "grids": len(by_grid),
                "maps": len(part),
                "empty": np.sum(part["empty"]),
                "residual": part["residual"].max(),
                "seconds": np.mean(part["seconds"]),
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
    one, other = (select(scores, model=model, method=method) for model, method in (first, second))
    if one.empty or not all(np.array_equal(one[key], other[key]) for key in ("grid", "cell", "class")):
        raise ValueError(f"scores: {first} and {second} were not scored on the same grids")
    gaps = grid_means(one) - grid_means(other)
    return Difference(first, second, float(gaps.mean()), *bootstrap_interval(gaps, confidence=confidence, seed=seed))


def select(scores: pd.DataFrame, **values: str) -> pd.DataFrame:
    """The rows whose columns have these values."""
    return scores.loc[np.logical_and.reduce([scores[column] == value for column, value in values.items()])]


def grid_means(scores: pd.DataFrame) -> np.ndarray:
    """Mean score of each grid, in the order of their numbers."""
    _, place = np.unique(np.asarray(scores["grid"]), return_inverse=True)
    return np.bincount(place, np.asarray(scores["score"], float)) / np.bincount(place)


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
