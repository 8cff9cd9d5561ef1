"""What is written is what is read, bit for bit, and a file is a function of the trace alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgsim.arith.formats import NumberFormat
from pgsim.errors import InputError
from pgsim.io.trace import check_seal, digest_faults, load_trace, trace_file, write_trace
from pgsim.workload.layer import Layer
from pgsim.workload.trace import InMemory, Trace
from tests.build_trace import build_trace
from tests.io.tamper import digest, take_apart


def assert_same(one: Any, other: Any) -> None:
    """Compare records field by field, arrays exactly, dtype included."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    elif dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


@pytest.mark.parametrize("seed", range(5))
def test_a_trace_reads_back_as_it_was_written(seed: int, tmp_path: Path) -> None:
    trace = build_trace(seed, images=1 + seed)
    write_trace(tmp_path / "t.npz", trace)
    loaded = load_trace(tmp_path / "t.npz")
    assert_same(trace.layers, loaded.layers)
    assert (loaded.images, loaded.info) == (trace.images, trace.info)
    for index in range(len(trace.layers)):
        assert_same(trace.tensors(index), loaded.tensors(index))


def test_the_same_trace_gives_the_same_bytes(good_file: Path, tmp_path: Path) -> None:
    write_trace(tmp_path / "again.npz", load_trace(good_file))
    assert (tmp_path / "again.npz").read_bytes() == good_file.read_bytes()


def test_numpy_reads_the_file_and_finds_the_narrowest_dtypes(good_file: Path) -> None:
    parts = take_apart(good_file)
    dtypes = {name: parts.arrays[f"000.{name}"].dtype.name for name in ("activation", "weight", "output")}
    assert dtypes == {"activation": "int8", "weight": "int8", "output": "int32"}
    assert parts.arrays["002.weight"].dtype == np.int16  # sign-magnitude 8: +-255
    assert parts.arrays["005.activation"].dtype == np.uint8
    assert parts.arrays["006.activation"].shape == (2, 3, 5)
    assert parts.arrays["006.output"].shape == (2, 3, 4)
    assert parts.arrays["005.output"].shape == (2, 5)


def test_digests_and_seal_are_those_of_the_format_document(good_file: Path) -> None:
    parts = take_apart(good_file)
    assert parts.meta["sha256"] == {name: digest(array) for name, array in parts.arrays.items()}
    data = good_file.read_bytes()
    assert data[-77:] == b"pgsim-sha256:" + hashlib.sha256(data[:-79]).hexdigest().encode()
    check_seal(load_trace(good_file))


def test_members_are_dated_1980_and_carry_nothing_of_the_machine_that_wrote_them(good_file: Path) -> None:
    with zipfile.ZipFile(good_file) as archive:
        for info in archive.infolist():
            assert (info.date_time, info.create_system, info.external_attr) == ((1980, 1, 1, 0, 0, 0), 3, 0o644 << 16)
            assert (info.extra, info.comment, info.flag_bits) == (b"", b"", 0)


def test_the_identity_is_the_digest_of_the_metadata(good_file: Path) -> None:
    with np.load(good_file) as archive:
        meta = archive["meta"].tobytes()
        assert archive["meta_sha256"].tobytes() == hashlib.sha256(meta).digest()
    assert load_trace(good_file).sha256 == hashlib.sha256(meta).hexdigest()


def test_a_trace_of_numpy_savez_is_read_without_a_seal(good_file: Path, tmp_path: Path) -> None:
    parts = take_apart(good_file)
    del parts.meta["sealed"]
    text = json.dumps(parts.meta).encode()
    everything: dict[str, Any] = {**parts.arrays, "meta": np.frombuffer(text, np.uint8)}
    everything["meta_sha256"] = np.frombuffer(hashlib.sha256(text).digest(), np.uint8)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "numpy.npz", **everything)
        trace = load_trace(tmp_path / "numpy.npz")
        assert not trace_file(trace).sealed
        check_seal(trace)
        assert digest_faults(trace) == []
        assert_same(trace.tensors(3), load_trace(good_file).tensors(3))


def test_a_sealed_trace_that_lost_its_seal_is_found(good_file: Path, tmp_path: Path) -> None:
    with np.load(good_file) as archive:
        np.savez(tmp_path / "resaved.npz", **archive)
    with pytest.raises(InputError) as caught:
        check_seal(load_trace(tmp_path / "resaved.npz"))
    expected = "the archive's comment must be pgsim-sha256: and 64 digits, not something else"
    assert str(caught.value) == f"{tmp_path / 'resaved.npz'}: {expected}"


def test_a_seal_in_capitals_is_none(good_file: Path, tmp_path: Path) -> None:
    data = good_file.read_bytes()
    (tmp_path / "t.npz").write_bytes(data[:-64] + data[-64:].upper())
    with pytest.raises(InputError, match=r"the seal must be [0-9a-f]{64}, the file's SHA-256, not '"):
        check_seal(load_trace(tmp_path / "t.npz"))


def test_digest_faults_name_every_array_that_changed(good_file: Path, tmp_path: Path) -> None:
    parts = take_apart(good_file)
    parts.arrays["001.mask"][0, 0, 0, 0] ^= True
    parts.arrays["003.weight"][0, 0, 0, 0] ^= 1
    parts.write(tmp_path / "t.npz", refresh=False)
    faults = digest_faults(load_trace(tmp_path / "t.npz", digests=False))
    assert [fault.split(": ")[1].split()[0] for fault in faults] == ["001.mask", "003.weight"]
    with pytest.raises(InputError, match=r"003\.weight must have the SHA-256 of the metadata"):
        load_trace(tmp_path / "t.npz")


def test_a_loaded_trace_can_be_handed_to_another_process(good_file: Path) -> None:
    trace = load_trace(good_file)
    assert_same(pickle.loads(pickle.dumps(trace)).tensors(2), trace.tensors(2))


def test_info_can_be_replaced_in_writing(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.npz", build_trace(), info={"model": "other"})
    assert load_trace(tmp_path / "t.npz").info == {"model": "other"}


def test_loading_imports_neither_numba_nor_torch_nor_pandas() -> None:
    heavy = "{'numba', 'torch', 'pandas', 'rich', 'scipy', 'yaml', 'matplotlib'}"
    code = f"import sys, pgsim.io.trace; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def replaced(trace: Trace, index: int, **fields: Any) -> Trace:
    layers = list(trace.layers)
    layers[index] = dataclasses.replace(layers[index], **fields)
    return dataclasses.replace(trace, layers=tuple(layers))


def narrowed(layer: Layer) -> NumberFormat:
    return NumberFormat(layer.act.encoding, layer.act.bits - 1)


def test_a_trace_that_could_not_be_read_back_is_never_written(tmp_path: Path) -> None:
    trace = build_trace()
    assert isinstance(trace.source, InMemory)
    first = trace.source.items[0]
    wide = dataclasses.replace(trace.source, items=(dataclasses.replace(first, mask=first.output > 0),))
    cases: list[tuple[Trace, type[Exception], str]] = [
        (replaced(trace, 1, input_name="nobody"), ValueError, "layers\\[1\\].input must name codes"),
        (replaced(trace, 1, name="stem"), ValueError, "layers\\[1\\].name must differ"),
        (replaced(trace, 0, act_scale=float("nan")), ValueError, "JSON"),
        (replaced(trace, 0, act=narrowed(trace.layers[0])), InputError, "stem: activation must hold 7-bit"),
        (dataclasses.replace(trace, source=wide), ValueError, "stem: a mask must be there for a gated layer"),
        (dataclasses.replace(trace, images=3), ValueError, "stem: tensors must have shapes \\(3, 3, 8, 8\\)"),
    ]
    for bad, kind, message in cases:
        with pytest.raises(kind, match=message):
            write_trace(tmp_path / "t.npz", bad)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="JSON"):
        write_trace(tmp_path / "t.npz", trace, info={"top1": float("nan")})
