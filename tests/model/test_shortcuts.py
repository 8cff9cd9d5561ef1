"""Shortcuts of odd size, and tensors that nobody reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.io.trace import load_trace, write_trace
from pgsim.model.inference import infer
from pgsim.model.verify import verify_trace
from pgsim.workload.layer import AddShortcut, Geometry, LayerKind, Logits, SaveShortcut
from pgsim.workload.trace import InMemory, Trace
from tests.build_trace import Builder, requantise, step

UNSIGNED3 = NumberFormat(Encoding.UNSIGNED, 3)


def odd_network() -> tuple[Trace, Builder]:
    """A 5 x 7 map, subsampled to 3 x 4 by a shortcut; a shortcut and codes that no layer reads."""
    builder = Builder(0, 2)
    first = [step(SaveShortcut("read", 32, signed=True)), requantise("codes", UNSIGNED3)]
    unread = [step(SaveShortcut("unread", 32, signed=True)), requantise("unread.codes", UNSIGNED3)]
    builder.add("first", Geometry(LayerKind.CONV, 2, 3, 5, 7), UNSIGNED3, pred_bits=2, post=first + unread)
    strided = Geometry(LayerKind.CONV, 3, 4, 5, 7, (3, 3), (2, 2), (1, 1, 1, 1))
    second = [step(AddShortcut("read", 2, 1, 0)), step(Logits("map", 1.0))]
    builder.add("second", strided, UNSIGNED3, pred_bits=1, input_name="codes", post=second)
    return Trace(tuple(builder.layers), 2, InMemory(tuple(builder.items))), builder


def test_a_shortcut_of_odd_size_keeps_its_last_row_and_column(tmp_path: Path) -> None:
    trace, builder = odd_network()
    write_trace(tmp_path / "t.npz", trace)
    result = infer(load_trace(tmp_path / "t.npz"))
    assert result.equal
    assert result.logits["map"].shape == (2, 4, 3, 4)
    assert np.array_equal(result.logits["map"], builder.logits["map"])


def test_what_nobody_reads_is_no_trouble() -> None:
    assert verify_trace(odd_network()[0]).equal
