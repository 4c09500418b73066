import numpy as np
import pandas as pd
import pytest
from bcos_eval.design import Design
from bcos_eval.scores import ScoreTable
from bcos_eval.stats import compare_arms


@pytest.fixture
def compare():
    """A comparison of made-up accuracies; seeds of their own where arms are not paired."""

    def make(arms, values, *, paired=True, rope=0.005, metric="accuracy"):
        rng = np.random.default_rng(0)
        names = [f"arm {i}" for i in range(arms)] if isinstance(arms, int) else arms
        rows = []
        for i, arm in enumerate(names):
            for j in range(values):
                fold, seed = (j, 0) if paired else (0, j + i * values)
                score = 0.9 + 0.01 * i + rng.normal(0, 0.01)
                unit = {"arm": arm, "repeat": 0, "fold": fold, "seed": seed, "num_train": 800, "num_test": 200}
                rows.append({**unit, "seconds": 1.0, "run_id": "", metric: score})
        design = Design(folds=values) if paired else Design(folds=1, seeds=tuple(range(len(names) * values)))
        return compare_arms(ScoreTable(pd.DataFrame(rows), design), metric, rope=rope)

    return make
