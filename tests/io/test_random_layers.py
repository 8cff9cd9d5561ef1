"""Any layer that the format can hold is written, read back and recomputed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
from pgsim.io.trace import load_trace, write_trace
from pgsim.io.trace_meta import MAX_BITS, MIN_BITS
from pgsim.model.verify import verify_trace
from pgsim.workload.layer import Geometry, LayerKind
from pgsim.workload.trace import InMemory, Trace
from tests.build_trace import Builder
from tests.io.test_trace_round_trip import assert_same


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    kind = draw(st.sampled_from(LayerKind))
    groups = draw(st.integers(1, 3)) if kind is LayerKind.CONV else 1
    channels = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    if kind is LayerKind.LINEAR:
        return Geometry(kind, *channels)
    if kind is LayerKind.MATMUL:
        return Geometry(kind, *channels, draw(st.integers(1, 5)))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, dilation = draw(pair), draw(pair)
    padding = draw(st.tuples(*[st.integers(0, 4)] * 4))
    least = [
        max(1, d * (k - 1) + 1 - before - after)
        for d, k, before, after in zip(dilation, kernel, padding[::2], padding[1::2], strict=True)
    ]
    height, width = (size + draw(st.integers(0, 5)) for size in least)
    return Geometry(kind, *channels, height, width, kernel, draw(pair), padding, dilation, groups)


def formats(*encodings: Encoding) -> st.SearchStrategy[NumberFormat]:
    return st.sampled_from(encodings).flatmap(
        lambda e: st.builds(NumberFormat, st.just(e), st.integers(MIN_BITS[e], MAX_BITS[e]))
    )


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    builder = Builder(draw(st.integers(0, 2**32)), draw(st.integers(1, 3)))
    act = draw(formats(*Encoding))
    builder.add(
        "only",
        draw(geometries()),
        act,
        pred_bits=draw(st.none() | st.integers(1, act.bits - 1)) if act.bits > 1 else None,
        policy=draw(st.sampled_from(GatePolicy)),
        weight_format=draw(formats(Encoding.SIGN_MAGNITUDE, Encoding.TWOS_COMPLEMENT)),
        delta=draw(st.booleans()),
    )
    return Trace(tuple(builder.layers), builder.images, InMemory(tuple(builder.items)))


@settings(max_examples=150, deadline=None)
@given(traces())
def test_any_layer_is_written_read_back_and_recomputed(trace: Trace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.npz"
        write_trace(path, trace)
        loaded = load_trace(path)
        assert_same(loaded.layers, trace.layers)
        assert_same(loaded.tensors(0), trace.tensors(0))
        assert verify_trace(loaded).equal
        with np.load(path) as archive:
            assert archive["000.output"].dtype == np.min_scalar_type(int(narrow(trace.tensors(0).output)))


def narrow(output: np.ndarray) -> int:
    """Return the negative number whose narrowest signed dtype holds every output."""
    return min(int(output.min()), -int(output.max()) - 1, -1)
