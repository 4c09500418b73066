"""The one table of presets: each is a run that could begin, and survives being written."""

import dataclasses
import json

import pytest
from bcos_core.run.config import from_dict, save_config, to_dict
from bcos_core.run.error import InputError
from bcos_core.run.split import SplitConfig
from bcos_ode.classification import ClassificationConfig, load_images
from bcos_ode.dynamics import DynamicsConfig, prepare
from bcos_ode.recipes import RECIPES, recipe_for
from bcos_ode.regression import RegressionConfig, check
from bcos_ode.systems import SYSTEMS

KINDS = (DynamicsConfig, RegressionConfig, ClassificationConfig)


@pytest.mark.parametrize("name", RECIPES)
def test_presets_survive_being_written(tmp_path, name):
    config = RECIPES[name]()
    assert type(config) in KINDS
    assert from_dict(type(config), to_dict(config)) == config
    save_config(config, tmp_path / "config.json")
    assert from_dict(type(config), json.loads((tmp_path / "config.json").read_text())) == config


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in ("cifar10", "trajectories")])
def test_presets_have_data(name):
    """All but two: photographs and trajectories of one's own have to be given."""
    config = RECIPES[name]()
    if isinstance(config, RegressionConfig):
        table, split = check(config)
        assert len(split.train) + len(split.test) <= len(table)
    elif isinstance(config, DynamicsConfig):
        if config.data in SYSTEMS:  # few and short ones
            span = 55 * SYSTEMS[config.data].step if not SYSTEMS[config.data].stiff else 25 * SYSTEMS[config.data].step
            config = dataclasses.replace(config, num_trajectories=3, span=span, horizon=span)
        data, samples = prepare(config)
        assert len(samples.states) > 0 < len(data.truth)
    else:
        assert len(load_images(config.data, config.split).train)


def test_photographs_have_to_be_given():
    with pytest.raises(InputError, match="no such folder; expected folder:PATH"):
        load_images(RECIPES["cifar10"]().data, SplitConfig())


def test_every_data_has_a_preset_of_its_own():
    for name in (*SYSTEMS, "hare-lynx", "diabetes", "linnerud", "digits"):
        assert RECIPES[recipe_for(name)]().data == name
    assert isinstance(RECIPES[recipe_for("table:mine.csv")](), RegressionConfig)
    assert RECIPES[recipe_for("series:hare-lynx")]().data == "series:hare-lynx"
    assert isinstance(RECIPES[recipe_for("folder:mine")](), ClassificationConfig)
