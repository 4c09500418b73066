from bcos_core.run.tracking import RunRecord
from bcos_eval.ablation import exponents
from bcos_eval.ablation.exponents import ArmExponent, read_exponents
from bcos_eval.queue import UnitState
from bcos_eval.study import Unit

ARMS = {
    "set": {"b": 1.5},
    "learnt": {"exponent": {"learn": "layer", "objective": "at_most", "bound": 1.75}},
    "silent": {"exponent": {"learn": "global"}},
    "baseline": {"variant": "baseline"},
}
LOGGED = {
    "learnt-0": {"b/mean": 1.25, "b/min": 1.0, "b/max": 1.5},
    "learnt-1": {"b/mean": 1.75, "b/min": 1.5, "b/max": 2.0},
    "learnt-2": {"b/mean": 9.0},  # half of it is as good as none
    "learnt-3": {"b/mean": 9.0, "b/min": 9.0, "b/max": 9.0},  # has failed
}


def test_exponents_are_what_was_set_and_what_was_logged(study, monkeypatch):
    asked = []

    def read(run_id):
        asked.append(run_id)
        return RunRecord(run_id, "", "FINISHED", {}, LOGGED.get(run_id, {"val/loss": 1.0}))

    monkeypatch.setattr(exponents, "read_run", read)
    states = [
        UnitState(Unit(arm, fold=i), "failed" if i == 3 else "done", {"run_id": f"{arm}-{i}"})
        for arm in ARMS
        for i in range(4)
    ]
    assert read_exponents(study(arms=ARMS, control="set"), states) == {
        "set": ArmExponent(1.5, 1.5, 1.5),
        "learnt": ArmExponent(1.5, 1.0, 2.0, "layer", "at most 1.75"),
    }
    assert sorted(asked) == [f"{arm}-{i}" for arm in ("learnt", "silent") for i in range(3)]
