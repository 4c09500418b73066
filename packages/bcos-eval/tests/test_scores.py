import itertools
import math

import numpy as np
import pandas as pd
import pytest
from bcos_core.run.error import InputError
from bcos_eval.design import Design
from bcos_eval.scores import ScoreTable
from hypothesis import given, settings
from hypothesis import strategies as st


def make_table(design, arms=("plain", "bcos"), seed=0, seeds=None):
    rng = np.random.default_rng(seed)
    rows = [
        {"arm": arm, "repeat": repeat, "fold": fold, "seed": run, "num_train": 80, "num_test": 20, "run_id": "007"}
        | {name: rng.random() for name in ("seconds", "accuracy", "loss")}
        for arm in arms
        for repeat, fold, run in itertools.product(
            range(design.repeats), range(design.folds), design.seeds if seeds is None else seeds[arm]
        )
    ]
    return ScoreTable(pd.DataFrame(rows), design)


def without(table, *rows):
    return ScoreTable(table.frame.drop(list(rows)), table.design)


def with_value(table, row, column, value):
    frame = table.frame.copy()
    frame.loc[row, column] = value
    return ScoreTable(frame, table.design)


def test_a_whole_table_passes():
    for design in (Design(5, 2), Design(2, 5, (0, 7)), Design(1, 1, (3, 1, 2))):
        table = make_table(design)
        table.check()
        assert table.arms == ("plain", "bcos")
        assert table.metrics == ("accuracy", "loss")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=6), st.sampled_from(["NA", "null", "a, b", 'say "so"', "zwölf", "1"]))
def test_files_lose_nothing(tmp_path_factory, values, arm):
    folder = tmp_path_factory.mktemp("table") / "new"
    design = Design(1, 1, tuple(range(len(values))))
    table = make_table(design, arms=(arm,))
    table = ScoreTable(table.frame.assign(loss=values), design, "a note")
    table.write(folder)
    again = ScoreTable.read(folder)
    assert (again.design, again.note) == (design, "a note")
    pd.testing.assert_frame_equal(again.frame, table.frame, check_exact=True)
    assert again.frame["loss"].to_numpy().tobytes() == np.where(np.isnan(values), np.nan, values).tobytes()
    assert again.frame["run_id"].tolist() == ["007"] * len(values)


def test_values_are_means_over_seeds_of_each_fold_and_scores_of_each_seed():
    table = make_table(Design(3, 2, (0, 4)))
    shuffled = ScoreTable(table.frame.sample(frac=1, random_state=0), table.design)
    arm, control = shuffled.pairs("loss", "bcos", "plain")
    for values, name in ((arm, "bcos"), (control, "plain")):
        loss = table.frame[table.frame["arm"] == name]["loss"].to_numpy()  # written in the order of folds
        np.testing.assert_array_equal(values, (loss[0::2] + loss[1::2]) / 2)
    one = make_table(Design(1, 1, (5, 3)))
    np.testing.assert_array_equal(one.pairs("loss", "bcos", "plain")[0], one.frame["loss"].to_numpy()[[3, 2]])


def test_ratio_of_whole_folds_is_one_over_the_others():
    table = make_table(Design(5, 1))
    sizes = np.array([360, 360, 359, 359, 359] * 2)  # 1797 digits
    table = ScoreTable(table.frame.assign(num_test=sizes, num_train=1797 - sizes), table.design)
    assert table.test_train_ratio("bcos", "plain") == pytest.approx(1 / 4, rel=1e-12)


CROSS = make_table(Design(5, 2))
SEEDS = make_table(Design(1, 1, (0, 1, 2)))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (ScoreTable(CROSS.frame.drop(columns="num_test"), CROSS.design), "no column num_test"),
        (ScoreTable(CROSS.frame[:0], CROSS.design), "no rows"),
        (with_value(CROSS, 3, "loss", math.nan), "loss is no finite number in plain repeat 0 fold 3 seed 0"),
        (with_value(CROSS, 3, "accuracy", math.inf), "accuracy is no finite number in plain repeat 0 fold 3 seed 0"),
        (with_value(CROSS, 1, "fold", 0), "1 units came more than once: plain repeat 0 fold 0 seed 0"),
        (
            with_value(CROSS, 1, "fold", 5),
            r"not of the design \(2x5-fold counted from 0, seeds 0\): plain repeat 0 fold 5",
        ),
        (without(CROSS, 13), "1 of 20 units are missing: bcos repeat 0 fold 3 seed 0; finish them"),
        (without(CROSS, *range(10, 16)), "6 of 20 .*bcos repeat 0 fold 0 seed 0, .* and 2 more"),
        (without(CROSS, 3, 13), "2 of 20 units are missing: plain repeat 0 fold 3 seed 0, bcos repeat 0 fold 3 seed 0"),
        (without(SEEDS, 4), "1 of 6 units are missing: bcos repeat 0 fold 0 seed 1"),
        (with_value(CROSS, 3, "num_test", 0), "num_test of at least 1 in plain repeat 0 fold 3 seed 0"),
        (with_value(CROSS, 3, "num_test", 19), "different images: num_test is 19, 20 in repeat 0 fold 3 seed 0"),
    ],
)
def test_check_names_what_is_wrong(table, message):
    with pytest.raises(InputError, match=message):
        table.check()


def test_unknown_names_get_the_nearest():
    with pytest.raises(InputError, match='unknown metric "acuracy"; did you mean "accuracy"'):
        CROSS.check("acuracy")
    with pytest.raises(InputError, match='unknown arm "bcso"; did you mean "bcos"'):
        CROSS.values("accuracy", "bcso")
    CROSS.check("seconds")


def test_only_the_metric_that_is_asked_for_has_to_be_finite():
    with_value(CROSS, 3, "loss", math.nan).check("accuracy")


def test_arms_of_other_seeds_are_independent_not_incomplete():
    table = make_table(Design(1, 1, tuple(range(6))), seeds={"plain": (0, 1, 2), "bcos": (3, 4, 5)})
    table.check()
    with pytest.raises(InputError, match='"bcos" and "plain" have different seeds'):
        table.pairs("accuracy", "bcos", "plain")
    with pytest.raises(InputError, match="1 of 6 units are missing: every arm repeat 0 fold 0 seed 4"):
        without(table, 4).check()
    without(table, 4).shared().check()


def test_an_unfinished_study_is_cut_to_what_all_arms_have(tmp_path):
    table = without(CROSS, 3, 14, 7, 17)  # two units that one arm lacks, one that both lack
    shared = table.shared()
    shared.check()
    assert shared.frame.groupby("arm").size().tolist() == [7, 7]
    assert "4 of its units are missing, and 2 finished ones are left out" in shared.note
    shared.write(tmp_path)
    ScoreTable.read(tmp_path).check()
    assert CROSS.shared() is CROSS
    with pytest.raises(InputError, match="no unit is finished in all of plain, bcos"):
        without(CROSS, *range(5), *range(15, 20)).shared()
    lacking = ScoreTable(shared.frame.drop(0), shared.design, shared.note)
    with pytest.raises(InputError, match="missing: plain repeat 0 fold 0 seed 0"):  # a note excuses what all lack alone
        lacking.check()


def test_reading_says_which_file_is_wrong(tmp_path):
    with pytest.raises(InputError, match=r"no scores\.csv"):
        ScoreTable.read(tmp_path)
    CROSS.write(tmp_path)
    (tmp_path / "design.json").write_text('{"folds": 5}')
    with pytest.raises(InputError, match=r"design\.json: expected folds, repeats, seeds and note"):
        ScoreTable.read(tmp_path)
    CROSS.write(tmp_path)
    text = (tmp_path / "scores.csv").read_text().replace("plain,0,0", "plain,0,first", 1)
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(InputError, match=r"scores\.csv: .*first"):
        ScoreTable.read(tmp_path)
