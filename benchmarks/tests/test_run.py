import json
import math
import pathlib

import pytest
import torch

pytest.importorskip("rich")

from .. import run
from ..cases import Case
from ..formula import bcos_formula
from ..report import family_table
from ..row import Row

TINY = [Case("tiny 3x3", 2, 2, 4, 6, 4, 3), Case("tiny linear", 8, 8, 4, 1, 4, linear=True)]


def row(case, kind, peer, ratio, **more):
    return Row(case, kind, False, "cpu", "float32", "forward", 1, peer, ratio=ratio, **more)


def test_families_have_geometric_means_and_worst_cases():
    rows = [row("a", "kxk", "plain", 1.0), row("b", "1x1+linear", "plain", 1.0)]
    rows += [row("a", "kxk", "operator", 2.0), row("b", "1x1+linear", "operator", 8.0)]
    rows += [row("a", "kxk", "compiled", None), row("b", "1x1+linear", "compiled", 3.0)]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in family_table(rows).splitlines()[2:]]
    assert lines[:3] == [
        ["all but small", "4.00x of 2", "8.00x b", "3.00x of 1", "3.00x b"],
        ["1x1 + linear", "8.00x of 1", "8.00x b", "3.00x of 1", "3.00x b"],
        ["k x k", "2.00x of 1", "2.00x a", "", ""],
    ]


def test_a_run_saves_what_it_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "CASES", TINY)
    name = tmp_path / "some" / "speed v1.5"
    arguments = ["--device", "cpu", "--budget", "0.02", "--peers", "operator", "formula", "--out", str(name)]
    assert run.main(arguments) == 0
    saved = capsys.readouterr().out
    content = json.loads((name.parent / "speed v1.5.json").read_text())
    page = (name.parent / "speed v1.5.md").read_text()
    assert "speed v1.5.json" in saved
    assert "speed v1.5.md" in saved
    assert len(content["rows"]) == 2 * 2 * 3  # cases, modes, peers with the plain layer
    for r in content["rows"]:
        assert r["status"] == "ok"
        assert 0 < r["p10_ms"] <= r["median_ms"] <= r["p90_ms"]
        assert r["ratio"] == 1 if r["peer"] == "plain" else r["error"] < 1e-4
        assert (r["kept_mib"] is not None) == (r["mode"] == "forward+backward")
    assert content["environment"]["torch"]
    assert content["ceilings"]["float32"]["flops_per_s"] > 0
    for text in (page, json.dumps(content)):
        assert str(tmp_path) not in text
        assert str(pathlib.Path.home()) not in text
    assert "tiny linear" in page


def test_a_peer_that_breaks_is_reported_and_the_others_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "CASES", TINY[:1])

    def broken(*_args, **_options):
        raise RuntimeError("no such kernel in /home/somebody/c++/kernel.cpp:3\nat some address")

    def overflowing(case, x, weight, b):
        return bcos_formula(case, x, weight, b) * (1 if x.dtype == torch.float64 else math.inf)

    monkeypatch.setattr("bcos_core.functional.bcos_conv2d", broken)
    monkeypatch.setattr("benchmarks.peers.bcos_formula", overflowing)
    arguments = ["--device", "cpu", "--budget", "0.02", "--mode", "forward", "--peers", "operator", "formula"]
    assert run.main([*arguments, "--out", str(tmp_path / "r")]) == 1
    rows = {r["peer"]: r for r in json.loads((tmp_path / "r.json").read_text())["rows"]}
    assert rows["operator"]["status"] == "failed"
    assert rows["operator"]["note"] == "RuntimeError: no such kernel in kernel.cpp:3"
    assert rows["formula"]["note"] == "ArithmeticError: output or gradient is not finite"
    assert rows["plain"]["ratio"] == 1
    assert "RuntimeError: no such kernel" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "resnet99"], 'no name has "resnet99" in it; the names are resnet56 16 3x3 @32; '),
        (["--device", "cpu", "--dtype", "tf32"], "--dtype: cpu has float32, bfloat16, got tf32"),
        (["--dtype", "int8"], "choose from"),
        (["--device", "cpu", "--budget", "0"], "--budget: expected seconds above 0, got 0.0"),
        (["--device", "cpu", "--threads", "0"], "--threads: expected at least 1, got 0"),
        (["--peer", "plain"], "unrecognized arguments: --peer plain"),
        (["--out", "."], "--out: expected the name of a file"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
