"""Progress on standard error, and only where a person looks at it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from pgsim.cli import interrupt


@contextlib.contextmanager
def steps(task: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar of `total` steps while the block runs; call what is yielded after each with what was done."""
    if not sys.stderr.isatty():
        yield lambda _: interrupt.check()
        interrupt.check()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(task, total=total)

        def step(done: str) -> None:
            interrupt.check()
            progress.update(bar, advance=1, description=f"{task} {done}")

        yield step
        interrupt.check()


@contextlib.contextmanager
def counted(task: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar up to `total` while the block runs; call what is yielded with how much of it is done."""
    with amounts(task) as show:
        yield lambda done: show("", done, total)


@contextlib.contextmanager
def amounts(task: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar while the block runs; call what is yielded with (what is being done, amount done, amount in all)."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: interrupt.check()
        interrupt.check()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(task, total=None)

        def show(what: str, done: int, total: int) -> None:
            interrupt.check()
            progress.update(bar, completed=done, total=total, description=f"{task} {what}"[:60])

        yield show
        interrupt.check()
