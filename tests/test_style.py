"""The linters of the house: ruff's rules and format, mypy with every function typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(str(path) for folder in ("benchmarks", "analysis") for path in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("tool", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy", "--no-incremental"]])
def test_a_linter_finds_nothing(tool: list[str]) -> None:
    targets = ["pgsim", *SCRIPTS] if tool[0] == "mypy" else ["."]
    done = subprocess.run([sys.executable, "-m", *tool, *targets], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
