import dataclasses

import pytest

pytest.importorskip("bcos_vision.models")

from ..cases import NETWORKS
from ..networks import TrainingStep, measure_network


def test_a_step_trains():
    case = dataclasses.replace(NETWORKS[0], batch=8, size=8)
    step = TrainingStep(case, "bcos", "cpu", "float32", copies=1)
    before = step.loss(0).item()
    for group in step.optimiser.param_groups:
        group["lr"] = 0.1
    for _ in range(5):
        step.run(0)
    assert step.loss(0).item() < before


@pytest.mark.parametrize(("case", "size"), [(NETWORKS[0], 8), (NETWORKS[1], 32)], ids=lambda v: getattr(v, "name", ""))
def test_rows_of_a_network(case, size):
    case = dataclasses.replace(case, batch=2, size=size)
    baseline, bcos = measure_network(case, "cpu", "float32", budget=0.01)
    assert (baseline.peer, bcos.peer, baseline.ratio) == ("baseline", "bcos", 1)
    assert bcos.median_ms
    assert bcos.images_per_s == pytest.approx(2e3 / bcos.median_ms)
    assert bcos.peak_mib
    assert bcos.kept_mib
    assert baseline.kept_mib
