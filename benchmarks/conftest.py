"""Prints the table of the quick look after pytest-benchmark's own statistics."""

from statistics import geometric_mean

import pytest


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)  # pytest-benchmark keeps its results there
    rows = [b.extra_info for b in session.benchmarks if "operator_ratio" in b.extra_info] if session else []
    if not rows:
        return
    from bcos_kernels import build_report

    write = terminalreporter.write_line
    terminalreporter.section("B-cos layers against plain layers (medians)")
    write(f"{rows[0]['device']}, float32; kernels: {build_report()}")
    line = "{:<34} {:>6} {:<16} {:>9} {:>9} {:>9} {:>8} {:>8}"
    write(line.format("layer", "batch", "mode", "plain ms", "formula", "operator", "formula", "operator"))
    for row in rows:
        times = (f"{row[f'{name}_ms']:.2f}" for name in ("plain", "formula", "operator"))
        ratios = (f"{row[f'{name}_ratio']:.2f}x" for name in ("formula", "operator"))
        write(line.format(row["case"], row["batch"], row["mode"], *times, *ratios))
    for mode in dict.fromkeys(row["mode"] for row in rows):
        of_mode = [row for row in rows if row["mode"] == mode]
        means = (f"{geometric_mean(row[f'{name}_ratio'] for row in of_mode):.2f}x" for name in ("formula", "operator"))
        write(line.format(f"geometric mean of {len(of_mode)}", "", mode, "", "", "", *means))
