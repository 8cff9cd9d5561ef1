"""The README's commands: those that need nothing but a checkout are run as written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pgsim
from pgsim.cli.main import COMMANDS
from pgsim.results.compare import compare

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
PGSIM_LINES = [
    match.group(1)
    for block in BLOCKS
    for line in block.splitlines()
    if (match := re.search(r"\.venv/bin/pgsim (.*)$", line))
]


def test_the_readme_shows_the_main_job_and_the_tests() -> None:
    assert re.search(r"<!-- main job -->\n```bash\n.*pgsim run --hw predictivenet.yaml traces/\S+\.npz\n```", README)
    assert re.search(r"<!-- tests -->\n```bash\n.*python -m pytest -n logical --dist worksteal\n```", README)
    assert len(PGSIM_LINES) == 2


@pytest.mark.parametrize("line", PGSIM_LINES)
def test_a_command_of_the_readme_runs_as_written(line: str) -> None:
    trace = ROOT / line.split()[-1]
    if not trace.exists():
        pytest.fail(f"README.md names {line.split()[-1]}, which is not shipped")
    done = subprocess.run([sys.executable, "-m", "pgsim", *line.split()], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "checks hold" in done.stdout


def test_the_table_of_commands_names_every_command() -> None:
    table = README[README.index("## Commands") : README.index("## What is modelled")]
    assert {name for name in COMMANDS if f"`pgsim {name}" in table} == set(COMMANDS)


def test_every_page_that_the_readme_links_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert len(links) > 8
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_speedups_in_the_readme_are_those_that_are_simulated() -> None:
    shown = README[README.index("## What the shipped traces show") : README.index("## Read more")]
    rows = re.findall(r"^\| `(\S+)` \| (.*) \|$", shown, flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(path.stem for path in (ROOT / "traces").glob("*.npz"))
    for name, figures in rows:
        trace = pgsim.load_trace(ROOT / "traces" / f"{name}.npz")
        own, int8, uniform = (
            pgsim.simulate(trace, pgsim.load_accelerator(machine), verify=False)
            for machine in ("predictivenet", "dense_int8", "dense_uniform")
        )
        over_int8 = {part.layers: part for part in compare([own], int8)}
        over_uniform = {part.layers: part for part in compare([own], uniform)}
        measured = [
            over_int8["network"].speedup,
            over_int8["gated"].speedup,
            over_uniform["network"].speedup,
            over_uniform["gated"].speedup,
            over_uniform["network"].speedup_at_equal_area,
        ]
        assert figures.split(" | ") == [f"{value:.2f}" for value in measured], name
