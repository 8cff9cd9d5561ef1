"""Read every tensor of a trace, or the one line with which it is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pgsim.errors import InputError
from pgsim.io.trace import load_trace


def read_all(path: Path, **options: Any) -> None:
    """Load the trace and read each boundary's and each layer's tensors."""
    trace = load_trace(path, **options)
    for index in range(len(trace.boundaries)):
        trace.boundary(index)
    for index in range(len(trace.layers)):
        trace.tensors(index)


def message_of(path: Path, **options: Any) -> str:
    """Return the message of the InputError that reading all of `path` raises, with the path as FILE."""
    with pytest.raises(InputError) as caught:
        read_all(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(os.fspath(path), "FILE")
