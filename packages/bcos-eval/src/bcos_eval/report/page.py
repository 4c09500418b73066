"""A study as one page, and beside it Markdown, tables for a paper, and numbers."""

import base64
import itertools
import pathlib
import shutil
import statistics
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..figures.differences import title_of
from ..figures.unit import Metric, write_time
from ..stats.result import Comparison, TestResult
from ..stats.text import power_sentence
from .answer import answer, estimand_sentences
from .latex import write_latex
from .markdown import escape_markdown
from .study import Picture, StudyReport
from .tables import (
    Table,
    arms_frame,
    arms_table,
    contrasts_frame,
    contrasts_table,
    missing_table,
    option_tables,
    tests_table,
)

_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}


def write_report(study: StudyReport, folder: pathlib.Path) -> pathlib.Path:
    """Write a study's report.

    - ``report.html``: one page, pictures within, that asks nothing of any network and runs no script;
    - ``report.md``: the same, beside ``pictures/``;
    - ``tables.tex``: arms and contrasts, for booktabs;
    - ``arms.csv``, ``contrasts.csv``, ``units.csv``: the numbers in full.

    Args:
        study: What to say.
        folder: Made if absent; pictures that lie elsewhere are copied into it.

    Returns:
        The page's path.

    Raises:
        ValueError: If a picture is neither PNG, SVG nor JPEG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = (*study.pictures, *study.galleries)
    for picture in pictures:
        if picture.path.suffix.lower() not in _TYPES:
            raise ValueError(f"pictures: expected .png, .svg or .jpg, got {picture.path.name}")
    contents = _contents(study)
    loader = PackageLoader("bcos_eval.report")
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    html = Environment(loader=loader, autoescape=True, **options)
    html.globals["embedded"] = _embed
    css = Markup(loader.get_source(html, "page.css")[0])
    page = folder / "report.html"
    page.write_text(html.get_template("page.html").render(css=css, **contents).lstrip(), encoding="utf-8")
    markdown = Environment(loader=loader, autoescape=False, keep_trailing_newline=True, **options)
    markdown.filters["md"] = escape_markdown
    text = markdown.get_template("page.md").render(beside=_lay_beside(pictures, folder), **contents)
    (folder / "report.md").write_text(text.lstrip(), encoding="utf-8")
    tables = [
        (f"{m['comparison'].metric}-{kind}", m[kind]) for m in contents["metrics"] for kind in ("arms", "contrasts")
    ]
    (folder / "tables.tex").write_text(write_latex(tables), encoding="utf-8")
    arms_frame(study.comparisons).to_csv(folder / "arms.csv", index=False)
    contrasts_frame(study.comparisons).to_csv(folder / "contrasts.csv", index=False)
    study.table.frame.to_csv(folder / "units.csv", index=False)
    return page


def _contents(study: StudyReport) -> dict[str, Any]:
    """What both templates show."""
    differing, shared = option_tables(study)
    finished = len(study.table.frame)
    arms = f"{len(study.arms)} arm{'s' * (len(study.arms) > 1)}"
    facts = [
        study.made.isoformat(),
        study.data.name,
        study.table.design.name,
        arms,
        f"{finished} of {study.planned} units",
    ]
    return {
        "study": study,
        "facts": " · ".join(facts),
        "answers": [answer(comparison) for comparison in study.comparisons],
        "warnings": _warnings(study),
        "missing": missing_table(study),
        "metrics": [_metric(comparison, study.says.get(comparison.metric, "")) for comparison in study.comparisons],
        "estimands": estimand_sentences(study.comparisons),
        "says": dict.fromkeys(
            f"{test.name}: {test.says}" for comparison in study.comparisons for test in _tests(comparison)
        ),
        "differing": differing,
        "shared": shared,
        "data": _data(study),
        "timings": _timings(study),
        "times": _times(study),
    }


def _metric(comparison: Comparison, says: str) -> dict[str, Any]:
    return {
        "what": f"{Metric(comparison.metric).label}: {says}." if says else "",
        "comparison": comparison,
        "label": Metric(comparison.metric).label,
        "arms": arms_table(comparison),
        "contrasts": contrasts_table(comparison),
        "tests": tests_table(comparison),
        "defaults": ", ".join(dict.fromkeys(c.default for c in comparison.contrasts)),
        "notes": [f"{title_of(c)}: {note}" for c in comparison.contrasts for note in c.notes],
        "power": f"{Metric(comparison.metric).label.capitalize()}: {power_sentence(comparison)}",
    }


def _tests(comparison: Comparison) -> list[TestResult]:
    tests = [test for contrast in comparison.contrasts for test in contrast.tests]
    return [*tests, comparison.omnibus.test] if comparison.omnibus else tests


def _warnings(study: StudyReport) -> list[str]:
    lines = list(dict.fromkeys(note for comparison in study.comparisons for note in comparison.notes))
    if lack := study.planned - len(study.table.frame):
        lines.insert(0, f"{lack} of {study.planned} units have no scores.")
    return lines


def _data(study: StudyReport) -> list[tuple[str, str]]:
    data = study.data
    counts = [(name, str(count)) for name, count in data.counts.items()]
    return [("name", data.name), ("fingerprint", data.fingerprint), *counts, ("design", study.table.design.name)]


def _timings(study: StudyReport) -> list[tuple[str, str]]:
    if (timings := study.timings) is None:
        return []
    return [
        ("all runs, added up", write_time(timings.run_seconds)),
        ("training in them", write_time(timings.training_seconds)),
        ("from first start to last end", write_time(timings.wall_seconds)),
        ("workers", str(timings.workers)),
        ("workers' time beyond that of the runs", f"{timings.overhead:.1%}"),
    ]


def _times(study: StudyReport) -> Table:
    frame, rows = study.table.frame, []
    for arm in study.table.arms:
        seconds = frame.loc[frame["arm"] == arm, "seconds"].to_numpy(dtype=float).tolist()
        span = f"{write_time(min(seconds))} to {write_time(max(seconds))}"
        rows.append((arm, str(len(seconds)), write_time(statistics.fmean(seconds)), span))
    return Table("Time of a unit", ("arm", "units", "mean", "range"), tuple(rows))


def _embed(picture: Picture) -> str:
    content = base64.b64encode(picture.path.read_bytes()).decode()
    return f"data:{_TYPES[picture.path.suffix.lower()]};base64,{content}"


def _lay_beside(pictures: Sequence[Picture], folder: pathlib.Path) -> dict[Picture, str]:
    """Where each picture lies, seen from the folder; those outside are copied in, under names that are free."""
    home = folder.resolve()
    paths = {picture: picture.path.resolve() for picture in pictures}
    beside = {
        picture: path.relative_to(home).as_posix() for picture, path in paths.items() if path.is_relative_to(home)
    }
    for picture in pictures:
        if picture in beside:
            continue
        names = (f"{picture.path.stem}{f'-{i}' if i else ''}{picture.path.suffix}" for i in itertools.count())
        beside[picture] = next(place for name in names if (place := f"pictures/{name}") not in beside.values())
        (home / "pictures").mkdir(exist_ok=True)
        shutil.copyfile(picture.path, home / beside[picture])
    return beside
