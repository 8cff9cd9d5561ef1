"""docs/release.md: its commands run, its tables hold every option and every name."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from pgsim.cli.main import main
from pgsim.cli.trace_release import OPTIONS, add_release_options

PAGE = (Path(__file__).parents[2] / "docs" / "release.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    pgsim (.*)$", PAGE, flags=re.MULTILINE)
ROWS = [re.findall(r"`([^`]+)`", row.split(" | ")[0]) for row in re.findall(r"^\| (.*) \|$", PAGE, flags=re.MULTILINE)]


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from tests.train.release_state import state_dict
    from tests.train.synthetic import write_folder

    torch.set_num_threads(1)
    write_folder(tmp_path / "DATA")
    torch.save(state_dict(5), tmp_path / "model_resnet-20.pt")
    monkeypatch.chdir(tmp_path)
    assert [line.split()[0] for line in COMMANDS] == ["trace", "verify", "run"]
    for line in COMMANDS:
        more = ["--evaluate", "1"] if line.startswith("trace") else []
        assert main([*line.replace("--batch 0:8", "--batch 0:1").split(), *more]) == 0
    assert "of 86016 mask bits differ" in capsys.readouterr().err


def test_the_table_of_options_names_each_and_no_other() -> None:
    named = [name.split()[0] for row in ROWS for name in row if name.startswith("--")]
    parser = argparse.ArgumentParser(add_help=False)
    add_release_options(parser)
    assert named == [f"--{name.replace('_', '-')}" for name in ("bits", "weight_bits", "batch", "shortcut_bits")]
    assert sorted(named) == sorted(parser._option_string_actions) == sorted(f"--{n.replace('_', '-')}" for n in OPTIONS)


def test_the_table_of_names_covers_a_state_dict() -> None:
    state = pytest.importorskip("pgsim.train.release.state", reason="torch is not installed")
    named = [name for row in ROWS for name in row if not name.startswith("--")]
    covered = set()
    for name in named:
        pattern = re.escape(name).replace("S", "[123]").replace(r"\.B\.", r"\.[012]\.").replace(r"\.\*", r"\.\w+")
        found = {key for key in state.expected_shapes(pact=True) if re.fullmatch(pattern, key)}
        assert found, name
        covered |= found
    assert covered == set(state.expected_shapes(pact=True))
