"""Codes that move channel by channel as they are stored: the shift networks' operation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pgsim.api import load_accelerator, simulate
from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.arith.post import move_channels
from pgsim.errors import InputError
from pgsim.io.trace import load_trace, write_trace
from pgsim.model.inference import infer
from pgsim.model.verify import verify_trace
from pgsim.rtl.network import cosimulate, make_network
from pgsim.workload.layer import Geometry, LayerKind, Logits, Requantise
from pgsim.workload.trace import Trace
from tests.arith.drawn import examples
from tests.build_trace import Builder, moved, requantise, step
from tests.io.read_all import message_of
from tests.io.tamper import Parts, take_apart
from tests.rtl.machine_cases import needs_compiler

UNSIGNED4 = NumberFormat(Encoding.UNSIGNED, 4)
SHIFT = np.array([[0, 0], [1, 0], [-1, 1], [0, -2], [9, 0], [0, -6]], np.int8)


def build_shift_trace(seed: int = 0, images: int = 2) -> Trace:
    """Expand by a gated 1 x 1 convolution, shift, project at stride 2: the block of a shift network."""
    b = Builder(seed, images)
    b.add(
        "expand",
        Geometry(LayerKind.CONV, 3, 6, 5, 6),
        UNSIGNED4,
        pred_bits=2,
        post=[requantise("expand.codes", UNSIGNED4, shift=SHIFT)],
    )
    b.add(
        "project",
        Geometry(LayerKind.CONV, 6, 4, 5, 6, stride=(2, 2)),
        UNSIGNED4,
        input_name="expand.codes",
        post=[step(Logits("scores", 0.5))],
    )
    return b.trace({})


def test_codes_move_by_rows_and_columns_and_leave_zeros_behind() -> None:
    codes = np.arange(1, 7).reshape(1, 1, 2, 3).repeat(4, axis=1)
    shift = np.array([[0, 0], [1, 0], [0, -1], [-1, 2]], np.int8)
    assert move_channels(codes, shift)[0].tolist() == [
        [[1, 2, 3], [4, 5, 6]],
        [[0, 0, 0], [1, 2, 3]],
        [[2, 3, 0], [5, 6, 0]],
        [[0, 0, 4], [0, 0, 0]],
    ]


@examples(100)
@given(
    codes=hnp.arrays(np.int64, st.tuples(*[st.integers(1, 5)] * 4), elements=st.integers(-128, 127)),
    data=st.data(),
)
def test_every_code_lands_where_a_walk_over_the_places_puts_it(codes: np.ndarray, data: st.DataObject) -> None:
    far = st.integers(-6, 6) | st.sampled_from([-128, 127])
    shift = data.draw(hnp.arrays(np.int8, (codes.shape[1], 2), elements=far))
    found = move_channels(codes, shift)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, moved(codes, shift))


def test_a_shift_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"shift must have shape \[3, 2\], not \[2, 2\]"):
        move_channels(np.zeros((1, 3, 2, 2), np.int64), np.zeros((2, 2), np.int8))


@pytest.mark.parametrize("seed", range(3))
def test_a_shift_trace_is_written_read_back_and_verified(seed: int, tmp_path: Path) -> None:
    trace = build_shift_trace(seed)
    write_trace(tmp_path / "t.npz", trace)
    loaded = load_trace(tmp_path / "t.npz")
    kept = loaded.layers[0].post[0]
    assert isinstance(kept, Requantise)
    np.testing.assert_array_equal(kept.shift, SHIFT)
    assert verify_trace(loaded).equal
    write_trace(tmp_path / "again.npz", loaded)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "t.npz").read_bytes()


def test_an_inference_that_does_not_shift_is_found_out() -> None:
    trace = build_shift_trace()
    kept = trace.layers[0].post[0]
    assert isinstance(kept, Requantise)
    still = replace(trace.layers[0], post=(replace(kept, shift=None),))
    assert infer(trace).equal
    assert not infer(replace(trace, layers=(still, *trace.layers[1:]))).equal


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("shape", "000.post.0.shift must have shape [6, 2]"),
        ("dtype", "000.post.0.shift must be int8"),
        ("missing", "000.post.0.shift"),
        ("word", "layers[0].post[0].shifted must be true or false, not 1"),
    ],
)
def test_a_wrong_shift_is_refused_with_its_place(change: str, said: str, tmp_path: Path) -> None:
    write_trace(tmp_path / "t.npz", build_shift_trace())
    parts: Parts = take_apart(tmp_path / "t.npz")
    name = "000.post.0.shift"
    if change == "shape":
        parts.arrays[name] = parts.arrays[name][:5]
    elif change == "dtype":
        parts.arrays[name] = parts.arrays[name].astype(np.int16)
    elif change == "missing":
        del parts.arrays[name]
    else:
        parts.meta["layers"][0]["post"][0]["shifted"] = 1
    parts.write(tmp_path / "bad.npz")
    assert said in message_of(tmp_path / "bad.npz")


def test_a_simulated_machine_takes_it_and_says_what_it_assumes() -> None:
    result = simulate(build_shift_trace(), load_accelerator("predictivenet"))
    assert any("shifted" in words for words in result.assumed)


@needs_compiler
def test_the_generated_machine_runs_the_layers_and_says_what_its_unit_leaves_out() -> None:
    from tests.rtl.network_case import MACHINES

    network = make_network(build_shift_trace(), MACHINES["decoupled"], 1)
    assert network.post is None
    assert network.no_post == "layer expand, post[0]: codes must be stored where they arise, not shifted"
    assert all(one.comparison.equal for one in cosimulate(network, range(2), 1))
