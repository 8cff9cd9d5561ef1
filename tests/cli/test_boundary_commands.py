"""pgsim info, validate, verify and run on a trace that begins with recorded boundaries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pgsim.cli.main import main
from pgsim.io.trace import load_trace, write_trace
from tests.build_boundary_trace import build_boundary_trace, changed_value
from tests.io.tamper import take_apart


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "no_stem.npz"
    write_trace(path, build_boundary_trace(1))
    return path


def pgsim(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main([str(part) for part in argv])
    return code, *capsys.readouterr()


def test_info_shows_each_boundary_and_who_reads_it(trace_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = pgsim(capsys, "info", trace_file)
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("boundary")] == [
        "boundary   entry: 4x6x6, 16 unsigned bits; u3 codes entry.codes read by first, branch; "
        "added by second, branch",
        "boundary   side: 3x5x5, 20 signed bits; added by third",
    ]


def test_validate_reads_the_boundaries(trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pgsim(capsys, "validate", trace_file)[0] == 0
    parts = take_apart(trace_file)
    parts.arrays["boundary.1"][0, 0, 0, 0] = 2**19
    path = tmp_path / "t.npz"
    parts.write(path)
    expected = f"pgsim: error: {path}: boundary.1 must fit 20 signed bits, -524288 .. 524287, not 524288\n"
    assert pgsim(capsys, "validate", path) == (2, "", expected)
    code, _, err = pgsim(capsys, "verify", path)
    assert (code, err) == (2, expected)


def test_verify_recomputes_from_the_boundaries(trace_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = pgsim(capsys, "verify", trace_file)
    assert code == 0
    codes = 2 * (4 * 36 * 4 + 6)  # first, second, branch, third; classifier
    assert f"; {codes:,} codes by the post steps; 4 thresholds by delta; 2 of 2 images" in out.splitlines()[-1]


@pytest.mark.parametrize("refresh", [True, False], ids=["digests rewritten", "digests kept"])
def test_a_flip_in_a_boundary_is_found_by_digest_and_by_recomputation(
    refresh: bool, trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = take_apart(trace_file)
    trace, where = load_trace(trace_file), (1, 0, 5, 5)
    parts.arrays["boundary.0"][where] = changed_value(trace, 0, where)
    path = tmp_path / "t.npz"
    parts.write(path, refresh=refresh)
    code, out, _ = pgsim(capsys, "verify", path, "--engine", "fast")
    assert code == 1
    assert (f"digests        {path}: boundary.0 must have the SHA-256" in out) is not refresh
    right = int(trace.tensors(0).activation[where])
    assert f"\nfirst: codes[1,0,5,5] is {right} in the trace, " in out
    assert out.endswith(" by boundary entry\n")
    assert pgsim(capsys, "verify", path, "--engine", "fast", "--no-digest")[0] == 1


def test_a_flip_that_changes_no_code_is_found_by_its_digest_alone(
    trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = take_apart(trace_file)
    parts.arrays["boundary.1"][0, 0, 1, 1] ^= np.int32(1)  # between the rows and columns that the stride takes
    path = tmp_path / "t.npz"
    parts.write(path, refresh=False)
    code, out, _ = pgsim(capsys, "verify", path, "--engine", "fast")
    assert code == 1
    assert "boundary.1 must have the SHA-256" in out
    assert "\nrecomputation  ok: 5 layers" in out


def test_run_takes_a_boundary_network_through_a_shipped_machine(
    trace_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = pgsim(capsys, "run", trace_file, "--hw", "predictivenet")
    assert code == 0
    assert "second" in out
