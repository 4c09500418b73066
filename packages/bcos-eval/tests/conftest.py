"""A study that needs no data to be planned."""

import pytest
from bcos_eval.design import Design
from bcos_eval.study import Study


@pytest.fixture
def study():
    """Two arms, three folds: six units."""

    def make(**changes):
        fields = {
            "name": "small",
            "package": "vision",
            "arms": {"a": {"seed": 0}, "b": {"seed": 0}},
            "design": Design(folds=3),
            "metric": "accuracy",
            "control": "a",
            "rope": 0.005,
        }
        return Study(**{**fields, **changes})

    return make
