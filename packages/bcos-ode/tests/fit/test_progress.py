"""What is shown of a fit, and what is kept of it."""

import io

import pytest
from bcos_ode.fit import progress
from bcos_ode.fit.progress import FitProgress
from rich.console import Console

STAGES = {"derivatives": 40, "windows of 5": 10}


class Kept:
    def __init__(self):
        self.values = []

    def log_metrics(self, metrics, step):
        self.values += [(name, step, value) for name, value in metrics.items()]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass as the test says."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def told(clock, *, terminal, run=None):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120)
    with FitProgress(STAGES, console, run) as report:
        for stage, step, seconds in [("derivatives", 10, 2), ("derivatives", 40, 4), ("windows of 5", 5, 3)]:
            clock[0] += seconds
            report(stage, step, 0.5 / step)
        report("windows of 5", 10, 0.03)
    return out.getvalue()


def test_a_log_gets_a_line_now_and_then(clock):
    assert told(clock, terminal=False).splitlines() == ["derivatives 40/40  loss 1.25e-02  about 0 s left of it"]


def test_a_terminal_gets_a_bar_for_each_stage(clock):
    shown = told(clock, terminal=True)
    assert "derivatives" in shown
    assert "windows of 5" in shown
    assert "loss 3.00e-02" in shown


def test_a_run_keeps_the_curves_and_their_ends(clock):
    run = Kept()
    told(clock, terminal=False, run=run)
    assert run.values == [
        ("train/derivatives", 10, 0.05),
        ("train/derivatives", 40, 0.0125),
        ("train/windows_of_5", 5, 0.1),
        ("train/windows_of_5", 10, 0.03),
    ]
