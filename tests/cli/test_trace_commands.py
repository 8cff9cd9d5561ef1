"""pgsim info, validate and verify, as a user meets them."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pgsim.cli.main import main
from pgsim.io.trace import load_trace, write_trace
from tests.build_trace import build_trace
from tests.io.tamper import repack, take_apart


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "small.npz"
    write_trace(path, build_trace(1), info={**build_trace(1).info, "top1": 91.25, "notes": "line\nbreak"})
    return path


def pgsim(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """Run the command; return exit code, stdout and stderr, the latter one line at most."""
    code = main([str(part) for part in argv])
    out, err = capsys.readouterr()
    assert err.count("\n") <= 1
    assert "Traceback" not in err
    return code, out, err


INFO = """\
trace      small.npz
model      small
data set   random
notes      'line\\nbreak'
images     2: 0, 1
accuracy   91.25 % top-1 on the full test set; 2 of 2 images of the trace as recorded
"""


def test_info_describes_the_trace(
    trace_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trace_file.parent)
    code, out, err = pgsim(capsys, "info", "small.npz")
    assert (code, err) == (0, "")
    assert out.startswith(INFO)
    lines = out.splitlines()
    assert re.fullmatch(r"size       [\d,]+ bytes, [\d,]+ expanded, 66 members, sealed", lines[6])
    assert lines[7] == f"sha256     {load_trace('small.npz').sha256}"
    rows = [" ".join(line.split()) for line in lines[9:18]]
    sparsity = []
    for index, layer in enumerate(build_trace(1).layers):
        mask = build_trace(1).tensors(index).mask
        sparsity.append("-" if mask is None else f"{100 * (1 - mask.mean()):.2f} %")
        assert layer.name in rows[index + 1]
    assert rows == [
        "# layer kind input output kernel activation gate weight MACs/image sparsity",
        f"0 stem conv 3x8x8 4x8x8 3x3 pad 1 s8 - s8 6,912 {sparsity[0]}",
        f"1 keep conv 4x8x8 4x8x8 3x3 pad 1 u3/2 keep s8 9,216 {sparsity[1]}",
        f"2 zero conv 4x8x8 4x8x8 1x1 sm3/1 zero sm8 1,024 {sparsity[2]}",
        f"3 depthwise conv 4x8x8 4x4x4 3x3 stride 2 pad 1 groups 4 s4/2 keep s8 576 {sparsity[3]}",
        f"4 grouped conv 4x4x4 6x4x4 1x3 pad 0x0x3x1 dilation 1x2 groups 2 u4 - s8 576 {sparsity[4]}",
        f"5 classifier linear 24x1x1 5x1x1 1x1 u8/4 keep s8 120 {sparsity[5]}",
        f"6 rows matmul 5x3x1 4x3x1 1x1 u4/2 keep s8 60 {sparsity[6]}",
        f"7 head linear 12x1x1 3x1x1 1x1 u4 - s8 36 {sparsity[7]}",
    ]
    assert "18,520 MACs an image in 8 layers, 59.37 % of them in 5 gated layers" in lines
    assert len({len(line) for line in lines[9:18]} - {len(lines[9])}) <= 1


def test_info_of_a_hardware_file_is_that_of_hw_show(capsys: pytest.CaptureFixture[str]) -> None:
    shipped = sorted(Path(__file__).parents[2].glob("hwconfigs/*.yaml"))
    if not shipped:
        pytest.skip("no hardware file is shipped")
    code, out, _ = pgsim(capsys, "info", shipped[0])
    assert (code, out) == (0, pgsim(capsys, "hw", "show", shipped[0])[1])


def test_validate_reads_everything(
    trace_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trace_file.parent)
    code, out, err = pgsim(capsys, "validate", "small.npz")
    assert (code, err) == (0, "")
    pattern = r"small\.npz: valid \(8 layers, 2 images, 66 members, [\d,]+ bytes expanded, sealed\)\n"
    assert re.fullmatch(pattern, out)


def test_validate_refuses_what_only_reading_shows(
    trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = take_apart(trace_file)
    parts.arrays["003.activation"][0, 0, 0, 0] = 8
    path = tmp_path / "t.npz"
    parts.write(path)
    expected = f"pgsim: error: {path}: 003.activation must hold 4-bit twos_complement codes, -8 .. 7, not 8\n"
    assert pgsim(capsys, "validate", path) == (2, "", expected)


def test_validate_finds_a_broken_seal(trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(trace_file.read_bytes()[:-1] + b"?")
    code, _, err = pgsim(capsys, "validate", path)
    assert code == 2
    assert "the seal must be " in err


def test_max_bytes_bounds_what_is_expanded(trace_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("info", "validate", "verify"):
        code, out, err = pgsim(capsys, command, trace_file, "--max-bytes", "1000")
        expected = f"pgsim: error: {trace_file}: the trace must expand to at most 1000 bytes (--max-bytes), not more\n"
        assert (code, out, err) == (2, "", expected)


@pytest.mark.parametrize("number", ["0", "-1", "1e9", "1_000", "\u0661", "9" * 30])
def test_max_bytes_is_a_whole_number(number: str, trace_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = pgsim(capsys, "info", trace_file, f"--max-bytes={number}")
    assert (code, out) == (2, "")
    assert f"must be a whole number above 0 of at most 18 digits, not {number!r}" in err


def test_verify_reports_container_digests_and_recomputation_apart(
    trace_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trace_file.parent)
    code, out, err = pgsim(capsys, "verify", "small.npz")
    assert (code, err) == (0, "")
    size = f"{trace_file.stat().st_size:,}"
    assert out.splitlines() == [
        "small.npz",
        f"container      ok: 66 members, {size} bytes, sealed",
        "digests        ok: 65 arrays have their SHA-256",
        "recomputation  ok: 8 layers, 1,896 outputs and 1,186 mask bits equal by reference, fast, simulator; "
        "1,736 codes by the post steps; 8 thresholds by delta; 2 of 2 images classified right",
    ]


def test_verify_takes_one_engine_and_some_layers(trace_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = pgsim(capsys, "verify", trace_file, "--engine", "fast", "--layers", "keep", "head", "--no-digest")
    assert code == 0
    assert out.splitlines()[1].endswith("bytes, seal not checked")
    assert out.splitlines()[2:] == [
        "digests        not checked",
        "recomputation  ok: 2 layers, 518 outputs and 512 mask bits equal by fast; post steps not followed (--layers)",
    ]


def test_verify_refuses_a_machine_that_is_not_decoupled_before_any_work(
    trace_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = (2, "", "pgsim: error: --hw must be a decoupled machine, not dense (dense_int8)\n")
    assert pgsim(capsys, "verify", "--hw", "dense_int8", trace_file) == expected


def test_verify_refuses_a_layer_that_is_none(trace_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = f"--layers must name layers of the trace, not 'nobody'; list them with pgsim info {trace_file}"
    assert pgsim(capsys, "verify", trace_file, "--layers", "nobody") == (2, "", f"pgsim: error: {expected}\n")


@pytest.mark.parametrize("refresh", [True, False], ids=["digests rewritten", "digests kept"])
@pytest.mark.parametrize("name", [f"{i:03d}.output" for i in range(8)] + [f"{i:03d}.mask" for i in (1, 2, 3, 5, 6)])
def test_without_digests_a_flip_in_an_output_or_mask_is_still_found(
    name: str, refresh: bool, trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = take_apart(trace_file)
    index, member = int(name[:3]), name[4:]
    flat = parts.arrays[name].reshape(-1)
    place = np.random.default_rng(index).integers(flat.size)
    flat[place] ^= flat.dtype.type(1)
    path = tmp_path / "t.npz"
    parts.write(path, refresh=refresh)
    for engine in ("reference", "fast", "simulator", "all"):
        code, out, _ = pgsim(capsys, "verify", path, "--no-digest", "--engine", engine)
        assert code == 1
        first = out.splitlines()[-1]
        where = load_trace(path, digests=False).layers[index].name
        assert re.match(rf"{where}: {member}\[\d+,\d+,\d+,\d+\] is -?\d+ in the trace, -?\d+ by ", first)
        assert re.search(r"\(A_h = -?\d+(, A_l = -?\d+, T = -?\d+)?\)$", first)
    code, out, _ = pgsim(capsys, "verify", path)
    assert code == 1
    assert ("must have the SHA-256" in out.splitlines()[2]) is not refresh


def test_the_mismatch_is_printed_with_both_values_and_both_sums(
    trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = take_apart(trace_file)
    parts.arrays["001.output"][1, 2, 3, 4] += 1
    path = tmp_path / "t.npz"
    parts.write(path)
    code, out, _ = pgsim(capsys, "verify", path)
    trace = build_trace(1)
    right = int(trace.tensors(1).output[1, 2, 3, 4])
    mask, gate = trace.tensors(1).mask, trace.layers[1].gate
    assert code == 1
    assert out.splitlines()[3] == "recomputation  3 integers differ in 1 of 8 layers; the first:"
    start = f"keep: output[1,2,3,4] is {right + 1} in the trace, {right} by reference (A_h = "
    assert out.splitlines()[4].startswith(start)
    sums = re.search(r"\(A_h = (-?\d+), A_l = (-?\d+), T = (-?\d+)\)", out.splitlines()[4])
    assert sums
    assert mask is not None
    assert gate is not None
    assert int(sums[3]) == gate.threshold[2]
    assert right == 2 * int(sums[1]) + int(sums[2]) * int(mask[1, 2, 3, 4])
    assert bool(mask[1, 2, 3, 4]) == (int(sums[1]) > int(sums[3]))


def test_a_post_step_that_overflows_is_refused_with_file_and_step(
    trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = take_apart(trace_file)
    parts.arrays["000.post.0.multiplier"][:] = 2**62
    path = tmp_path / "t.npz"
    parts.write(path)
    code, _, err = pgsim(capsys, "verify", path)
    assert code == 2
    assert err.startswith(f"pgsim: error: {path}: layers[0].post[0]: fixed_point must stay within int64, not reach ")


def test_of_several_traces_each_is_reported_and_one_that_is_wrong_decides(
    trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, alone, _ = pgsim(capsys, "verify", trace_file)
    parts = take_apart(trace_file)
    parts.arrays["001.output"][1, 2, 3, 4] += 1
    wrong = tmp_path / "wrong.npz"
    parts.write(wrong)
    _, broken, _ = pgsim(capsys, "verify", wrong)
    assert pgsim(capsys, "verify", trace_file, trace_file)[:2] == (0, f"{alone}\n{alone}")
    assert pgsim(capsys, "verify", trace_file, wrong)[:2] == (1, f"{alone}\n{broken}")
    assert pgsim(capsys, "verify", wrong, trace_file)[:2] == (1, f"{broken}\n{alone}")


def test_a_resaved_trace_is_right_but_for_its_seal(
    trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.npz"
    with np.load(trace_file) as archive:
        np.savez(path, **archive)
    code, out, _ = pgsim(capsys, "verify", path)
    assert code == 1
    assert out.splitlines()[1].startswith(f"container      {path}: the archive's comment must be pgsim-sha256: ")
    assert [line.split()[1] for line in out.splitlines()[2:]] == ["ok:", "ok:"]
    assert pgsim(capsys, "verify", path, "--no-digest")[0] == 0


def test_a_changed_array_that_decides_no_integer_is_found_by_its_digest_alone(
    trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = take_apart(trace_file)
    parts.arrays["003.weight_scale"] *= 2
    path = tmp_path / "t.npz"
    parts.write(path, refresh=False)
    code, out, _ = pgsim(capsys, "verify", path, "--engine", "fast")
    assert code == 1
    assert out.splitlines()[1].endswith(", no seal")
    assert out.splitlines()[2].startswith(
        f"digests        {path}: 003.weight_scale must have the SHA-256 of the metadata"
    )
    assert out.splitlines()[3].startswith("recomputation  ok: 8 layers")
    assert pgsim(capsys, "verify", path, "--engine", "fast", "--no-digest")[0] == 0


def special_offsets(data: bytes) -> Iterator[int]:
    """Yield each byte of three members' headers and directory entries, of the archive's end and of its comment."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos, entry = archive.infolist(), archive.start_dir
    for number, info in enumerate(infos):
        length = len(info.filename)
        if number in (0, 1, len(infos) - 2):
            yield from range(info.header_offset, info.header_offset + 30 + length + 40)
            yield from range(entry, entry + 46 + length)
        else:
            yield info.header_offset + 30 + length  # the first byte of the packed data
            yield info.header_offset + 30 + length + info.compress_size - 1
        entry += 46 + length
    yield from range(entry, len(data))


def test_a_flipped_bit_anywhere_in_a_sealed_trace_is_found(
    trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = trace_file.read_bytes()
    source = random.Random(20)
    bits = [8 * offset + source.randrange(8) for offset in special_offsets(data)]
    bits += [8 * (len(data) - back) + bit for back in (78, 79, 77, 64, 1) for bit in range(8)]
    bits += [source.randrange(8 * len(data)) for _ in range(300)]
    path = tmp_path / "t.npz"
    found = {1: 0, 2: 0}
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        code, out, err = pgsim(capsys, "verify", path, "--engine", "fast")
        assert code in found, f"bit {bit}: {out}{err}"
        assert err.startswith("pgsim: error: ") == (code == 2)
        found[code] += 1
    assert found[1] > 100  # the seal alone
    assert found[2] > 300


def test_a_trace_cut_anywhere_is_refused(trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = trace_file.read_bytes()
    path = tmp_path / "t.npz"
    for length in [*range(0, len(data), 997), len(data) - 1, len(data) - 77, len(data) - 78, len(data) - 99]:
        path.write_bytes(data[:length])
        code, _, err = pgsim(capsys, "verify", path, "--engine", "fast")
        assert code in (1, 2), length
        assert err.startswith("pgsim: error: ") == (code == 2)


def test_an_array_that_is_not_readable_ends_verify_with_one_line(
    trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(repack(trace_file.read_bytes(), "004.output.npy", b"nothing at all, and then some"))
    expected = f"pgsim: error: {path}: 004.output must be a .npy array, not other bytes\n"
    assert pgsim(capsys, "verify", path) == (2, "", expected)


@pytest.mark.parametrize("name", ["predictivenet", "predictivenet.yaml"])
def test_info_and_validate_take_a_shipped_hardware_file_by_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = pgsim(capsys, "info", name)
    assert (code, out.splitlines()[0].split()) == (0, ["name", "predictivenet"])
    expected = f"{name}: valid (decoupled, energy tables 45nm_low_leakage, 45nm_calibrated_codes)\n"
    assert pgsim(capsys, "validate", name) == (0, expected, "")
