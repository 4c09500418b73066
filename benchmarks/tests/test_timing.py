import itertools
import time

import numpy
import pytest

from ..timing import MAX_ROUNDS, MIN_ROUNDS, PATIENCE, interleave, summarise, turn


def test_summary_of_known_times():
    times = [0.004, 0.002, 0.006]
    summary = summarise(times, [0.001, 0.002, 0.002])
    assert summary.rounds == 3
    assert summary.ratio == pytest.approx(3)  # the median of 4, 1 and 3; the ratio of medians would be 2
    assert summary.median_ms == pytest.approx(4)
    assert (summary.p10_ms, summary.p90_ms) == pytest.approx(tuple(numpy.quantile(times, [0.1, 0.9]) * 1e3))


def test_every_peer_takes_every_place_and_follows_each_neighbour():
    names = ["a", "b", "c"]
    orders = [turn(names, number) for number in range(2 * len(names))]
    for place in range(3):
        assert sorted(order[place] for order in orders) == ["a", "a", "b", "b", "c", "c"]
    assert {pair for order in orders for pair in itertools.pairwise(order)} == {
        (p, q) for p in names for q in names if p != q
    }


def wall(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def test_each_call_meets_other_buffers():
    calls = []
    times = interleave({"a": calls.append, "b": calls.append}, wall, budget=60)
    assert calls == list(range(2 * MAX_ROUNDS))
    assert len(times["a"]) == len(times["b"]) == MAX_ROUNDS


@pytest.mark.parametrize(("sleep", "rounds"), [(0.004, MIN_ROUNDS), (0.011 * PATIENCE, 1)])
def test_budget_ends_the_rounds(sleep, rounds):
    times = interleave({"slow": lambda _: time.sleep(sleep)}, wall, budget=0.01)
    assert len(times["slow"]) == rounds
    assert min(times["slow"]) >= sleep
