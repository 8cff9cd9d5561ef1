"""The network runs on its own integers, from the input codes to the logits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pgsim.model.inference import ENGINES, Chain, fast_engine, infer
from pgsim.results.mismatch import Mismatch
from pgsim.workload.layer import Layer
from pgsim.workload.trace import InMemory
from tests.build_trace import build_trace, build_with_logits


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(6))
def test_the_logits_are_those_of_another_program(seed: int, engine: str) -> None:
    trace, logits = build_with_logits(seed, images=2)
    result = infer(trace, ENGINES[engine])
    assert result.equal
    assert list(result.logits) == ["scores", "out"]
    for name, expected in logits.items():
        assert result.logits[name].dtype == np.int64
        assert np.array_equal(result.logits[name], expected)


def test_a_recorded_activation_that_differs_is_found_and_does_not_spread() -> None:
    trace, logits = build_with_logits()
    assert isinstance(trace.source, InMemory)
    items = list(trace.source.items)
    codes = items[3].activation.copy()
    right = int(codes[1, 2, 3, 4])
    codes[1, 2, 3, 4] = 7 if right < 7 else 0
    items[3] = dataclasses.replace(items[3], activation=codes)
    result = infer(dataclasses.replace(trace, source=InMemory(tuple(items))))
    found = Mismatch("post steps", "depthwise", "codes", (1, 2, 3, 4), int(codes[1, 2, 3, 4]), right)
    assert result.mismatches == (found,)
    assert np.array_equal(result.logits["scores"], logits["scores"])


def test_a_changed_input_changes_every_layer_behind_it() -> None:
    trace, logits = build_with_logits()
    assert isinstance(trace.source, InMemory)
    items = list(trace.source.items)
    items[0] = dataclasses.replace(items[0], activation=-items[0].activation)
    result = infer(dataclasses.replace(trace, source=InMemory(tuple(items))))
    layers = [mismatch.layer for mismatch in result.mismatches]
    assert layers == ["keep", "zero", "depthwise", "grouped", "classifier"]
    assert not np.array_equal(result.logits["scores"], logits["scores"])
    assert np.array_equal(result.logits["out"], logits["out"])


def test_a_tensor_is_kept_until_its_last_reader_and_no_longer() -> None:
    trace = build_trace()
    chain = Chain(trace)
    kept = []
    for index, layer in enumerate(trace.layers):
        codes = chain.codes_for(index)
        chain.follow(index, fast_engine(layer, trace.tensors(index).activation if codes is None else codes).output)
        kept.append(sorted(chain._kept))
    assert kept == [
        ["stem.codes", "stream0"],
        ["keep.codes", "stream0"],
        ["stream2", "zero.codes"],
        ["depthwise.codes", "stream2"],
        ["grouped.codes"],
        [],
        ["rows.codes"],
        [],
    ]


def test_the_codes_keep_their_number_format() -> None:
    trace = build_trace()
    chain = Chain(trace)
    for index, layer in enumerate(trace.layers):
        codes = chain.codes_for(index)
        if codes is not None:
            assert codes.dtype == np.int16
            assert codes.shape == (trace.images, *layer.geometry.activation_shape)
            assert layer.act.min_code <= codes.min() <= codes.max() <= layer.act.max_code
        chain.follow(index, trace.tensors(index).output)


def test_an_engine_sees_every_layer_once_in_order() -> None:
    seen: list[str] = []

    def engine(layer: Layer, codes: np.ndarray) -> object:
        seen.append(layer.name)
        return fast_engine(layer, codes)

    trace = build_trace()
    infer(trace, engine)  # type: ignore[arg-type]
    assert seen == [layer.name for layer in trace.layers]
