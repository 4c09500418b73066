"""What was asked of the kernels beside what was measured: `python -m benchmarks.targets RESULT.json ... > PAGE.md`."""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from statistics import geometric_mean

Rows = Sequence[dict]
NETWORKS = {"resnet56", "resnet50"}
"""With a target; others are shown without."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description=__doc__)
    parser.add_argument("results", nargs="+", type=pathlib.Path, help="JSON files of python -m benchmarks.run")
    paths = parser.parse_args(argv).results
    try:
        contents = [json.loads(path.read_text()) for path in paths]
        rows = [row for content in contents for row in content["rows"]]
        environments = [content["environment"] for content in contents]
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"results: expected JSON files of benchmarks.run, got {error}")
    sys.stdout.write(page(rows, environments, [path.stem for path in paths]))
    return 0


def page(rows: Rows, environments: Sequence[dict], names: Sequence[str]) -> str:
    first = environments[0]
    commits = ", ".join(dict.fromkeys(e["commit"][:12] for e in environments))
    lines = [
        f"# Speed on {first['device']}, beside what was asked",
        "",
        f"{first['threads']} threads, {first['capability']}, torch {first['torch']}; commits {commits}.",
        "Ratios to the plain layer or network, medians of interleaved rounds; means are geometric, over dense layers",
        "with B = 2 (ResNet-56, ResNet-50, DenseNet-121, VGG-16, ViT-S). Written by `python -m benchmarks.targets`;",
        f"every layer is in {', '.join(f'[{name}]({name}.md)' for name in names)}.",
        "",
        "| | format | target | measured | worst layer |",
        "| --- | --- | --- | --- | --- |",
        *layer_lines(rows),
        *network_lines(rows),
    ]
    return "\n".join(lines) + "\n"


def layer_lines(rows: Rows) -> list[str]:
    lines = []
    dense = [r for r in rows if r["kind"] in ("1x1+linear", "kxk") and not r["options"]]
    small = [r for r in rows if r["kind"] == "small" and r["peer"] == "operator" and r["ratio"]]
    operators = [r for r in dense if r["peer"] == "operator" and r["ratio"]]
    for dtype in dict.fromkeys(r["dtype"] for r in operators):
        of_dtype = [r for r in operators if r["dtype"] == dtype]
        for mode in dict.fromkeys(r["mode"] for r in of_dtype):
            chosen = [r for r in of_dtype if r["mode"] == mode]
            lines.append(_line(f"layer, {mode}", dtype, "<= 1.05, none above 1.20", chosen))
        narrow = [r for r in of_dtype if r["mode"] != "forward" and r["kind"] == "1x1+linear"]
        lines.append(_line("1x1 and linear, forward+backward", dtype, "<= 1.00", narrow))
        lines += _against_compiled(of_dtype, dense, dtype)
        for mode in dict.fromkeys(r["mode"] for r in small if r["dtype"] == dtype):
            chosen = [r for r in small if (r["dtype"], r["mode"]) == (dtype, mode)]
            lines.append(_line(f"small layer (bound by calls), {mode}", dtype, "", chosen))
    return lines


def _against_compiled(operators: Rows, dense: Rows, dtype: str) -> list[str]:
    compiled = {
        (r["case"], r["mode"]): r["median_ms"] for r in dense if r["peer"] == "compiled" and r["dtype"] == dtype
    }
    pairs = [(r, compiled.get((r["case"], r["mode"]))) for r in operators]
    ratios = [{**r, "ratio": r["median_ms"] / ms} for r, ms in pairs if ms]
    target = "< 1, never above 1.10"
    return [_line("layer / torch.compile of the formula", dtype, target, ratios)] if ratios else []


def network_lines(rows: Rows) -> list[str]:
    lines = []
    networks = [r for r in rows if r["kind"] == "network" and r["median_ms"]]
    for row in (r for r in networks if r["peer"] == "bcos"):
        base = next(
            r for r in networks if (r["case"], r["dtype"], r["peer"]) == (row["case"], row["dtype"], "baseline")
        )
        name = f"{row['case']}, batch {row['batch']}"
        kept = row["kept_mib"] / base["kept_mib"]
        target = "<= 1.05" if row["case"] in NETWORKS else ""
        lines.append(f"| training step, {name} | {row['dtype']} | {target} | {row['ratio']:.2f} | |")
        lines.append(f"| bytes kept for backward, {name} | {row['dtype']} | {target} | {kept:.2f} | |")
    return lines


def _line(what: str, dtype: str, target: str, rows: Rows) -> str:
    worst = max(rows, key=lambda r: r["ratio"])
    mean = geometric_mean(r["ratio"] for r in rows)
    return f"| {what} | {dtype} | {target} | {mean:.2f} of {len(rows)} | {worst['ratio']:.2f} {worst['case']} |"


if __name__ == "__main__":
    raise SystemExit(main())
