"""The page of targets, from results whose means are known."""

import json

import pytest

from .. import targets


def row(peer, ratio, median_ms, **others):
    base = {
        "case": "a",
        "kind": "kxk",
        "options": False,
        "dtype": "float32",
        "mode": "forward",
        "batch": 2,
        "kept_mib": None,
    }
    return base | {"peer": peer, "ratio": ratio, "median_ms": median_ms} | others


@pytest.fixture
def result(tmp_path):
    rows = [
        row("operator", 0.5, 1.0),
        row("operator", 2.0, 4.0, case="b"),
        row("operator", 9.0, 9.0, case="c", options=True),
        row("operator", 1.5, 3.0, mode="forward+backward", kind="1x1+linear"),
        row("operator", 7.0, 0.07, case="tiny", kind="small"),
        row("compiled", 1.0, 2.0),
        *(
            row(peer, ratio, 10 * ratio, case=case, kind="network", mode="training step", kept_mib=kept)
            for case in ("resnet50", "another")
            for peer, ratio, kept in (("baseline", 1.0, 100.0), ("bcos", 1.25, 103.0))
        ),
    ]
    environment = {"device": "D", "threads": 2, "capability": "C", "torch": "T", "commit": "0123456789abcdef"}
    path = tmp_path / "speed.json"
    path.write_text(json.dumps({"environment": environment, "rows": rows}))
    return path


def test_page(result, capsys):
    assert targets.main([str(result)]) == 0
    page = capsys.readouterr().out
    assert "| layer, forward | float32 | <= 1.05, none above 1.20 | 1.00 of 2 | 2.00 b |" in page
    assert "| 1x1 and linear, forward+backward | float32 | <= 1.00 | 1.50 of 1 | 1.50 a |" in page
    assert "| small layer (bound by calls), forward | float32 |  | 7.00 of 1 | 7.00 tiny |" in page
    assert "| layer / torch.compile of the formula | float32 | < 1, never above 1.10 | 0.50 of 1 | 0.50 a |" in page
    assert "| training step, resnet50, batch 2 | float32 | <= 1.05 | 1.25 | |" in page
    assert "| bytes kept for backward, resnet50, batch 2 | float32 | <= 1.05 | 1.03 | |" in page
    assert "| training step, another, batch 2 | float32 |  | 1.25 | |" in page


def test_what_is_no_result(tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text("[]")
    with pytest.raises(SystemExit):
        targets.main([str(path)])
    assert "results: expected JSON files of benchmarks.run" in capsys.readouterr().err
