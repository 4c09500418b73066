"""Localisation of a study's models: a score for each unit, beside its accuracy.

Within a fold the arms' models meet on the same grids, so that scores pair; a unit's score is the mean over its grids,
and what is tested is the variance over units, not over grids, whose cells depend on each other.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from bcos_core.run import config as configuration
from bcos_core.run.error import InputError
from bcos_core.run.tracking import fetch_artifact
from bcos_vision.config import TrainConfig
from bcos_vision.data import load_data
from bcos_vision.models import TrainedClassifier
from bcos_vision.progress import track

from bcos_eval.queue import UnitState
from bcos_eval.study import Unit

from .contest import Contest, Rules

OWN = "bcos"
_RULES = ("side", "number", "threshold", "smooth", "cell_size", "seed")
"""Of a contest's rules, those that a study's scores depend on."""


@dataclasses.dataclass(frozen=True)
class UnitScores:
    """How well explanations point, unit by unit, and by which rules."""

    frame: pd.DataFrame
    """A row for each unit: run_id and a column for each metric."""
    played: Mapping[str, Any]
    """The rules, the methods, and of each fold how many grids there were and their hash; plain values."""


def localise_units(
    states: Sequence[UnitState], arms: Sequence[str], rules: Rules, methods: Sequence[str]
) -> UnitScores:
    """Play the grid pointing game with every finished unit's model.

    Args:
        states: Of the study's units; those of a fold and seed that every arm has finished are used.
        arms: The study's.
        rules: Of the game.
        methods: Attribution methods; "bcos", a model's own contributions, gives the metric ``localisation``, another
            gives ``METHOD_localisation``.

    Raises:
        InputError: If no fold is finished by all arms, or a fold has too few images for a grid.
    """
    folds: dict[Unit, dict[str, str]] = {}
    for s in states:
        if s.state == "done":
            folds.setdefault(dataclasses.replace(s.unit, arm=""), {})[s.unit.arm] = s.result["run_id"]
    whole = [(unit, runs) for unit, runs in folds.items() if len(runs) == len(arms)]
    if not whole:
        raise InputError("no fold is finished by every arm: there is nothing to compare yet")
    rows: list[dict[str, float | str]] = []
    folds_played = []
    for unit, runs in track(whole, "folds", len(whole)):
        place = {"repeat": unit.repeat, "fold": unit.fold, "seed": unit.seed}
        contest = _gather({arm: runs[arm] for arm in arms}, rules)
        try:
            contest.draw()
        except InputError as error:
            raise InputError(f"{', '.join(f'{name} {value}' for name, value in place.items())}: {error}") from None
        grids = contest.grids[arms[0]]
        folds_played.append({**place, "grids": len(grids), "grids_hash": grids.hash})
        for arm in arms:
            row: dict[str, float | str] = {"run_id": runs[arm]}
            for method in methods:
                name = "localisation" if method == OWN else f"{method}_localisation"
                row[name] = float(np.mean(contest.play("grid", arm, method)["score"].to_numpy()))
            rows.append(row)
    asked = dataclasses.asdict(rules)
    played = {**{name: asked[name] for name in _RULES}, "methods": list(methods), "folds": folds_played}
    return UnitScores(pd.DataFrame(rows), played)


def _gather(runs: Mapping[str, str], rules: Rules) -> Contest:
    """The models of one fold and the images that it held out."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = {}
    for arm, run_id in runs.items():
        models[arm] = TrainedClassifier.load(fetch_artifact(run_id, "model/model.safetensors"))
        models[arm].model.to(device)
    stored = configuration.load_dict(fetch_artifact(next(iter(runs.values())), "config.json"))
    config = configuration.from_dict(TrainConfig, stored)
    sizes = {name: getattr(config, name) for name in ("image_size", "eval_size", "eval_resize", "skip_corrupt")}
    data = load_data(config.data, config.split, **sizes)
    part = data.test if len(data.test) else data.val
    return Contest(models, part, rules, source=data.fingerprint, device=device)
