"""What every test finds the same, however the tests were started and whatever ran before."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to a job in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Give the processor its denormal numbers back: training flushes them for the rest of the process."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
