"""Dynamics, regressions and classifiers of bcos-ode as units of a study."""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bcos_core.run import config as configuration
from bcos_core.run.error import InputError
from bcos_core.run.tracking import RunPlace, fetch_artifact, find_tagged, read_run, run_folder
from bcos_ode.classification.config import ClassificationConfig
from bcos_ode.config import absolute
from bcos_ode.dynamics.config import DynamicsConfig
from bcos_ode.recipes import RECIPES, recipe_for
from bcos_ode.regression.config import RegressionConfig

from bcos_eval.study import Unit

from .adapter import UnitResult

if TYPE_CHECKING:
    import numpy as np

_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    name: {"network.model": name} for name in ("bcos", "degree", "mlp", "mlp_nobias")
}
_DATA = ("data", "split", "num_trajectories", "span", "noise", "data_seed", "horizon", "targets", "lags")
"""Options that decide what is scored, where a configuration has them."""


_DYNAMICS_SAYS = {
    "nrmse": "RMSE of trajectories to the horizon over each variable's standard deviation in the true ones (of a "
    "forecast: in the training data), mean over variables",
    "nrmse_within": "RMSE of trajectories within the span of training over each variable's standard deviation in the "
    "true ones there, mean over variables",
    "nrmse_outside": "RMSE of trajectories that start outside the training box over each variable's standard deviation "
    "in the true ones, mean over variables",
}
_REGRESSION_SAYS = {"nrmse": "RMSE over the standard deviation of the training targets, mean over targets"}


@dataclass(frozen=True)
class OdeAdapter:
    """One of the three ``fit`` of bcos-ode as studies see it."""

    name: str
    module: str
    """Of ``fit``, and of what loads its data."""
    config_type: type[Any]
    default_data: str
    metrics: tuple[str, ...]
    secondary: tuple[str, ...]
    shorthands: Mapping[str, Mapping[str, Any]]
    says: Mapping[str, str]
    describe: Callable[[Any], dict[str, Any]]
    """Look at a configuration's data, and refuse what could not be trained."""

    program = "bcos-ode"
    varied = frozenset({"seed", "split.seed", "split.fold", "split.folds", "split.inner_folds", "split.inner_fold"})

    @property
    def preload(self) -> tuple[str, ...]:
        return (
            f"{self.module}.run",
            "scipy.integrate",
            "sklearn.model_selection",
            "safetensors.torch",
            "mlflow.tracking",
            "mlflow.system_metrics.system_metrics_monitor",
        )

    def recipe(self, name: str | None, data: str | None) -> Any:
        preset = name or recipe_for(data or self.default_data)
        config = RECIPES[preset]()
        if not isinstance(config, self.config_type):
            fitting = [known for known in RECIPES if isinstance(RECIPES[known](), self.config_type)]
            raise InputError(f'preset "{preset}" is not of package {self.name}; its presets are {", ".join(fitting)}')
        return config

    def place(self, config: Any, unit: Unit, folds: int, inner: tuple[int, int] | None = None) -> Any:
        split = config.split
        if folds > 1:
            # a series is cut by time, whatever the seed
            by_time = isinstance(config, RegressionConfig) and config.is_series
            seed = split.seed if by_time else split.seed + unit.repeat
            split = dataclasses.replace(split, folds=folds, fold=unit.fold, seed=seed)
        if inner is not None:
            split = dataclasses.replace(split, inner_folds=inner[0], inner_fold=inner[1])
        return dataclasses.replace(config, seed=unit.training_seed, split=split)

    def resolve(self, config: Any) -> Any:
        return dataclasses.replace(config, data=absolute(config.data))

    def check(self, configs: Mapping[str, Any]) -> dict[str, Any]:
        first = next(iter(configs.values()))
        for name, config in configs.items():
            for option in _DATA:
                if getattr(config, option, None) != getattr(first, option, None):
                    raise InputError(f'--arm {name}: another "{option}" than the first arm; units could not be paired')
        found = {}
        for name, config in configs.items():
            try:
                found[name] = self.describe(config)
            except InputError as error:
                raise InputError(f"arm {name}: {error}") from None
        folds = first.split.folds
        facts = next(iter(found.values()))
        return {
            **facts,
            "fingerprints": {name: of_arm["fingerprint"] for name, of_arm in found.items()},
            "test": f"one of {folds} folds" if folds else "a held-out share, the same for all runs",
        }

    def run(self, config: Any, place: RunPlace, key: str) -> UnitResult:
        package: Any = importlib.import_module(self.module)
        record = find_tagged(place.experiment, {"unit_key": key})
        if record is None or record.status != "FINISHED":
            if record is not None and self.config_type is ClassificationConfig:
                result = package.resume(record.id, pictures=False)
            else:  # the others take a minute or two: they start again
                result = package.fit(config, place=place, pictures=False)
            record = read_run(result.run_id)
        for file in run_folder(record.id).glob("*.safetensors"):  # MLflow has it
            file.unlink()
        stage = "test" if any(name.startswith("test/") for name in record.metrics) else "val"
        return UnitResult(
            run_id=record.id,
            metrics={n.partition("/")[2]: v for n, v in record.metrics.items() if n.startswith(f"{stage}/")},
            num_train=int(record.tags["num_train"]),
            num_test=int(record.tags["num_test"]),
            seconds=record.metrics["train/seconds"],
            fingerprint=record.tags["data_fingerprint"],
        )

    def predictions(self, run_id: str) -> "tuple[np.ndarray, np.ndarray] | None":
        import numpy as np

        if self.config_type is not ClassificationConfig:
            return None
        with np.load(fetch_artifact(run_id, "predictions.npz")) as found:
            return found["labels"], found["predictions"]

    def draw_explanations(self, runs: Mapping[str, str], path: pathlib.Path) -> str | None:
        """Of fields of degree one: their ledgers at the same states, beside the equations' own."""
        if self.config_type is not DynamicsConfig:
            return None
        import torch
        from bcos_ode.dynamics import load_dynamics
        from bcos_ode.explanation import Ledger, ledger, true_ledger
        from bcos_ode.figures.ledger import draw_ledger
        from bcos_ode.model import VariableModel

        stored = configuration.load_dict(fetch_artifact(next(iter(runs.values())), "config.json"))
        data = load_dynamics(configuration.from_dict(DynamicsConfig, stored))
        states = torch.from_numpy(data.truth).flatten(0, 1)
        ledgers: dict[str, Ledger] = {}
        for arm, run_id in runs.items():
            model = VariableModel.load(fetch_artifact(run_id, "model/model.safetensors"))
            # another degree divides the same derivatives by another convention
            if model.degree != 1 or model.config.encoding != "constant":
                continue
            if data.system is not None and not ledgers:
                ledgers["equations"] = true_ledger(data.system, states, model)
            ledgers[arm] = ledger(model, states, "J")
        if not set(ledgers) - {"equations"}:
            return None
        draw_ledger(ledgers, title=f"{data.train.name}: what drives each variable").savefig(path, dpi=130)
        return (
            "What each channel contributes to each derivative at the same held-out states, by a field of each arm "
            "(view J), beside the equations' own where they are known."
        )


def make_adapter(name: str) -> OdeAdapter:
    """The adapter called "ode", "ode-regression" or "ode-classification"."""
    if name == "ode":
        metrics = (
            "nrmse",
            "nrmse_within",
            "nrmse_outside",
            "field_error",
            "valid_time",
            "period_error",
            "invariant_drift_error",
            "ledger_error",
            "ledger_error_w",
            "completeness_error",
            "seconds",
        )
        return OdeAdapter(
            name,
            "bcos_ode.dynamics",
            DynamicsConfig,
            "lotka-volterra",
            metrics,
            ("field_error", "valid_time", "ledger_error", "completeness_error"),
            _NETWORKS,
            _DYNAMICS_SAYS,
            _describe_dynamics,
        )
    if name == "ode-regression":
        return OdeAdapter(
            name,
            "bcos_ode.regression",
            RegressionConfig,
            "diabetes",
            ("rmse", "nrmse", "r2", "completeness_error", "seconds"),
            ("r2", "completeness_error"),
            _NETWORKS,
            _REGRESSION_SAYS,
            _describe_regression,
        )
    return OdeAdapter(
        name,
        "bcos_ode.classification",
        ClassificationConfig,
        "digits",
        ("accuracy", "loss", "completeness_error", "seconds"),
        ("completeness_error",),
        {"bcos": {"variant": "bcos"}, "vanilla": {"variant": "vanilla"}},
        {},
        _describe_classification,
    )


def _describe_dynamics(config: DynamicsConfig) -> dict[str, Any]:
    from bcos_ode.dynamics import prepare

    data, samples = prepare(config)
    return {
        "name": config.data_name,
        "fingerprint": data.fingerprint,
        "num_train": len(samples.states),
        "num_test": data.truth.shape[0] * data.truth.shape[1],
    }


def _describe_regression(config: RegressionConfig) -> dict[str, Any]:
    from bcos_ode.regression import check

    table, split = check(config)
    return {
        "name": config.data_name,
        "fingerprint": table.fingerprint,
        "num_train": len(split.train),
        "num_test": len(split.test),
    }


def _describe_classification(config: ClassificationConfig) -> dict[str, Any]:
    from bcos_ode.classification import prepare

    data, _ = prepare(config)
    return {
        "name": config.data_name,
        "fingerprint": data.fingerprint,
        "classes": list(data.classes),
        "num_train": len(data.train),
        "num_val": len(data.val),
        "num_test": len(data.test),
    }
