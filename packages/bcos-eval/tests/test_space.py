import optuna
import pytest
from bcos_core.run.error import InputError
from bcos_eval.space import read_search, read_space, suggest

KNOWN = {"optim.lr": 0.1, "epochs": 5, "norm": None, "b": 2.0, "seed": 0, "data": "digits"}


def test_each_kind_is_suggested_within_its_range():
    space = read_space(["optim.lr=1e-4..1e-1:log", "epochs=5..20", "b=1..2.5", "norm=batch|layer"], KNOWN)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    chosen = [suggest(study.ask(), space) for _ in range(200)]
    assert all(1e-4 <= c["optim.lr"] <= 1e-1 and 1 <= c["b"] <= 2.5 and c["norm"] in ("batch", "layer") for c in chosen)
    assert {type(c["epochs"]) for c in chosen} == {int}
    assert {c["epochs"] for c in chosen} == set(range(5, 21))
    small = sum(c["optim.lr"] < 1e-3 for c in chosen)  # a third of the range in the logarithm, 1 % of it otherwise
    assert 40 < small < 95


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optim.lr", "expected OPTION=LOW..HIGH"),
        ("optim.lrr=1..2", 'unknown option "optim.lrr"; did you mean "optim.lr"'),
        ("b=2..1", "expected LOW < HIGH"),
        ("b=0..1:log", "LOW > 0 with :log"),
        ("b=1..two", "two numbers"),
        ("b=1..2:exp", "two numbers"),
        ("norm=batch", "one value is no choice"),
    ],
)
def test_what_cannot_be_read_is_refused(word, message):
    with pytest.raises(InputError, match=message):
        read_space([word], KNOWN)


def test_what_is_not_to_be_chosen_is_refused():
    for name in ("seed", "data"):
        with pytest.raises(InputError, match=f"{name} is not for a search"):
            read_search([f"{name}=1|2"], 3, 2, KNOWN, {"seed"})
    with pytest.raises(InputError, match="--inner_folds: expected at least 2, got 1"):
        read_search(["b=1..2"], 3, 1, KNOWN, set())
    with pytest.raises(InputError, match="nothing to choose"):
        read_search([], 3, 2, KNOWN, set())
    with pytest.raises(InputError, match="given twice"):
        read_search(["b=1..2", "b=1..3"], 3, 2, KNOWN, set())
