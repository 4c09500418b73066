import re
from dataclasses import dataclass, field
from typing import Literal

import optuna
import pytest
from bcos_core.run.error import InputError
from bcos_eval.space import read_search, suggest


@dataclass(frozen=True)
class Optim:
    lr: float = 0.1


@dataclass(frozen=True)
class Config:
    epochs: int = 5
    norm: str | None = None
    b: float = 2.0
    flip: bool = False
    loss: Literal["bce", "ce"] = "bce"
    side: int | None = None
    seed: int = 0
    data: str = "digits"
    optim: Optim = field(default_factory=Optim)

    def __post_init__(self):
        if self.b < 1:
            raise ValueError(f"--b: expected at least 1, got {self.b}")


def read(*words, configs=None, trials=3, folds=2):
    return read_search(words, trials, folds, configs or {"a": Config()}, {"seed"})


def test_each_kind_is_suggested_within_its_range_and_of_its_type():
    words = ("optim.lr=1e-4..1e-1:log", "epochs=5..20", "b=1..3", "norm=batch|layer", "flip=true|false", "side=8|none")
    space = read(*words).space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    chosen = [suggest(study.ask(), space) for _ in range(200)]
    assert all(1e-4 <= c["optim.lr"] <= 1e-1 and 1 <= c["b"] <= 3 and c["norm"] in ("batch", "layer") for c in chosen)
    assert {type(c["epochs"]) for c in chosen} == {int}
    assert {type(c["b"]) for c in chosen} == {float}  # though its ends are whole
    assert len({c["b"] for c in chosen}) > 100
    assert {c["flip"] for c in chosen} == {True, False}
    assert {c["side"] for c in chosen} == {8, None}
    assert {c["epochs"] for c in chosen} == set(range(5, 21))
    small = sum(c["optim.lr"] < 1e-3 for c in chosen)  # a third of the range in the logarithm, 1 % of it otherwise
    assert 40 < small < 95


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optim.lr", "expected OPTION=LOW..HIGH"),
        ("optim.lrr=1..2", 'unknown option "optim.lrr"; did you mean "optim.lr"'),
        ("b=2..1", "expected LOW < HIGH"),
        ("b=1..2..3", "two numbers"),
        ("optim.lr=0..1:log", "LOW > 0 with :log"),
        ("b=1..two", 'expected numbers, got "two"'),
        ("epochs=1..2.5", 'expected whole numbers, got "2.5"'),
        ("b=1..2:exp", "of an option that is a number"),
        ("norm=a..b", "of an option that is a number"),
        ("norm=batch", "one value is no choice"),
        ("flip=yes|no", 'expected true or false, got "yes"'),
        ("loss=bce|mse", 'expected some of bce, ce, got "mse"'),
        ("b=0.5..2", "--space b=0.5, arm a: --b: expected at least 1, got 0.5"),
        ("seed=1|2", "seed is not for a search"),
        ("data=a|b", "data is not for a search"),
    ],
)
def test_what_cannot_be_read_is_refused(word, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read(word)


def test_what_is_not_to_be_chosen_is_refused():
    with pytest.raises(InputError, match="--inner_folds: expected at least 2, got 1"):
        read("b=1..2", folds=1)
    with pytest.raises(InputError, match="nothing to choose"):
        read(configs={"a": Config()})
    with pytest.raises(InputError, match="given twice"):
        read("b=1..2", "b=1..3")
    with pytest.raises(InputError, match="the arms differ in b; a search would make them alike"):
        read("b=1..2", configs={"a": Config(b=1.5), "b": Config(b=2)})
