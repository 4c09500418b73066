"""Configurations as files, dotted names, fingerprints."""

import dataclasses
import json
import math
import re

import pytest
from bcos_core.run.config import fingerprint, flatten, from_dict, load_dict, save_config, save_values, to_dict
from bcos_core.run.error import InputError


@dataclasses.dataclass(frozen=True)
class Optim:
    lr: float = 0.1
    name: str | None = None

    def __post_init__(self):
        if self.lr <= 0:
            raise ValueError(f"--optim.lr: expected a positive number, got {self.lr}")


@dataclasses.dataclass(frozen=True)
class Config:
    data: str
    epochs: int = 3
    optim: Optim = dataclasses.field(default_factory=Optim)


CONFIG = Config("digits", 7, Optim(1e-3, "adam"))


def test_round_trip_through_values():
    assert to_dict(CONFIG) == {"data": "digits", "epochs": 7, "optim": {"lr": 1e-3, "name": "adam"}}
    assert from_dict(Config, to_dict(CONFIG)) == CONFIG


def test_round_trip_through_a_file(tmp_path):
    path = tmp_path / "config.json"
    save_config(CONFIG, path)
    assert from_dict(Config, load_dict(path)) == CONFIG
    assert json.loads(path.read_text())["optim"]["lr"] == 1e-3
    assert path.read_text().endswith("\n")


def test_numbers_that_json_does_not_have(tmp_path):
    values = {"error": math.inf, "of": {"each": [1.5, -math.inf, math.nan]}}
    save_values(values, tmp_path / "metrics.json")

    def refuse(constant):
        raise ValueError(constant)

    found = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert found == {"error": "inf", "of": {"each": [1.5, "-inf", "nan"]}}


def test_absent_values_take_their_defaults():
    assert from_dict(Config, {"data": "x", "optim": {"name": "sgd"}}) == Config("x", 3, Optim(0.1, "sgd"))


def test_flatten():
    assert flatten(CONFIG) == {"data": "digits", "epochs": 7, "optim.lr": 1e-3, "optim.name": "adam"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": "x", "epoch": 1}, 'unknown option "epoch"; did you mean "epochs"? Known: data, epochs, optim'),
        ({"data": "x", "zzz": 1}, 'unknown option "zzz". Known: data, epochs, optim'),
        ({"data": "x", "optim": {"lrr": 1}}, 'unknown option "lrr"; did you mean "lr"? Known: lr, name'),
        ({"data": "x", "optim": {"lr": -1.0}}, "--optim.lr: expected a positive number, got -1.0"),
        ({"data": "x", "optim": 3}, "optim: expected a group of options, got 3"),
        ({"epochs": 1}, "data"),
    ],
)
def test_errors(values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        from_dict(Config, values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "no readable configuration"),
        (b"", "no readable configuration"),
        (b"\xff\xfe\x00", "no readable configuration"),
        (b"[1, 2]", "expected a JSON object, got list"),
    ],
)
def test_files_that_are_none(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_dict(path)
    assert str(path) in str(error.value)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match="no readable configuration"):
            load_dict(path)


def test_fingerprint_is_the_same_on_every_machine():
    """SHA-256 of each part after its length in eight bytes."""
    assert fingerprint() == "e3b0c44298fc1c14"
    assert fingerprint("a", b"b") == fingerprint(b"a", "b") == "cf6ab613e3942391"


def test_fingerprint_tells_parts_and_order_apart():
    parts = [("a", "b"), ("ab",), ("b", "a"), ("a", "b", ""), ("", "a", "b"), ("a",), ()]
    assert len({fingerprint(*p) for p in parts}) == len(parts)
    assert all(len(fingerprint(*p)) == 16 for p in parts)
