"""Every unit once: whoever claims, dies, gives back or puts in again."""

import os
import signal
import subprocess
import sys

import optuna
import pytest
from bcos_core.run.error import InputError
from bcos_eval import queue as queue_module
from bcos_eval.queue import MAX_LOST, UnitQueue
from bcos_eval.study import Search, Tuning

CLAIM_ALL = """
import sys
from bcos_eval.queue import UnitQueue
queue = UnitQueue.open("small", sys.argv[1])
while (attempt := queue.claim()) is not None:
    queue.complete(attempt, {"by": sys.argv[2]})
    print(attempt.unit.id, flush=True)
"""
CLAIM_ONE = """
import sys, time
from bcos_eval.queue import UnitQueue
attempt = UnitQueue.open("small", sys.argv[1]).claim()
print(attempt.unit.id, flush=True)
time.sleep(600)
"""


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "queue.journal")


@pytest.fixture
def queue(study, place):
    return UnitQueue.create(study(), place)


@pytest.fixture
def run(tmp_path):
    """Start a script of these in a process of its own."""

    def start(text, *arguments):
        file = tmp_path / "child.py"
        file.write_text(text)
        child = subprocess.Popen([sys.executable, str(file), *arguments], stdout=subprocess.PIPE, text=True)
        children.append(child)
        return child

    children: list[subprocess.Popen[str]] = []
    yield start
    for child in children:
        child.kill()
        child.communicate()


def states(queue):
    return [s.state for s in queue.states()]


def test_units_are_claimed_in_order_and_done_once(queue):
    order = []
    while (attempt := queue.claim()) is not None:
        order.append(attempt.unit)
        assert queue.complete(attempt, {"metrics": {"accuracy": 0.5}})
        assert not queue.complete(attempt, {"metrics": {"accuracy": 0.9}})  # a second answer changes nothing
    assert order == queue.plan.units()
    assert {s.result["metrics"]["accuracy"] for s in queue.states()} == {0.5}


def test_two_processes_share_the_units(study, place, run):
    from bcos_eval.design import Design

    UnitQueue.create(study(design=Design(folds=20)), place)
    children = [run(CLAIM_ALL, place, name) for name in "xy"]
    claimed = [child.communicate(timeout=60)[0].split() for child in children]
    both = claimed[0] + claimed[1]
    assert sorted(both) == sorted(u.id for u in study(design=Design(folds=20)).units())


def test_unit_of_a_killed_process_is_taken_up_again(queue, place, run):
    child = run(CLAIM_ONE, place)
    taken = child.stdout.readline().strip()
    assert states(queue).count("running") == 1
    assert queue.recover() == []  # it lives
    child.send_signal(signal.SIGKILL)
    child.wait()
    ids = []
    while (attempt := queue.claim()) is not None:
        ids.append(attempt.unit.id)
        queue.complete(attempt, {})
    assert sorted(ids) == sorted(u.id for u in queue.plan.units())
    assert taken in ids
    assert states(queue) == ["done"] * 6


def test_a_unit_that_kills_its_workers_is_given_up(queue, monkeypatch):
    monkeypatch.setattr(queue_module, "_process", lambda owner: None)
    for _ in range(MAX_LOST * 6):
        queue.claim()
    queue.recover()
    assert states(queue) == ["failed"] * 6
    assert queue.states()[0].reason == f"lost its worker {MAX_LOST} times"
    assert queue.claim() is None


def test_a_unit_whose_finder_died_is_put_in_again(queue):
    """Between ending the dead attempt and adding another, the finder may be killed, too."""
    attempt = queue.claim()
    queue._finish(attempt.trial, reason="lost")
    assert states(queue)[0] == "waiting"
    queue.recover()
    queue.recover()
    assert len(queue._by_unit()[attempt.unit.id]) == 2


def test_of_two_attempts_the_first_counts(queue):
    first = queue.claim()
    queue._put(first.unit, lost=0)  # by whoever thought it lost
    rest = []
    while (attempt := queue.claim()) is not None:
        rest.append(attempt.unit)
        queue.complete(attempt, {})
    assert first.unit not in rest
    assert len(rest) == 5
    assert queue.complete(first, {})
    assert states(queue) == ["done"] * 6


def test_released_units_wait_again_and_failed_ones_do_not(queue):
    one, other = queue.claim(), queue.claim()
    queue.release(one)
    queue.fail(other, "diverged")
    assert states(queue)[:2] == ["waiting", "failed"]
    assert queue.states()[1].reason == "diverged"
    assert queue.put_missing() == 0
    assert queue.put_missing(failed=True) == 1
    assert states(queue)[:2] == ["waiting", "waiting"]


def test_silence_from_another_machine_is_timed_by_the_observers_clock(queue, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(queue_module.time, "monotonic", lambda: clock[0])
    attempt = queue.claim()
    queue._set(attempt, owner={"host": "elsewhere", "pid": os.getpid(), "started": 0.0})
    assert queue.recover() == []
    clock[0] = queue_module.GRACE_SECONDS - 1
    queue._set(attempt, beat=1)
    assert queue.recover() == []
    clock[0] += queue_module.GRACE_SECONDS - 1
    assert queue.recover() == []
    clock[0] += 2
    assert queue.recover() == [attempt.unit]


def test_a_tuning_keeps_what_was_proposed_to_a_lost_trial(place, monkeypatch):
    search = Search({"b": {"low": 1.0, "high": 2.0, "log": False}}, trials=2, folds=2)
    queue = UnitQueue.create(Tuning("t", "vision", {}, search, "accuracy"), place)
    attempt = queue.claim()
    proposed = queue.trial(attempt, sampler_seed=0).suggest_float("b", 1, 2)
    queue.release(attempt)
    again = {}
    while (attempt := queue.claim()) is not None:
        again[attempt.unit] = queue.trial(attempt, sampler_seed=9).suggest_float("b", 1, 2)
        queue.complete(attempt, {"value": 0.5, "pruned": False})
    assert again[queue.plan.units()[0]] == proposed != again[queue.plan.units()[1]]


def test_a_sampler_sees_all_trials_that_are_done(place):
    search = Search({"b": {"low": 0.0, "high": 1.0, "log": False}}, trials=40, folds=2)
    queue = UnitQueue.create(Tuning("t", "vision", {}, search, "loss"), place)
    tried = []
    while (attempt := queue.claim()) is not None:
        trial = queue.trial(attempt, sampler_seed=len(tried))
        tried.append(trial.suggest_float("b", 0, 1))
        queue.complete(attempt, {"value": (tried[-1] - 0.3) ** 2, "pruned": False})
    late = [abs(b - 0.3) for b in tried[20:]]
    assert sum(late) / 20 < 0.15  # at random it would be 0.29


def test_a_clock_that_was_set_is_no_death(queue):
    attempt = queue.claim()
    owner = queue_module._myself()
    queue._set(attempt, owner={**owner, "started": owner["started"] + 30})
    assert queue.recover() == []


def test_who_was_taken_for_dead_learns_it(queue):
    attempt = queue.claim()
    assert queue.beat(attempt)
    queue._finish(attempt.trial, reason="lost")
    assert not queue.beat(attempt)
    assert not queue.complete(attempt, {})


def test_the_reason_is_the_real_attempts(queue):
    attempt = queue.claim()
    queue._put(attempt.unit, lost=0)
    while queue.claim() is not None:
        pass
    queue.fail(attempt, "diverged")
    assert queue.states()[0].reason == "diverged"


def test_a_relative_place_is_the_same_from_elsewhere(study, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    queue = UnitQueue.create(study(), "sub/queue.journal")
    monkeypatch.chdir(tmp_path / "sub")
    assert queue.claim() is not None
    assert states(UnitQueue.open("small", "queue.journal")).count("running") == 1


def test_a_study_that_was_cut_off_while_it_was_made(place, tmp_path):
    optuna.create_study(storage=queue_module._open_storage(place), study_name="half")
    with pytest.raises(InputError, match='study "half" was interrupted while it was made'):
        UnitQueue.open("half", place)
    (tmp_path / "text").write_text("no journal\nat all\n")
    with pytest.raises(InputError, match="cannot be used"):
        UnitQueue.open("small", str(tmp_path / "text"))


def test_names_and_places_that_do_not_work(study, queue, place, tmp_path):
    with pytest.raises(InputError, match='there is a study "small" already; --resume small'):
        UnitQueue.create(study(), place)
    with pytest.raises(InputError, match='no study "other"'):
        UnitQueue.open("other", place)
    with pytest.raises(InputError, match="no queue at"):
        UnitQueue.open("small", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="SQLite loses claims"):
        UnitQueue.create(study(), f"sqlite:///{tmp_path}/q.db")
    with pytest.raises(InputError, match=r"cannot be used|needs its driver") as caught:
        UnitQueue.create(study(), "postgresql://me:secret@localhost:1/none")
    assert "secret" not in str(caught.value)
