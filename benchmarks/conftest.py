"""Prints the speed table after pytest-benchmark's own statistics."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)  # pytest-benchmark keeps its results there
    rows = [b.extra_info for b in session.benchmarks if "operator_ratio" in b.extra_info] if session else []
    if not rows:
        return
    terminalreporter.section("B-cos layers against plain layers (medians)")
    terminalreporter.write_line(f"kernels: {rows[0]['kernels']}")
    line = "{:<32} {:<22} {:<16} {:>9} {:>9} {:>9} {:>8} {:>8}"
    heads = ("layer", "setting", "mode", "plain ms", "formula", "operator", "formula", "operator")
    terminalreporter.write_line(line.format(*heads))
    for row in rows:
        times = (f"{row[f'{name}_ms']:.2f}" for name in ("plain", "formula", "operator"))
        ratios = (f"{row[f'{name}_ratio']:.2f}x" for name in ("formula", "operator"))
        terminalreporter.write_line(line.format(row["case"], row["setting"], row["mode"], *times, *ratios))
