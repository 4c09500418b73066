"""From an ablation's trainings to its answer: localisation is played, the study concluded, and all put in one table."""

import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import pandas as pd
from bcos_core.run.config import load_dict, save_values
from bcos_core.run.error import InputError
from bcos_core.run.tracking import log_summary
from rich.console import Console

from ..conclusion import LOCALISATION, Conclusion, conclude, keep_localisation, localisation_rules
from ..crossval import Timing, score_table
from ..figures import draw_intervals
from ..figures.tradeoff import draw_tradeoff
from ..queue import UnitQueue, UnitState
from ..scores import ScoreTable
from ..stats.metric import write_value
from ..stats.result import Comparison
from ..study import Study, study_folder
from .exponents import ArmExponent, read_exponents
from .table import ablation_frame, pick, table_rows, to_markdown, to_text

What = Literal["b", "design"]
PLAN, TABLE, PAGE, PICTURE = "ablation.json", "ablation.csv", "ablation.md", "tradeoff.png"
"""In the study's folder."""
_FEW_GRIDS = 10


@dataclass(frozen=True)
class Ablation:
    """What makes a study an ablation, beside its arms; fields are the command's options."""

    what: What
    grid: int = 3
    """Cells along a side of the grid pointing game."""
    grids: int | None = None
    """How many a unit; None for as many as there can be, 250 at most."""
    confidence: float = 0.5
    """Least probability of the true class of an image in a grid, by every arm's model."""
    smooth: int = 1
    """Side of the box that averages a map first."""
    weak: float = 0.5
    """Arms with less than this share of the control's accuracy play no grids: they would leave none to the others."""

    def save(self, name: str) -> None:
        """Keep it in the study's folder."""
        save_values(dataclasses.asdict(self), study_folder(name) / PLAN)

    @classmethod
    def load(cls, name: str) -> Self:
        """Read what :meth:`save` kept.

        Raises:
            InputError: If there is no ablation of that name.
        """
        path = study_folder(name) / PLAN
        if not path.exists():
            hint = f"bcos-eval crossval --resume {name}" if path.parent.is_dir() else "there is no such study"
            raise InputError(f'--resume: "{name}" is no ablation, it has no {PLAN}; {hint}')
        return cls(**load_dict(path))


def conclude_ablation(
    queue: UnitQueue, ablation: Ablation, *, timing: Timing | None = None, console: Console
) -> Conclusion:
    """Play localisation where it is not played yet, conclude the study, and write the ablation's table and picture.

    Args:
        queue: Of the study.
        ablation: What it is.
        timing: Of the work that has just ended.
        console: Where progress goes; the answer goes to standard output.

    Raises:
        InputError: If nothing is done yet, the scores cannot be tested, or the store cannot be reached.
    """
    study = queue.plan
    assert isinstance(study, Study)
    folder, states = study_folder(study.name), queue.states()
    _localise(study, states, ablation, console)
    found = conclude(queue, timing=timing, console=console, command="ablate")
    exponents, comparisons = read_exponents(study, states), pick(found.comparisons)
    arms = list(study.arms)
    ablation_frame(arms, exponents, comparisons).to_csv(folder / TABLE, index=False)
    rows = table_rows(arms, exponents, comparisons)
    notes = _notes(study, comparisons, exponents, localisation_rules(folder))
    (folder / PAGE).write_text(to_markdown(rows, notes, title=study.name), encoding="utf-8")
    _draw(study, ablation, comparisons, exponents, folder / PICTURE)
    _keep_in_store(study, folder)
    print("\n".join(["", to_text(rows), *notes]))
    here = pathlib.Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    print(f"saved in {shown}: {TABLE}, {PAGE}, {PICTURE}")
    return found


def _localise(study: Study, states: Sequence[UnitState], ablation: Ablation, console: Console) -> None:
    """Play the game with every unit that all arms have; arms that know too little are left out of it."""
    from ..localisation import Rules
    from ..localisation.study import OWN, localise_units

    folder, table = study_folder(study.name), score_table(study, states)
    left_out = _weak(study, table, ablation.weak)
    arms = [arm for arm in table.arms if arm not in left_out]
    asked = Rules(ablation.grid, ablation.grids, ablation.confidence, ablation.smooth, batch_size=32)
    if _is_played(folder, table, arms, ablation):
        return
    console.print(f"playing localisation, {len(arms)} arms", highlight=False)
    try:
        scores = localise_units([s for s in states if s.unit.arm in arms], arms, asked, [OWN])
    except InputError as error:  # hours of training are not to end in it
        print(f"localisation is not measured: {error}; then: bcos-eval ablate --resume {study.name}")
        weakest = min(arms, key=lambda arm: float(table.values("accuracy", arm).mean()))
        advice = "" if weakest == study.control else "; --weak leaves it out"
        print(f"the weakest arm that plays is {weakest}, accuracy {_accuracy(table, weakest)}{advice}")
        return
    keep_localisation(scores, folder, left_out=left_out)


def _weak(study: Study, table: ScoreTable, share: float) -> dict[str, str]:
    """Arms that classify too little of what the control does, each with the reason."""
    if study.control not in table.arms:
        return {}
    least = share * float(table.values("accuracy", study.control).mean())
    return {
        arm: f"accuracy {_accuracy(table, arm)}, below {share:g} of the control's"
        for arm in table.arms
        if arm != study.control and float(table.values("accuracy", arm).mean()) < least
    }


def _accuracy(table: ScoreTable, arm: str) -> str:
    return write_value("accuracy", float(table.values("accuracy", arm).mean()))


def _is_played(folder: pathlib.Path, table: ScoreTable, arms: Sequence[str], ablation: Ablation) -> bool:
    """Whether the very units that would play have played, by the same rules: a game of many arms takes a while."""
    played = localisation_rules(folder)
    if not played or not (folder / LOCALISATION).exists():
        return False
    rules = {"side": ablation.grid, "number": ablation.grids, "threshold": ablation.confidence}
    if any(played.get(name) != value for name, value in {**rules, "smooth": ablation.smooth}.items()):
        return False
    playing = dataclasses.replace(table, frame=table.frame[table.frame["arm"].isin(arms)]).shared().frame
    return set(playing["run_id"]) == set(pd.read_csv(folder / LOCALISATION)["run_id"])


def _notes(
    study: Study,
    comparisons: Sequence[Comparison],
    exponents: Mapping[str, ArmExponent],
    played: Mapping[str, Any],
) -> list[str]:
    """What a reader of the table must know."""
    first = comparisons[0]
    of = "folds" if study.design.is_crossval else "seeds"
    tests = ", ".join(dict.fromkeys(c.default for comparison in comparisons for c in comparison.contrasts))
    notes = [
        f"{study.data.get('name', '')}, {first.design}: mean ± standard deviation over {of}; p: {tests} against "
        f'"{study.control}", adjusted over the contrasts of each metric (Holm)',
        *dict.fromkeys(note for comparison in comparisons for note in comparison.notes),
    ]
    if any(e.form is not None for e in exponents.values()):
        notes.append("a learnt B: mean over layers [smallest, largest of any layer], of the model that was kept")
    if silent := [arm for arm, values in study.arms.items() if _is_learnt(values) and arm not in exponents]:
        notes.append(f"no B was logged by {', '.join(silent)}: not in the picture")
    if any(c.metric == "localisation" for c in comparisons):
        counts = [fold["grids"] for fold in played["folds"]]
        number = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
        grids = f"{number} grid{'s' * (max(counts) > 1)} of {played['side']}x{played['side']}"
        sure = f" with a probability of at least {played['threshold']:g}" if played["threshold"] else ""
        notes.append(
            f"localisation: {grids} a unit, the same for all arms, of images that each classifies correctly{sure}"
        )
        if min(counts) < _FEW_GRIDS:
            mend = "raise --grids" if played["number"] == min(counts) else "lower --confidence or --grid"
            notes.append(f"so few grids make localisation vary by which images they hold; {mend}")
        notes += [f"localisation is left out of {arm}: {why}" for arm, why in played.get("left_out", {}).items()]
    return notes


def _is_learnt(values: Mapping[str, Any]) -> bool:
    return values.get("exponent", {}).get("learn") is not None


def _draw(
    study: Study,
    ablation: Ablation,
    comparisons: Sequence[Comparison],
    exponents: Mapping[str, ArmExponent],
    path: pathlib.Path,
) -> None:
    shown = [c for c in comparisons if c.metric in ("accuracy", "localisation")]
    if ablation.what == "b":
        title = f"{study.data.get('name', '')}: what the exponent B buys and costs, {shown[0].design}"
        draw_tradeoff(shown, exponents, path, title=title)
    else:
        draw_intervals(shown, path)


def _keep_in_store(study: Study, folder: pathlib.Path) -> None:
    """The table and the picture in MLflow, beside the report."""
    with tempfile.TemporaryDirectory() as copy:
        for name in (TABLE, PAGE, PICTURE):
            shutil.copy(folder / name, copy)
        log_summary(study.experiment, "ablation", pathlib.Path(copy), {})
