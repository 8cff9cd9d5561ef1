"""Pieces of work on several machines at once, each in a thread: the compiled RTL runs outside Python's lock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from pgsim.rtl.bench import Bench

W = TypeVar("W")
R = TypeVar("R")

_LOOK = 0.1  # seconds between looks at the world while machines run


class _Ended(Exception):
    """Work that nobody waits for any longer."""


def side_by_side(
    machines: Sequence[Bench],
    works: Iterable[W],
    run: Callable[[W, Bench, Callable[[], None]], R],
    tick: Callable[[W], None],
) -> Iterator[tuple[W, R]]:
    """Yield (work, run(work, machine, tick of it)) in the order of `works`, as many at once as there are machines.

    `works` are drawn in the caller's thread, at most two more than machines ahead of the result that comes next, and
    `tick` is called there, too, with the work whose result is waited for. One machine runs in the caller's thread. Work
    under way ends at its next tick where the caller stops early, or `run` or `tick` raises.
    """
    if len(machines) == 1:
        for work in works:
            tick(work)
            yield work, run(work, machines[0], partial(tick, work))
        return
    ended = threading.Event()
    free: SimpleQueue[Bench] = SimpleQueue()
    for machine in machines:
        free.put(machine)

    def go_on() -> None:
        if ended.is_set():
            raise _Ended

    def on_any_machine(work: W) -> R:
        machine = free.get()
        try:
            return run(work, machine, go_on)
        finally:
            free.put(machine)

    def first_of(under_way: deque[tuple[W, Future[R]]]) -> tuple[W, R]:
        work, future = under_way.popleft()
        while True:
            tick(work)
            try:
                return work, future.result(timeout=_LOOK)
            except TimeoutError:
                if future.done():  # it raised this itself
                    raise

    under_way: deque[tuple[W, Future[R]]] = deque()
    with ThreadPoolExecutor(len(machines)) as threads:
        try:
            for work in works:
                under_way.append((work, threads.submit(on_any_machine, work)))
                if len(under_way) > len(machines) + 2:
                    yield first_of(under_way)
            while under_way:
                yield first_of(under_way)
        finally:
            ended.set()
            for _, future in under_way:
                future.cancel()
