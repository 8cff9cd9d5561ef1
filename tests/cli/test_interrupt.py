"""Ctrl-C while `pgsim` starts: one line and exit code 130, whatever was being imported."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PRESSING = """
import os, signal, sys

class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000): pass
            except KeyboardInterrupt:
                {then}

sys.meta_path.insert(0, Press())
sys.argv = ["pgsim", "--version"]
"""
"""Presses Ctrl-C when the module `name` is looked for."""


def console_script() -> str:
    """What the console script of pyproject.toml runs."""
    with open(ROOT / "pyproject.toml", "rb") as stream:
        module, _, function = tomllib.load(stream)["project"]["scripts"]["pgsim"].partition(":")
    return f"from {module} import {function}\nsys.exit({function}())"


STARTS = {
    "console script": console_script(),
    "python -m": "import runpy; runpy.run_module('pgsim', run_name='__main__', alter_sys=True)",
}


def start(code: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("then", ["raise", "pass"])
@pytest.mark.parametrize("name", ["pgsim.cli.main", "argparse", "traceback", "pgsim.errors"])
def test_ctrl_c_during_an_import_is_one_line_and_130(name: str, then: str, how: str) -> None:
    pressing = PRESSING.format(name=name, then=then)
    assert start(pressing + STARTS[how]) == (130, "", "pgsim: interrupted\n")


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("name", ["pgsim.cli", "pgsim.cli.interrupt"])
def test_ctrl_c_is_one_line_and_130_before_it_can_be_remembered(name: str, how: str) -> None:
    pressing = PRESSING.format(name=name, then="raise")
    assert start(pressing + STARTS[how]) == (130, "", "pgsim: interrupted\n")


@pytest.mark.parametrize("how", STARTS)
def test_an_interrupted_start_without_standard_error_writes_nowhere(how: str) -> None:
    pressing = PRESSING.format(name="argparse", then="raise")
    assert start(f"{pressing}sys.stderr = None\n{STARTS[how]}") == (130, "", "")


def test_only_sys_is_imported_before_ctrl_c_is_answered() -> None:
    code = "import sys; before = set(sys.modules); import pgsim.__main__; print(sorted(set(sys.modules) - before))"
    assert start(code) == (0, "['__future__', 'pgsim', 'pgsim.__main__']\n", "")
