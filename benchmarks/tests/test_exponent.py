"""The table of what learning B costs: what it times is the learnt layer, and the fixed one answers the same."""

import pytest
import torch

from benchmarks import exponent


@pytest.mark.parametrize("name", ["conv 3x3", "conv 1x1", "conv 3x3, small images", "linear"])
def test_all_kinds_answer_alike(name):
    answers = []
    for kind in exponent.KINDS:
        module, x = exponent.layer(name, kind)
        answers.append(module(x[:1]))
        learnt = [p for p in module.parameters() if p is not module.weight]
        assert [p.numel() for p in learnt] == {
            "fixed": [],
            "learnt, by layer": [1],
            "learnt, by channel": [module.weight.shape[0]],
        }[kind]
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], rtol=1e-4, atol=1e-5)


def test_a_row(monkeypatch):
    monkeypatch.setattr(exponent, "BUDGET", 0.01)
    cells = [cell.strip() for cell in exponent.row("conv 3x3, small images", "cpu").strip("|").split("|")]
    assert cells[0] == "conv 3x3, small images"
    assert all(float(cell) > 0 for cell in cells[1:])
    assert len(cells) == 6
