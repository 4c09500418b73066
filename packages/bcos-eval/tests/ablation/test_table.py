"""The table against NumPy and SciPy."""

import numpy as np
import pandas as pd
import pytest
from bcos_eval.ablation.exponents import ArmExponent
from bcos_eval.ablation.table import ablation_frame, pick, table_rows, to_markdown, to_text
from bcos_eval.design import Design
from bcos_eval.scores import ScoreTable
from bcos_eval.stats import compare_arms
from scipy import stats

ARMS = ("B 2", "B 1", "B by layer")
FOLDS = 4


@pytest.fixture
def scores():
    """(arms, folds) for each metric; accuracy, and localisation that the last arm did not play."""
    rng = np.random.default_rng(0)
    return {
        "accuracy": 0.9 + np.array([[0.0], [-0.03], [0.01]]) + rng.normal(0, 0.01, (3, FOLDS)),
        "localisation": 0.5 + np.array([[0.0], [-0.2]]) + rng.normal(0, 0.05, (2, FOLDS)),
    }


@pytest.fixture
def comparisons(scores):
    made = []
    for metric, values in scores.items():
        rows = [
            {"arm": arm, "repeat": 0, "fold": fold, "seed": 0, "num_train": 75, "num_test": 25, "seconds": 1.0}
            | {"run_id": "", metric: value}
            for arm, of_arm in zip(ARMS, values, strict=False)
            for fold, value in enumerate(of_arm)
        ]
        made.append(compare_arms(ScoreTable(pd.DataFrame(rows), Design(folds=FOLDS)), metric, rope=0.0))
    return made


EXPONENTS = {
    "B 1": ArmExponent(1, 1, 1),
    "B 2": ArmExponent(2, 2, 2),
    "B by layer": ArmExponent(1.5, 1.25, 1.9, "layer"),
}


def corrected(arm, control):
    """Difference, half-width of its interval and p of Nadeau and Bengio's test."""
    d = arm - control
    se = np.sqrt((1 / len(d) + 25 / 75) * d.var(ddof=1))
    return d.mean(), stats.t.ppf(0.975, len(d) - 1) * se, 2 * stats.t.sf(abs(d.mean() / se), len(d) - 1)


def test_numbers(scores, comparisons):
    frame = ablation_frame(ARMS, EXPONENTS, comparisons).set_index("arm")
    assert frame.index.tolist() == list(ARMS)
    assert frame[["b_mean", "b_min", "b_max"]].to_numpy().tolist() == [[2, 2, 2], [1, 1, 1], [1.5, 1.25, 1.9]]
    for metric, values in scores.items():
        shown = frame.iloc[: len(values)]
        np.testing.assert_allclose(shown[metric], values.mean(1))
        np.testing.assert_allclose(shown[f"{metric}_sd"], values.std(1, ddof=1))
        assert (shown[f"{metric}_n"] == FOLDS).all()
        found = np.array([corrected(of_arm, values[0]) for of_arm in values[1:]])
        np.testing.assert_allclose(shown[f"{metric}_difference"][1:], found[:, 0])
        np.testing.assert_allclose(shown[f"{metric}_low"][1:], found[:, 0] - found[:, 1])
        np.testing.assert_allclose(shown[f"{metric}_high"][1:], found[:, 0] + found[:, 1])
        np.testing.assert_allclose(shown[f"{metric}_p"][1:], found[:, 2], rtol=1e-6)
    # Holm over two contrasts: twice the smaller one, and the larger one but never below that
    small, large = sorted(frame["accuracy_p"][1:])
    assert sorted(frame["accuracy_p_holm"][1:]) == pytest.approx([2 * small, max(2 * small, large)])
    assert frame["localisation_p_holm"]["B 1"] == pytest.approx(frame["localisation_p"]["B 1"])  # one contrast
    assert frame.loc["B by layer", [c for c in frame if c.startswith("localisation")]].isna().all()
    assert frame.loc["B 2", [c for c in frame if c.endswith(("_p", "_low", "_difference"))]].isna().all()


def test_text(scores, comparisons):
    rows = table_rows((*ARMS, "baseline"), EXPONENTS, comparisons)
    assert rows[0] == ("arm", "B", "accuracy", "p", "localisation", "p")
    accuracy, localisation = scores["accuracy"], scores["localisation"]
    cell = "{:.2f}% ± {:.2f} pp".format
    p = 2 * min(corrected(accuracy[i], accuracy[0])[2] for i in (1, 2))
    assert rows[1] == (
        *("B 2", "2", cell(100 * accuracy[0].mean(), 100 * accuracy[0].std(ddof=1)), "–"),
        *(cell(100 * localisation[0].mean(), 100 * localisation[0].std(ddof=1)), "–"),
    )
    assert f"{p:.3f}" in (rows[2][3], rows[3][3]) or f"{p:.4f}" in (rows[2][3], rows[3][3])
    assert rows[3][1] == "1.50 [1.25, 1.90]"
    assert rows[3][4:] == ("–", "–")
    assert rows[4] == ("baseline", *["–"] * 5)
    lines = to_text(rows).splitlines()
    assert len(lines) == 5
    assert len({line.index("%") for line in lines[1:4]}) == 1  # level columns


def test_markdown_is_a_table_whatever_arms_are_called():
    page = to_markdown([("arm", "B"), ("a|b_c", "1")], ["a note"], title="x")
    assert page == "# x\n\n| arm | B |\n| --- | ---: |\n| a\\|b\\_c | 1 |\n\n- a note\n"


def test_metrics_are_picked_in_the_tables_order(comparisons):
    accuracy, localisation = comparisons
    assert pick([localisation, accuracy]) == [accuracy, localisation]
