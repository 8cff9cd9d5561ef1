"""docs/python.md: every snippet runs, in order, and every call is on the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import pgsim
from pgsim.io.trace import write_trace
from tests.build_trace import build_trace

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_every_snippet_runs_and_writes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    write_trace(tmp_path / "trace.npz", build_trace())
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, snippet in enumerate(SNIPPETS):
        exec(compile(snippet, f"docs/python.md, snippet {number}", "exec"), names)
    assert len(SNIPPETS) == 5
    assert 0 < names["busy"] < 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "against.png",
        "cycles.png",
        "energy.svg",
        "result.csv",
        "trace.npz",
    ]


def test_the_page_names_every_call() -> None:
    calls = set(pgsim.__all__) - {"__version__"}
    assert {call for call in calls if f"`{call}(" in PAGE} == calls
