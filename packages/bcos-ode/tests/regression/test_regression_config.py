"""What a regression run can be, and how quickly that is known."""

import subprocess
import sys

import pytest
from bcos_core.run.split import SplitConfig
from bcos_ode.config import NetworkConfig
from bcos_ode.regression import RegressionConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "table:"}, 'table:PATH.csv or series:PATH.csv, got "table:"'),
        ({"data": "folder:x"}, "--data: expected a name"),
        ({"data": "diabetes:"}, "--data: expected a name"),
        ({"data": "table:x.csv"}, 'columns of a table, with commas between them, got ""'),
        ({"targets": "y"}, '--targets: expected none, but for table:PATH, got "y"'),
        ({"lags": 3}, '--lags, --horizon: they belong to a series, not to "diabetes"'),
        ({"data": "series:hare-lynx", "lags": 0}, "--lags: expected at least 1, got 0"),
        ({"data": "series:hare-lynx", "split": SplitConfig(val=0, seed=1)}, "--split.seed: a series is cut by time"),
        ({"split": SplitConfig(val=0.1)}, "--split.val: nothing is chosen"),
        ({"split": SplitConfig(val=0, test=0)}, "--split.test is 0"),
        ({"split": SplitConfig(val=0, folds=1)}, "--split.folds: expected 0 or at least 2, got 1"),
        ({"seed": -1}, "--seed: expected at least 0, got -1"),
    ],
)
def test_what_no_run_can_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RegressionConfig(**options)


def test_arms_are_called_by_what_is_unusual():
    assert RegressionConfig().arm == "diabetes bcos B=2"
    config = RegressionConfig(
        data="series:/some/where/pelts.csv",
        lags=3,
        network=NetworkConfig(model="mlp_nobias", depth=2, width=8, encoding="inverse"),
    )
    assert config.arm == "series:pelts.csv mlp_nobias 3 lags, horizon 1 2x8 inverse"


def test_configurations_need_no_torch():
    code = "import sys, bcos_ode.regression.recipes; print([m for m in ('torch', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
