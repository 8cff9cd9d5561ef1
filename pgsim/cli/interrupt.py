"""Ctrl-C that is not lost: compiled code can swallow the KeyboardInterrupt that is raised inside it, or garble it."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

_pressed = False


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Remember a Ctrl-C while the block runs. Changes nothing where SIGINT is ignored or handled by someone else.

    Within another such block it changes nothing either: what was pressed there stays remembered.
    """
    global _pressed
    handler = signal.getsignal(signal.SIGINT)
    if handler is not _press:
        _pressed = False
    if handler is not signal.default_int_handler:
        yield
        return
    report = sys.unraisablehook

    def quiet(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)

    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, _press)
        sys.unraisablehook = quiet
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _press:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.unraisablehook = report


def pressed() -> bool:
    """Tell whether Ctrl-C was pressed since the command began."""
    return _pressed


def check() -> None:
    """Raise the KeyboardInterrupt that compiled code swallowed, if it did; call it between pieces of work."""
    if _pressed:
        raise KeyboardInterrupt


def _press(_signal: int, _frame: FrameType | None) -> None:
    global _pressed
    _pressed = True
    raise KeyboardInterrupt
