"""One small trace file for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgsim.io.trace import write_trace
from tests.build_trace import build_trace


@pytest.fixture(scope="session")
def good_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a sealed trace; tests do not change it."""
    path = tmp_path_factory.mktemp("good") / "good.npz"
    write_trace(path, build_trace())
    return path
