"""docs/trace-format.md and the code say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsim.io.npz import DEFAULT_MAX_BYTES, MAX_DEFLATE_RATIO, MAX_HEADER_BYTES
from pgsim.io.trace import (
    ACTIVATION_DTYPES,
    BOUNDARY_DTYPES,
    MAX_BOUNDARIES,
    MAX_LAYERS,
    OUTPUT_DTYPES,
    WEIGHT_DTYPES,
)
from pgsim.io.trace_boundary import boundary_record, parse_boundary
from pgsim.io.trace_document import FORMAT, VERSION
from pgsim.io.trace_meta import POST_KEYS, layer_record, parse_layer
from tests.io.tamper import take_apart

DOCUMENT = (Path(__file__).parents[2] / "docs" / "trace-format.md").read_text()
STEPS = DOCUMENT.split("## What follows a layer")[1].split("## Container")[0]


def zeros(name: str, dtypes: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> NDArray[Any]:
    value = 1 if name.endswith(("scale", "direction")) else 0
    return np.full(shapes[0], value, dtypes[0])


def test_the_example_is_metadata_that_is_read_and_written_as_it_stands(good_file: Path) -> None:
    example = json.loads(DOCUMENT.split("```json\n")[1].split("```")[0])
    assert (example["format"], example["version"]) == (FORMAT, VERSION)
    layer = parse_layer("doc", "layers[0]", example["layers"][0], "000", zeros, set())
    assert layer_record(layer) == example["layers"][0]
    assert list(take_apart(good_file).meta) == list(example)


def test_the_example_of_a_boundary_is_read_and_written_as_it_stands() -> None:
    (example,) = json.loads(DOCUMENT.split("## Tensors from outside")[1].split("```json\n")[1].split("```")[0])
    boundary = parse_boundary("doc", "boundaries[0]", example, "boundary.0", zeros)
    assert boundary_record(boundary) == example
    assert list(boundary_record(boundary)) == list(example)


def test_the_post_steps_and_their_keys_are_those_of_the_table() -> None:
    table = re.findall(r"^\| `(\w+)` \|([`\w, ]*)\|[^|]*\|[^|]*\|$", STEPS, re.MULTILINE)
    assert {op: tuple(re.findall(r"\w+", keys)) for op, keys in table} == POST_KEYS


def test_the_dtypes_are_those_of_the_table() -> None:
    rows = dict(re.findall(r"^\| `(iii\.\w+|boundary\.j)`[\w( )]* \| ([\w, ]+) \|", DOCUMENT, re.MULTILINE))
    named = {"iii.activation": ACTIVATION_DTYPES, "iii.weight": WEIGHT_DTYPES, "iii.output": OUTPUT_DTYPES}
    for name, dtypes in (named | {"boundary.j": BOUNDARY_DTYPES}).items():
        assert tuple(re.findall(r"u?int\d+", rows[name])) == dtypes


def test_the_limits_are_those_of_the_text() -> None:
    assert f"at most {MAX_DEFLATE_RATIO} to 1" in DOCUMENT
    assert f"1 .. {MAX_LAYERS} layers; at most {MAX_BOUNDARIES} boundaries" in DOCUMENT
    assert f"at most {MAX_HEADER_BYTES} bytes" in DOCUMENT
    assert f"default {DEFAULT_MAX_BYTES >> 30} GiB" in DOCUMENT


def test_the_digest_example_is_that_of_the_text() -> None:
    assert "`<i2:[16,16,3,3]:`" in DOCUMENT
    assert np.zeros((16, 16, 3, 3), np.int16).dtype.str == "<i2"


def test_the_command_line_has_the_reader_s_limit() -> None:
    from pgsim.cli import trace_options

    assert trace_options.DEFAULT_MAX_BYTES == DEFAULT_MAX_BYTES
