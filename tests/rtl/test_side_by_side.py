"""Work on several machines at once: in order, each machine at one piece, and over when nobody waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgsim.rtl.network import LayerComparison
from pgsim.rtl.side_by_side import side_by_side

MACHINES: list[Any] = ["first", "second", "third"]  # no machine is run here


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_order_with_every_machine_at_one_piece_of_work(count: int) -> None:
    at_work: dict[str, int] = {}

    def run(work: int, machine: Any, _tick: Callable[[], None]) -> int:
        assert machine not in at_work
        at_work[machine] = work
        time.sleep(0.02 if work % 3 == 0 else 0.001)
        del at_work[machine]
        return work * work

    found = list(side_by_side(MACHINES[:count], range(20), run, lambda _: None))
    assert found == [(work, work * work) for work in range(20)]


def test_machines_run_at_once() -> None:
    all_there = threading.Barrier(3, timeout=20)
    found = side_by_side(MACHINES, range(6), lambda work, _machine, _tick: all_there.wait() >= 0, lambda _: None)
    assert [done for _, done in found] == [True] * 6


def test_work_is_drawn_only_a_little_ahead() -> None:
    drawn: list[int] = []

    def works() -> Iterator[int]:
        for work in range(50):
            drawn.append(work)
            yield work

    for work, _ in side_by_side(MACHINES[:2], works(), lambda work, _machine, _tick: work, lambda _: None):
        assert len(drawn) <= work + 5
    assert len(drawn) == 50


@pytest.mark.parametrize("count", [1, 3])
def test_an_error_comes_out_where_its_result_would(count: int) -> None:
    def run(work: int, _machine: Any, _tick: Callable[[], None]) -> int:
        if work == 3:
            raise TimeoutError("of the work itself")
        return work

    results = side_by_side(MACHINES[:count], range(9), run, lambda _: None)
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(TimeoutError, match="of the work itself"):
        next(results)


@pytest.mark.parametrize("how", ["tick raises", "caller leaves"])
def test_work_under_way_ends_when_nobody_waits_for_it(how: str) -> None:
    began, ticks = threading.Event(), []

    def run(work: int, _machine: Any, tick: Callable[[], None]) -> int:
        if work == 0 and how == "caller leaves":
            return 0
        while True:  # until its tick raises
            began.set()
            time.sleep(0.001)
            tick()

    def look(_work: int) -> None:
        ticks.append(threading.current_thread())
        if how == "tick raises" and began.is_set():
            raise KeyboardInterrupt

    results = side_by_side(MACHINES[:2], range(9), run, look)
    if how == "tick raises":
        with pytest.raises(KeyboardInterrupt):
            next(results)
    else:
        assert next(results) == (0, 0)
        results.close()  # type: ignore[attr-defined]
    assert set(ticks) == {threading.current_thread()}
    assert threading.active_count() == 1 or not any("ThreadPool" in one.name for one in threading.enumerate())


def test_seconds_of_machines_at_once_are_counted_once() -> None:
    def seconds(*spans: tuple[float, float]) -> float:
        return LayerComparison(0, "one", None, 0, spans).seconds  # type: ignore[arg-type]

    assert seconds((1, 3), (3, 4)) == 3
    assert seconds((1, 3), (2, 4)) == 3
    assert seconds((6, 7), (1, 4), (2, 3)) == 4
    assert seconds() == 0
