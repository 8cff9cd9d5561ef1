"""The `pgsim` command itself: help, exit codes, one line for every error, and what it does without."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest

import pgsim
from pgsim.cli import main as command
from pgsim.cli.main import COMMANDS, main
from pgsim.errors import InputError, MismatchError

HEAVY = ("torch", "matplotlib", "pandas", "pyarrow", "numba", "rich", "numpy", "yaml")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def pgsim_process(*words: str, code: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", code] if code else [sys.executable, "-m", "pgsim", *words]
    options = {"capture_output": True, "text": True, "env": ENVIRONMENT, "timeout": 300, **options}
    return subprocess.run(line, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_help_lists_every_command_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    captured = capsys.readouterr()
    for name, (_, summary) in COMMANDS.items():
        assert f"\n  {name:<8}  {summary}\n" in captured.out
    assert captured.err == ""


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pgsim {pgsim.__version__}\n"


def test_python_m_pgsim_is_pgsim() -> None:
    done = pgsim_process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pgsim {pgsim.__version__}\n", "")


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_the_command_by_itself_imports_nothing_heavy(words: list[str]) -> None:
    code = f"""
import sys
from pgsim.cli.main import main
assert main({words!r}) == 0
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    assert pgsim_process(code=code).stderr == "[]\n"


def test_importing_pgsim_imports_nothing_heavy() -> None:
    done = pgsim_process(code=f"import sys, pgsim; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_commands_help_works_without_anything_heavy_installed(name: str) -> None:
    if importlib.util.find_spec(COMMANDS[name][0]) is None:
        pytest.fail(f"{COMMANDS[name][0]} is not there")
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from pgsim.cli.main import main
sys.exit(main([{name!r}, "--help"]))
"""
    done = pgsim_process(code=code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: pgsim {name} ")
    summary = COMMANDS[name][1]
    assert " ".join((summary[0].upper() + summary[1:]).split()) in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            [],
            "a command must be given: run, info, validate, verify, hw, train, trace, options, paper, rtl, cosim "
            "(see pgsim --help)",
        ),
        (
            ["rnu"],
            "the command must be one of run, info, validate, verify, hw, train, trace, options, paper, rtl, cosim, "
            "not 'rnu'; did you mean run? (see pgsim --help)",
        ),
        (
            ["x\ny"],
            "the command must be one of run, info, validate, verify, hw, train, trace, options, paper, rtl, cosim, "
            "not 'x\\ny' (see pgsim --help)",
        ),
        (["--hw"], "unknown option --hw (see pgsim --help)"),
        (["--hw", "run"], "the command must come first, before --hw (see pgsim --help)"),
        (["run"], "the following arguments are required: --hw, FILE (see pgsim run --help)"),
        (["run", "--hw", "x", "t.npz", "--out"], "unrecognized arguments: --out (see pgsim run --help)"),
    ],
)
def test_a_wrong_call_gets_one_line_and_exit_code_2(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"pgsim: error: {line}\n")


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let every command raise `error`."""

    def run(_: object) -> int:
        raise error

    module = SimpleNamespace(configure=lambda parser: None, run=run)
    monkeypatch.setattr(command.importlib, "import_module", lambda name: module)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("x.npz: a must be b"), 2, "error: x.npz: a must be b"),
        (InputError("two\nlines \x1b[31m"), 2, "error: two lines \\x1b[31m"),
        (MismatchError("they differ"), 1, "error: they differ"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "out.csv"), 2, "error: out.csv: No space left on device"),
        (OSError("odd"), 2, "error: odd"),
        (MemoryError(), 2, "error: not enough memory; fewer images a trace, or a smaller batch, take less"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 160000000000 bytes"),
            2,
            "error: not enough memory; fewer images a trace, or a smaller batch, take less",
        ),
    ],
)
def test_an_error_becomes_one_line_and_its_exit_code(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, error)
    monkeypatch.setattr(command, "_drop_stdout", lambda: None)
    assert main(["run"]) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"pgsim: {line}\n")


def test_a_bug_of_pgsim_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, RuntimeError("x"))
    assert main(["run"]) == 70
    capsys.readouterr()
    raising(monkeypatch, AssertionError("sums differ"))
    assert main(["run"]) == 70
    captured = capsys.readouterr()
    assert captured.err.startswith("Traceback (most recent call last):\n")
    assert "\nAssertionError: sums differ\npgsim: this is a bug of pgsim; " in captured.err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_standard_output_gets_one_line_and_exit_code_2() -> None:
    with open("/dev/full", "w") as full:
        done = pgsim_process("hw", "list", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, "pgsim: error: No space left on device\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = pgsim_process("hw", "list", capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed_from_the_start_costs_only_its_text(closed: str) -> None:
    line = f"{shlex.quote(sys.executable)} -m pgsim hw list {closed}"
    done = subprocess.run(["sh", "-c", line], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, bool(done.stdout)) == (0, "", closed == "2>&-")


SWALLOWED = """
import os, signal, sys
from types import SimpleNamespace
from pgsim.cli import main as command
from pgsim.cli.progress import {progress} as progress

def run(args):
    with progress("task", 1) if {progress!r} == "steps" else progress("task") as advance:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000): pass
        except KeyboardInterrupt:
            {then}
    print("went on")
    return 0

command.importlib.import_module = lambda name: SimpleNamespace(configure=lambda parser: None, run=run)
sys.exit(command.main(["run"]))
"""


@pytest.mark.parametrize("progress", ["steps", "amounts"])
@pytest.mark.parametrize("then", ["pass", "raise SystemError('returned a result with an exception set')"])
def test_an_interrupt_that_compiled_code_swallows_still_ends_the_command(progress: str, then: str) -> None:
    done = pgsim_process(code=SWALLOWED.format(progress=progress, then=then))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "pgsim: interrupted\n")


def test_output_that_a_terminal_cannot_show_is_escaped() -> None:
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    code = "from pgsim.cli.main import main; import sys; main(['--version']); print('caf\\u00e9')"
    assert pgsim_process(code=code, env=environment).stdout.endswith("caf\\xe9\n")
