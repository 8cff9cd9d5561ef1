"""Recorded boundaries are written, read back, and refused word for word where they are wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgsim.errors import InputError
from pgsim.io.trace import BOUNDARY_DTYPES, digest_faults, load_trace, write_trace
from pgsim.model.verify import verify_trace
from pgsim.workload.boundary import Boundary
from pgsim.workload.trace import InMemory, Trace
from tests.build_boundary_trace import build_boundary_trace
from tests.build_trace import build_trace
from tests.io.read_all import message_of
from tests.io.tamper import Parts, digest, take_apart
from tests.io.test_trace_round_trip import assert_same


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a sealed trace with two boundaries; tests do not change it."""
    path = tmp_path_factory.mktemp("boundary") / "good.npz"
    write_trace(path, build_boundary_trace())
    return path


@pytest.mark.parametrize("seed", range(4))
def test_boundaries_read_back_as_they_were_written(seed: int, tmp_path: Path) -> None:
    trace = build_boundary_trace(seed, images=1 + seed)
    write_trace(tmp_path / "t.npz", trace)
    loaded = load_trace(tmp_path / "t.npz")
    assert_same(loaded.boundaries, trace.boundaries)
    assert_same(loaded.layers, trace.layers)
    for index in range(len(trace.boundaries)):
        assert_same(loaded.boundary(index), trace.boundary(index))
    assert verify_trace(loaded).equal
    write_trace(tmp_path / "again.npz", loaded)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "t.npz").read_bytes()


def test_numpy_reads_the_boundaries_and_the_metadata_names_their_digests(good: Path) -> None:
    parts = take_apart(good)
    assert list(parts.meta).index("boundaries") + 1 == list(parts.meta).index("layers")
    assert parts.meta["boundaries"] == [
        {
            "name": "entry",
            "channels": 4,
            "height": 6,
            "width": 6,
            "bits": 16,
            "signed": False,
            "requantise": {"name": "entry.codes", "encoding": "unsigned", "bits": 3, "base": 0},
        },
        {"name": "side", "channels": 3, "height": 5, "width": 5, "bits": 20, "signed": True, "requantise": None},
    ]
    assert parts.arrays["boundary.0"].dtype == np.uint16
    assert parts.arrays["boundary.1"].dtype == np.int32
    assert parts.arrays["boundary.0.threshold"].shape == (4, 7)
    for name in ("boundary.0", "boundary.0.threshold", "boundary.0.direction", "boundary.1"):
        assert parts.meta["sha256"][name] == digest(parts.arrays[name])


def test_a_trace_without_boundaries_has_no_such_key(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.npz", build_trace())
    parts = take_apart(tmp_path / "t.npz")
    assert "boundaries" not in parts.meta
    parts.meta["boundaries"] = []
    parts.write(tmp_path / "empty.npz")
    assert load_trace(tmp_path / "empty.npz").boundaries == ()


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 127, "int8"),
        (0, 255, "uint8"),
        (-1, 255, "int16"),
        (0, 65535, "uint16"),
        (0, 65536, "int32"),
        (-(2**31), 2**31 - 1, "int32"),
        (0, 2**31, "int64"),
        (-(2**62), 2**62 - 1, "int64"),
    ],
)
def test_the_values_take_the_narrowest_dtype(low: int, high: int, dtype: str, tmp_path: Path) -> None:
    trace = build_trace(images=2)
    values = np.array([low, high]).reshape(2, 1, 1, 1)
    boundary = Boundary("b", 1, 1, 1, 63, signed=True)
    assert isinstance(trace.source, InMemory)
    source = dataclasses.replace(trace.source, boundaries=(values,))
    write_trace(tmp_path / "t.npz", dataclasses.replace(trace, source=source, boundaries=(boundary,)))
    assert take_apart(tmp_path / "t.npz").arrays["boundary.0"].dtype == dtype
    assert_same(load_trace(tmp_path / "t.npz").boundary(0), values)
    assert dtype in BOUNDARY_DTYPES


def test_every_flip_in_a_boundary_is_found_by_its_digest(good: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("boundary.0", "boundary.1"):
        for _ in range(5):
            parts = take_apart(good)
            flat = parts.arrays[name].reshape(-1)
            flat[random.integers(flat.size)] ^= flat.dtype.type(1)
            parts.write(tmp_path / "t.npz", refresh=False)
            trace = load_trace(tmp_path / "t.npz", digests=False)
            assert [fault.split(": ")[1].split()[0] for fault in digest_faults(trace)] == [name]
            with pytest.raises(InputError, match=rf": {name} must have the SHA-256 of the metadata, "):
                load_trace(tmp_path / "t.npz").boundary(int(name[-1]))


Change = Callable[[Parts], object]


def put(index: int, key: str, value: Any) -> Change:
    return lambda parts: parts.meta["boundaries"][index].__setitem__(key, value)


def put_step(key: str, value: Any) -> Change:
    return lambda parts: parts.meta["boundaries"][0]["requantise"].__setitem__(key, value)


def put_layer(index: int, key: str, value: Any) -> Change:
    return lambda parts: parts.layer(index).__setitem__(key, value)


def put_post(index: int, position: int, key: str, value: Any) -> Change:
    return lambda parts: parts.layer(index)["post"][position].__setitem__(key, value)


def array(name: str, change: Callable[[np.ndarray], Any]) -> Change:
    return lambda parts: parts.arrays.__setitem__(name, change(parts.arrays[name].copy()))


def first_value(name: str, value: int) -> Change:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.int64)
        values.reshape(-1)[0] = value
        return values

    return array(name, change)


NAME_RULE = "must be a name of 1 to 200 printable ASCII characters without spaces or quotes"

WRONG: dict[str, tuple[Change, str]] = {
    # the list and its keys
    "a mapping": (lambda p: p.meta.update(boundaries={}), "boundaries must be a list, not a mapping"),
    "too many": (
        lambda p: p.meta.update(boundaries=p.meta["boundaries"] * 501),
        "boundaries must be a list of at most 1000 boundaries, not a list of 1002",
    ),
    "a number": (lambda p: p.meta["boundaries"].__setitem__(1, 7), "boundaries[1] must be a mapping, not 7"),
    "unknown key": (put(0, "scale", 0.5), "boundaries[0] must not have the key 'scale'"),
    "no channels": (
        lambda p: p.meta["boundaries"][0].pop("channels"),
        "boundaries[0].channels must be there, not missing",
    ),
    "no requantise": (
        lambda p: p.meta["boundaries"][1].pop("requantise"),
        "boundaries[1].requantise must be there, not missing",
    ),
    "name": (put(0, "name", "a b"), f"boundaries[0].name {NAME_RULE}, not 'a b'"),
    "channels 0": (put(0, "channels", 0), "boundaries[0].channels must be an integer from 1 to 1048576, not 0"),
    "height text": (put(0, "height", "6"), "boundaries[0].height must be an integer from 1 to 1048576, not '6'"),
    "width too large": (
        put(0, "width", 2**20 + 1),
        "boundaries[0].width must be an integer from 1 to 1048576, not 1048577",
    ),
    "bits 64": (put(0, "bits", 64), "boundaries[0].bits must be an integer from 1 to 63, not 64"),
    "bits true": (put(0, "bits", True), "boundaries[0].bits must be an integer from 1 to 63, not true"),
    "signed 0": (put(0, "signed", 0), "boundaries[0].signed must be true or false, not 0"),
    # the requantisation
    "requantise false": (put(0, "requantise", False), "boundaries[0].requantise must be a mapping, not false"),
    "an op": (put_step("op", "requantise"), "boundaries[0].requantise must not have the key 'op'"),
    "no base": (
        lambda p: p.meta["boundaries"][0]["requantise"].pop("base"),
        "boundaries[0].requantise.base must be there, not missing",
    ),
    "base": (put_step("base", 7), "boundaries[0].requantise.base must be an integer from 0 to 6, not 7"),
    "levels": (put_step("bits", 4), "boundary.0.threshold must have shape [1, 15] or [4, 15], not [4, 7]"),
    "unsorted": (
        array("boundary.0.threshold", lambda a: np.ascontiguousarray(a[:, ::-1])),
        "boundary.0.threshold must be sorted in each row, not {} before {} in row 0",
    ),
    "direction 0": (
        array("boundary.0.direction", np.zeros_like),
        "boundary.0.direction must hold 1 or -1, not 0",
    ),
    "no thresholds": (
        lambda p: p.arrays.pop("boundary.0.threshold"),
        "boundary.0.threshold must be there, not missing",
    ),
    # names and readers
    "name twice": (put(1, "name", "entry"), "boundaries[1].name must differ from those before it, not 'entry'"),
    "its own codes": (
        put_step("name", "entry"),
        "boundaries[0].requantise.name must differ from those before it, not 'entry'",
    ),
    "a step's name": (
        put_post(1, 3, "name", "side"),
        "layers[1].post[3].name must differ from those before it, not 'side'",
    ),
    "a boundary as input": (
        put_layer(0, "input", "entry"),
        "layers[0].input must name codes of an earlier layer or of a boundary, not 'entry'",
    ),
    "codes as shortcut": (
        put_post(1, 1, "source", "entry.codes"),
        "layers[1].post[1].source must name a shortcut that an earlier step saves or a boundary, not 'entry.codes'",
    ),
    "codes of another shape": (
        put_layer(4, "input", "entry.codes"),
        "layers[4].input must name codes of shape [6, 1, 1] an image, not 'entry.codes' of [4, 6, 6]",
    ),
    "codes of another format": (
        lambda p: p.layer(0)["activation"].update(encoding="sign_magnitude"),
        "layers[0].input must name 3-bit sign_magnitude codes, not 3-bit unsigned 'entry.codes'",
    ),
    "shortcut of another shape": (
        put_post(1, 1, "source", "side"),
        "layers[1].post[1].source must give shape [4, 6, 6] an image, not [3, 5, 5]",
    ),
    # the array
    "missing array": (lambda p: p.arrays.pop("boundary.1"), "boundary.1 must be there, not missing"),
    "a second array": (
        lambda p: p.arrays.update({"boundary.2": p.arrays["boundary.1"]}),
        "the archive must hold only members that the metadata calls for, not boundary.2",
    ),
    "thresholds of none": (
        lambda p: p.arrays.update({"boundary.1.threshold": p.arrays["boundary.0.threshold"]}),
        "the archive must hold only members that the metadata calls for, not boundary.1.threshold",
    ),
    "shape": (
        array("boundary.1", lambda a: a[:, :, :, 1:].copy()),
        "boundary.1 must have shape [2, 3, 5, 5], not [2, 3, 5, 4]",
    ),
    "images": (
        array("boundary.1", lambda a: a[:1]),
        "boundary.1 must have shape [2, 3, 5, 5], not [1, 3, 5, 5]",
    ),
    "floats": (
        array("boundary.1", lambda a: a.astype(np.float64)),
        "boundary.1 must be int8 or uint8 or int16 or uint16 or int32 or int64, not float64",
    ),
    "uint32": (
        array("boundary.1", lambda a: a.astype(np.uint32)),
        "boundary.1 must be int8 or uint8 or int16 or uint16 or int32 or int64, not uint32",
    ),
    "big-endian": (
        array("boundary.1", lambda a: a.astype(">i4")),
        "boundary.1 must be int8 or uint8 or int16 or uint16 or int32 or int64, not big-endian int32",
    ),
    "Fortran order": (
        array("boundary.1", np.asfortranarray),
        "boundary.1 must be in C order, not in Fortran order",
    ),
    "value above": (
        first_value("boundary.0", 65536),
        "boundary.0 must fit 16 unsigned bits, 0 .. 65535, not 65536",
    ),
    "value below": (first_value("boundary.0", -1), "boundary.0 must fit 16 unsigned bits, 0 .. 65535, not -1"),
    "signed value": (
        first_value("boundary.1", 2**19),
        "boundary.1 must fit 20 signed bits, -524288 .. 524287, not 524288",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_boundary_is_refused_with_its_place_and_reason(case: str, good: Path, tmp_path: Path) -> None:
    change, expected = WRONG[case]
    parts = take_apart(good)
    change(parts)
    parts.write(tmp_path / "bad.npz")
    if case == "unsorted":
        expected = expected.format(*parts.arrays["boundary.0.threshold"][0, :2])
    assert message_of(tmp_path / "bad.npz") == f"FILE: {expected}"


def test_a_digest_that_is_missing_is_refused(good: Path, tmp_path: Path) -> None:
    parts = take_apart(good)
    del parts.meta["sha256"]["boundary.1"]
    parts.write(tmp_path / "t.npz", refresh=False)
    assert message_of(tmp_path / "t.npz", digests=False) == "FILE: sha256.boundary.1 must be there, not missing"


def test_boundaries_that_could_not_be_read_back_are_never_written(tmp_path: Path) -> None:
    trace = build_boundary_trace()
    assert isinstance(trace.source, InMemory)
    narrow = dataclasses.replace(trace.boundaries[1], bits=4)
    lost = dataclasses.replace(trace.source, boundaries=(trace.boundary(0), trace.boundary(1)[:1]))
    cases: list[tuple[Trace, type[Exception], str]] = [
        (
            dataclasses.replace(trace, boundaries=(trace.boundaries[0], narrow)),
            InputError,
            "side must fit 4 signed bits",
        ),
        (
            dataclasses.replace(trace, source=lost),
            ValueError,
            r"side: values must have shape \(2, 3, 5, 5\), not \(1, ",
        ),
        (
            dataclasses.replace(trace, boundaries=trace.boundaries[:1]),
            ValueError,
            r"layers\[3\]\.post\[1\]\.source must",
        ),
    ]
    for bad, kind, message in cases:
        with pytest.raises(kind, match=message):
            write_trace(tmp_path / "t.npz", bad)
        assert list(tmp_path.iterdir()) == []
