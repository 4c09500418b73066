"""Image classifiers as units of a study."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bcos_core.run.error import InputError
from bcos_core.run.tracking import RunPlace, RunRecord, fetch_artifact, fetch_config, find_tagged, read_run, run_folder
from bcos_vision.config import TrainConfig
from bcos_vision.recipes import RECIPES, recipe_for

from bcos_eval.study import Unit

from .adapter import UnitResult

if TYPE_CHECKING:
    import numpy as np

PREDICTIONS = "predictions.npz"
_SIZES = ("image_size", "eval_size", "eval_resize", "skip_corrupt")
_SHOWN = 10  # samples in a gallery
_PATIENCE_SECONDS = 60.0  # for the process of a worker that was killed a moment ago


class VisionAdapter:
    """``bcos_vision.train.fit`` as studies see it."""

    name = "vision"
    program = "bcos-vision"
    config_type = TrainConfig
    preload = (
        "bcos_vision.train",
        "bcos_vision.data.digits",
        "bcos_vision.data.folder",
        "sklearn.datasets",
        "sklearn.model_selection",
        "safetensors.torch",
        "mlflow.tracking",
        "mlflow.system_metrics.system_metrics_monitor",
    )
    varied = frozenset({"seed", "split.seed", "split.fold", "split.folds", "split.inner_folds", "split.inner_fold"})
    shorthands: Mapping[str, Mapping[str, Any]] = {
        "bcos": {"variant": "bcos"},
        "baseline": {"variant": "baseline"},
        "standard": {"variant": "standard"},
    }

    metrics = ("accuracy", "top5_accuracy", "precision", "recall", "loss", "completeness_error", "seconds")
    secondary = ("completeness_error",)
    says: Mapping[str, str] = {}

    def recipe(self, name: str | None, data: str | None) -> TrainConfig:
        return RECIPES[name or recipe_for(data or "digits")]()

    def place(self, config: TrainConfig, unit: Unit, folds: int, inner: tuple[int, int] | None = None) -> TrainConfig:
        split = config.split
        if folds > 1:
            split = dataclasses.replace(split, folds=folds, fold=unit.fold, seed=config.split.seed + unit.repeat)
        if inner is not None:
            split = dataclasses.replace(split, inner_folds=inner[0], inner_fold=inner[1])
        return dataclasses.replace(config, seed=unit.training_seed, split=split)

    def resolve(self, config: TrainConfig) -> TrainConfig:
        from bcos_vision.data import absolute

        return dataclasses.replace(config, data=absolute(config.data))

    def check(self, configs: Mapping[str, TrainConfig]) -> dict[str, Any]:
        from bcos_vision.train import check

        first = next(iter(configs.values()))
        for name, config in configs.items():
            if config.devices != 1 or config.nodes != 1:
                raise InputError(
                    f"arm {name}: --devices and --nodes are 1 in a study, each training has a worker of its own"
                )
            for option in ("data", "split"):
                if getattr(config, option) != getattr(first, option):
                    raise InputError(f'--arm {name}: another "{option}" than the first arm; units could not be paired')
        found = {}
        for name, config in configs.items():
            try:
                found[name] = check(config)
            except InputError as error:
                raise InputError(f"arm {name}: {error}") from None
        data, folds = next(iter(found.values())), first.split.folds
        return {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "fingerprints": {name: of_arm.fingerprint for name, of_arm in found.items()},  # at its image size
            "classes": list(data.classes),
            "image_size": list(data.size),
            "channels": data.channels,
            "num_images": sum(map(len, (data.train, data.val, data.test))),
            "num_train": len(data.train),
            "num_val": len(data.val),
            "num_test": len(data.test),
            "test": f"one of {folds} folds" if folds else "the data's own or a held-out share, the same for all runs",
        }

    def run(self, config: TrainConfig, place: RunPlace, key: str) -> UnitResult:
        from bcos_vision.train import fit

        record = find_tagged(place.experiment, {"unit_key": key})
        if record is None:
            record = read_run(fit(config, place=place, pictures=False).run_id)
        elif record.status != "FINISHED":
            record = read_run(_resume(record.id))
        for kept in ("*.ckpt", "*.safetensors"):  # a study of hundreds would fill the disk; MLflow has the model
            for file in run_folder(record.id).glob(kept):
                file.unlink()
        return _read(record)

    def predictions(self, run_id: str) -> "tuple[np.ndarray, np.ndarray]":
        import numpy as np

        with np.load(fetch_artifact(run_id, PREDICTIONS)) as found:
            return found["labels"], found["predictions"]

    def draw_explanations(self, runs: Mapping[str, str], path: pathlib.Path) -> str | None:
        import numpy as np
        import torch
        from bcos_core import explain
        from bcos_vision.data import load_data, to_unit_range
        from bcos_vision.models import TrainedClassifier

        from bcos_eval.figures.gallery import GalleryRow, draw_gallery

        configs = [fetch_config(run_id, TrainConfig) for run_id in runs.values()]
        sizes = {name: getattr(configs[0], name) for name in _SIZES}
        if any(getattr(config, name) != size for config in configs for name, size in sizes.items()):
            return None
        data = load_data(configs[0].data, configs[0].split, **sizes)
        part = data.test if len(data.test) else data.val
        _, first = np.unique(part.labels.numpy(), return_index=True)  # one of each class
        batch, labels = part[first[:_SHOWN].tolist()]
        images = to_unit_range(batch)
        rows = []
        for arm, run_id in runs.items():
            model = TrainedClassifier.load(fetch_artifact(run_id, "model/model.safetensors")).model
            explanation = explain(model, images, labels)
            right = int((explanation.logits.argmax(1) == labels).sum())
            error = float(explanation.completeness_error.max())
            notes = (f"{right} of {len(labels)} right", f"completeness {error:.0e}")
            rows.append(GalleryRow(arm, explanation.contribution_map.float(), notes))
        captions = [data.classes[int(label)] for label in labels]
        with torch.inference_mode():
            draw_gallery(images, captions, rows, path, title=f"{data.name}: what speaks for and against the true class")
        return (
            "Contributions to the logit of the true class, by a model of each arm, on the first held-out sample of "
            "each class. Of arms that are no B-cos networks this is input times gradient; completeness says how far it "
            "is from adding up."
        )


def _resume(run_id: str) -> str:
    """Go on with a run, once the process that had it is gone."""
    from bcos_vision.train import resume

    began = time.monotonic()
    while True:
        try:
            return resume(run_id, pictures=False).run_id
        except InputError as error:
            if "is finished" in str(error):
                return run_id
            if "at work in another process" not in str(error) or time.monotonic() - began > _PATIENCE_SECONDS:
                raise
            time.sleep(1)


def _read(record: RunRecord) -> UnitResult:
    """A finished run's result."""
    stage = "test" if "test/accuracy" in record.metrics else "val"
    return UnitResult(
        run_id=record.id,
        metrics={n.partition("/")[2]: v for n, v in record.metrics.items() if n.startswith(f"{stage}/")},
        num_train=int(record.tags["num_train"]),
        num_test=int(record.tags["num_test"]),
        seconds=record.metrics["train/seconds"],
        fingerprint=record.tags["data_fingerprint"],
    )
