"""From a study's scores to its answer: tests, pictures, the report, all of it kept in MLflow."""

import dataclasses
import datetime
import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from bcos_core.run.config import flatten_values, load_dict, save_values
from bcos_core.run.error import InputError
from bcos_core.run.tracking import log_summary
from rich.console import Console

from .crossval import Timing, score_table
from .figures import draw_scatter
from .queue import UnitQueue, UnitState
from .report import Data, MissingUnit, Picture, StudyReport, Timings, draw_pictures, write_report
from .scores import ScoreTable
from .stats import Comparison, compare_arms, to_lines
from .studies.adapter import Adapter, load_adapter
from .study import Study, Unit, study_folder

if TYPE_CHECKING:
    from .localisation.study import UnitScores

LOCALISATION = "localisation.csv"
"""In a study's folder: a column run_id, and one for each metric that was measured after training; by which rules is in
the .json beside it."""
_TIMING = "timing.json"


@dataclass(frozen=True)
class Conclusion:
    """What a study came to."""

    page: pathlib.Path
    table: ScoreTable
    """Of all units that are done."""
    comparisons: Sequence[Comparison]
    """One for each metric, the study's own first."""


def conclude(
    queue: UnitQueue,
    *,
    timing: Timing | None = None,
    console: Console,
    command: str = "crossval",
    shown: str | None = None,
) -> Conclusion:
    """Test a study, write its report, keep it in MLflow, and say what came out.

    Args:
        queue: Of the study; units that are not done are reported as missing.
        timing: Of the work that has just ended; added to what earlier commands worked on it.
        console: Where progress goes; the answer goes to standard output.
        command: Of bcos-eval, that goes on with the study.
        shown: End of the names of metrics whose comparisons are printed; by default the study's own.

    Raises:
        InputError: If nothing is done yet, the scores cannot be tested, or the store cannot be written.
    """
    study, adapter = _study(queue), load_adapter(queue.plan.package)
    folder = study_folder(study.name)
    states = queue.states()
    table = score_table(study, states)
    table = _with_localisation(table, folder)
    table.write(folder)
    timings = _add_timing(folder, timing)
    missing = [s for s in states if s.state != "done"]
    usable = table.shared() if missing else table
    comparisons = _compare(study, adapter, usable, states, _correct(adapter, study, states))
    console.print("drawing and writing the report", highlight=False)
    report = _describe(study, adapter, table, comparisons, missing, timings)
    out = folder / "report"
    report = dataclasses.replace(
        report,
        pictures=(*draw_pictures(comparisons, out / "pictures"), *_scatter(comparisons, out / "pictures")),
        galleries=_galleries(adapter, study, states, out / "pictures"),
    )
    page = write_report(report, out)
    log_summary(study.experiment, "report", out, _summary(comparisons))
    told = [c for c in comparisons if shown and c.metric.endswith(shown)] or [comparisons[0]]
    print("\n\n".join(to_lines(c, says=adapter.says.get(c.metric, "")) for c in told))
    others = (m for m in (*table.metrics, "seconds") if m not in [c.metric for c in told])
    _say_end(study, states, table, timings, page, command, next(others))
    return Conclusion(page, table, comparisons)


def _compare(
    study: Study,
    adapter: Adapter,
    table: ScoreTable,
    states: Sequence[UnitState],
    predictions: Mapping[str, np.ndarray] | None,
) -> list[Comparison]:
    """The planned contrasts of the study's metric, and of what is reported beside it.

    Raises:
        InputError: If no contrast has scores on both sides.
    """
    planned = [pair for pair in study.planned if set(pair) <= set(table.arms)]
    for arm in study.arms:
        if arm not in table.arms:
            reasons = sorted({s.reason or s.state for s in states if s.unit.arm == arm and s.state != "done"})
            print(f"arm {arm} is left out, it has no scores: {'; '.join(reasons)}")
    if not planned:
        raise InputError(f"{study.name}: no planned contrast has scores of both arms")
    names = [
        name
        for name in dict.fromkeys((study.metric, *_secondary(table, adapter)))
        if name in (*table.metrics, "seconds")
    ]
    found = []
    for name in names:
        part = table if name == study.metric else _of_arms_with(name, table)
        pairs = [pair for pair in planned if set(pair) <= set(part.arms)]
        if name != study.metric and not (pairs and np.isfinite(part.frame[name].to_numpy(float)).all()):
            print(f"{name} is not compared: some units have none")
            continue
        rope = study.rope if name == study.metric else 0.0
        shown = predictions if name == "accuracy" else None
        found.append(compare_arms(part, name, contrasts=pairs, rope=rope, alpha=study.alpha, predictions=shown))
    return found


def _of_arms_with(name: str, table: ScoreTable) -> ScoreTable:
    """The scores of the arms that have any of this metric: an arm may be left out of what is measured afterwards."""
    having = table.frame.loc[table.frame[name].notna(), "arm"]
    return dataclasses.replace(table, frame=table.frame[table.frame["arm"].isin(having)])


def keep_localisation(scores: "UnitScores", folder: pathlib.Path, *, left_out: Mapping[str, str] | None = None) -> None:
    """Keep in a study's folder how well each unit's explanations point, for its tests and its page.

    Args:
        scores: By unit.
        folder: The study's.
        left_out: Arms that did not play, and why not.
    """
    scores.frame.to_csv(folder / LOCALISATION, index=False)
    played = {**scores.played, **({"left_out": dict(left_out)} if left_out else {})}
    save_values(played, (folder / LOCALISATION).with_suffix(".json"))


def localisation_rules(folder: pathlib.Path) -> dict[str, Any]:
    """By which rules a study's localisation was measured, and which arms were left out; empty if it was not."""
    path = (folder / LOCALISATION).with_suffix(".json")
    return load_dict(path) if path.exists() else {}


def _with_localisation(table: ScoreTable, folder: pathlib.Path) -> ScoreTable:
    """The scores with how well each unit's explanations point, if ``bcos-eval localise --study`` has measured it."""
    if not (folder / LOCALISATION).exists():
        return table
    measured = pd.read_csv(folder / LOCALISATION)
    found = dataclasses.replace(table, frame=table.frame.merge(measured, on="run_id", how="left"))
    # of an unfinished study only what all arms have is measured, and only that is compared
    rows = found.shared().frame
    playing = ~rows["arm"].isin(list(localisation_rules(folder).get("left_out", ())))
    if rows.loc[playing, list(measured.columns)].isna().to_numpy().any():
        print("localisation is left out, units were done since: bcos-eval localise --study measures it again")
        return table
    return found


def _secondary(table: ScoreTable, adapter: Adapter) -> list[str]:
    """Metrics that are tested beside the study's own: how well explanations point, how exact they are, what it took."""
    names = (*table.metrics, "seconds")
    return [n for n in names if n.endswith("localisation") or n in (*adapter.secondary, "seconds")]


def _study(queue: UnitQueue) -> Study:
    if not isinstance(queue.plan, Study):
        raise InputError(f"{queue.plan.name} is a search, not a study: bcos-eval tune --resume {queue.plan.name}")
    return queue.plan


def _correct(adapter: Adapter, study: Study, states: Sequence[UnitState]) -> Mapping[str, np.ndarray] | None:
    """For each arm, which samples were predicted right: of the first repeat and seed, all folds one after the other.

    None where an arm lacks one of these units, or the task has no classes.
    """
    found: dict[str, np.ndarray] = {}
    results = {s.unit: s.result for s in states if s.state == "done"}
    for arm in study.arms:
        parts = []
        for fold in range(study.design.folds):
            result = results.get(Unit(arm, 0, fold, study.design.seeds[0]))
            answers = None if result is None else adapter.predictions(result["run_id"])
            if answers is None:
                return None
            parts.append(answers[0] == answers[1])
        found[arm] = np.concatenate(parts)
    return found


def _galleries(
    adapter: Adapter, study: Study, states: Sequence[UnitState], folder: pathlib.Path
) -> tuple[Picture, ...]:
    """Explanations of the same held-out samples by a model of each arm: of the first fold that all arms have."""
    runs: dict[Unit, dict[str, str]] = {}
    arms = {s.unit.arm for s in states if s.state == "done"}
    for s in states:
        if s.state == "done":
            runs.setdefault(dataclasses.replace(s.unit, arm=""), {})[s.unit.arm] = s.result["run_id"]
    for unit, of_arm in runs.items():
        if len(of_arm) == len(arms):
            path = folder / "explanations.png"
            caption = adapter.draw_explanations({arm: of_arm[arm] for arm in study.arms if arm in arms}, path)
            if caption is None:
                return ()
            return (Picture(path, f"{caption} Repeat {unit.repeat}, fold {unit.fold}, seed {unit.seed}."),)
    return ()


def _scatter(comparisons: Sequence[Comparison], folder: pathlib.Path) -> list[Picture]:
    """The study's metric against localisation, once that was measured."""
    first = comparisons[0]
    pictures = []
    for other in comparisons[1:]:
        if other.metric.endswith("localisation"):
            path = folder / f"{first.metric}-{other.metric}.svg"
            drawn = {arm.arm for arm in other.arms}
            across = [arm for arm in first.arms if arm.arm in drawn]
            draw_scatter(across, other.arms, path, metrics=(first.metric, other.metric))
            caption = f"{first.metric} and {other.metric}: mean and interval of each arm."
            pictures.append(Picture(path, caption.replace("_", " ")))
    return pictures


def _describe(
    study: Study,
    adapter: Adapter,
    table: ScoreTable,
    comparisons: Sequence[Comparison],
    missing: Sequence[UnitState],
    timings: Timings | None,
) -> StudyReport:
    others = sorted({arm for pair in study.planned for arm in pair} - {study.control})
    return StudyReport(
        title=study.name,
        question=f"Do {' and '.join(others)} differ from {study.control} in {study.metric} on {study.data['name']}?"
        if len(others) > 1
        else f"Does {others[0]} differ from {study.control} in {study.metric} on {study.data['name']}?",
        made=datetime.date.today(),
        arms={arm: flatten_values(dict(values)) for arm, values in study.arms.items()},
        data=_data(study),
        table=table,
        comparisons=comparisons,
        says=adapter.says,
        missing=[
            MissingUnit(s.unit.arm, s.unit.repeat, s.unit.fold, s.unit.seed, s.reason or f"not done yet ({s.state})")
            for s in missing
        ],
        timings=timings,
        versions={
            name: metadata.version(name)
            for name in (
                "bcos-eval",
                adapter.program,
                "bcos-core",
                "bcos-kernels",
                "torch",
                "numpy",
                "scipy",
                "statsmodels",
            )
        },
        commands=(study.command, f"bcos-eval report {study.name}"),
        tracking=f"MLflow experiment {study.experiment} (uv run mlflow ui)",
    )


def _data(study: Study) -> Data:
    facts: Mapping[str, Any] = study.data
    counts = {n.removeprefix("num_"): v for n, v in facts.items() if n.startswith("num_")}
    return Data(facts["name"], facts["fingerprint"], counts, facts.get("classes", ()))


def _add_timing(folder: pathlib.Path, timing: Timing | None) -> Timings | None:
    """The time of all commands that worked on the study, this one's kept with the others."""
    path = folder / _TIMING
    spent = json.loads(path.read_text()) if path.exists() else []
    if timing is not None and timing.num_units:
        spent.append(dataclasses.asdict(timing))
        path.write_text(json.dumps(spent, indent=2) + "\n")
    if not spent:
        return None
    training, runs, wall = (sum(s[f"{name}_seconds"] for s in spent) for name in ("training", "run", "wall"))
    return Timings(training, runs, wall, round(sum(s["wall_seconds"] * s["num_workers"] for s in spent) / wall))


def _summary(comparisons: Sequence[Comparison]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for comparison in comparisons:
        for arm in comparison.arms:
            numbers[f"{_name(arm.arm)}/{comparison.metric}"] = arm.mean
        for contrast in comparison.contrasts:
            prefix = f"{_name(contrast.arm)} minus {_name(contrast.control)}/{comparison.metric}"
            numbers |= {prefix: contrast.mean, f"{prefix} p": contrast.p, f"{prefix} p Holm": contrast.p_holm}
    return {name: value for name, value in numbers.items() if np.isfinite(value)}


def _name(arm: str) -> str:
    """An arm's name in the letters that MLflow takes."""
    return "".join(c if c.isalnum() or c in "_-. " else "_" for c in arm)


def _say_end(
    study: Study,
    states: Sequence[UnitState],
    table: ScoreTable,
    timings: Timings | None,
    page: pathlib.Path,
    command: str,
    other_metric: str,
) -> None:
    done = len(table.frame)
    if done < len(states):
        failed = sum(s.state == "failed" for s in states)
        print(
            f"{done} of {len(states)} units are done, {failed} failed: bcos-eval {command} --resume {study.name}"
            + " --retry" * bool(failed)
        )
    if timings is not None:
        print(
            f"{done} runs of {timings.run_seconds:.0f} s together, {timings.training_seconds:.0f} s of them training, "
            f"in {timings.wall_seconds:.0f} s with {timings.workers} worker(s), {timings.overhead:.0%} beyond the runs"
        )
    here = pathlib.Path.cwd()
    shown = page.relative_to(here) if page.is_relative_to(here) else page
    print(
        f"report: {shown}\nnext: uv run mlflow ui; bcos-eval compare {study.name} --metric {shlex.quote(other_metric)}"
    )
