"""Verification finds any integer that is not what it must be, and says where."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pgsim.arith.formats import GatePolicy
from pgsim.errors import InputError
from pgsim.model.inference import ENGINES, LayerValues, fast_engine
from pgsim.model.verify import LayerCheck, partial_sums, threshold_mismatch, verify_trace
from pgsim.results.mismatch import Mismatch
from pgsim.workload.layer import Bias, Layer, Requantise, SaveShortcut
from pgsim.workload.trace import InMemory, LayerTensors, Trace
from tests.build_trace import build_trace, dense, planes

LAYERS = ("stem", "keep", "zero", "depthwise", "grouped", "classifier", "rows", "head")
GATED = ("keep", "zero", "depthwise", "classifier", "rows")


def tensors(trace: Trace, index: int, **changes: Any) -> Trace:
    """Return the trace with some tensors of one layer replaced."""
    assert isinstance(trace.source, InMemory)
    items = list(trace.source.items)
    items[index] = dataclasses.replace(items[index], **changes)
    return dataclasses.replace(trace, source=InMemory(tuple(items)))


def layer(trace: Trace, index: int, **changes: Any) -> Trace:
    """Return the trace with some fields of one layer replaced."""
    layers = list(trace.layers)
    layers[index] = dataclasses.replace(layers[index], **changes)
    return dataclasses.replace(trace, layers=tuple(layers))


def with_step(trace: Trace, index: int, position: int, **changes: Any) -> Trace:
    """Return the trace with some fields of one post step replaced."""
    steps = list(trace.layers[index].post)
    steps[position] = dataclasses.replace(steps[position], **changes)
    return layer(trace, index, post=tuple(steps))


@pytest.mark.parametrize("seed", range(8))
def test_a_trace_computed_by_another_program_verifies_in_both_engines(seed: int) -> None:
    verification = verify_trace(build_trace(seed, images=1 + seed % 3))
    assert verification.equal
    assert verification.first is None
    assert verification.chained
    assert verification.correct == verification.images
    assert [check.layer for check in verification.layers] == list(LAYERS)


def test_what_was_compared_is_counted() -> None:
    keep = verify_trace(build_trace()).layers[1]
    expected = LayerCheck(
        "keep", ("reference", "fast"), outputs=512, masks=512, codes=512, thresholds=4, wrong=0, mismatches=()
    )
    assert keep == expected


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("index", range(8), ids=LAYERS)
def test_any_output_that_differs_is_found_where_it_is(index: int, engine: str) -> None:
    trace = build_trace(3)
    recorded = trace.tensors(index)
    random = np.random.default_rng(index)
    for _ in range(5):
        where = tuple(int(random.integers(size)) for size in recorded.output.shape)
        output = recorded.output.copy()
        output[where] ^= 1 << int(random.integers(0, 20))
        verification = verify_trace(tensors(trace, index, output=output), engines={engine: ENGINES[engine]})
        sums = own_sums(trace.layers[index], recorded.activation, where)
        threshold = trace.layers[index].gate
        found = Mismatch(
            engine,
            LAYERS[index],
            "output",
            where,
            int(output[where]),
            int(recorded.output[where]),
            *sums,
            None if threshold is None else int(threshold.threshold[where[1]]),
        )
        assert verification.first == found
        assert sum(check.wrong for check in verification.layers) == 1
        assert not verification.equal


def own_sums(checked: Layer, codes: NDArray[np.int16], where: tuple[int, ...]) -> tuple[int, int | None]:
    """Return (A_h, A_l) of an output by the builder's arithmetic."""
    weight = checked.weight.astype(np.int64)
    if checked.gate is None:
        return int(dense(codes.astype(np.int64), weight, checked.geometry)[where]), None
    q_h, q_l = planes(codes.astype(np.int64), checked.act.encoding, checked.update_bits)
    return int(dense(q_h, weight, checked.geometry)[where]), int(dense(q_l, weight, checked.geometry)[where])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("index", [LAYERS.index(name) for name in GATED], ids=GATED)
def test_any_mask_bit_that_differs_is_found_where_it_is(index: int, engine: str) -> None:
    trace = build_trace(4)
    mask = trace.tensors(index).mask
    assert mask is not None
    random = np.random.default_rng(index)
    for _ in range(5):
        where = tuple(int(random.integers(size)) for size in mask.shape)
        changed = mask.copy()
        changed[where] ^= True
        verification = verify_trace(tensors(trace, index, mask=changed), engines={engine: ENGINES[engine]})
        assert verification.first is not None
        assert (verification.first.layer, verification.first.what) == (LAYERS[index], "mask")
        assert sum(check.wrong for check in verification.layers) == 1
        assert verification.first.index == where
        assert verification.first.recorded == int(changed[where])
        assert (verification.first.a_h, verification.first.a_l) == own_sums(
            trace.layers[index], trace.tensors(index).activation, where
        )


def test_partial_sums_are_those_of_every_output() -> None:
    trace = build_trace(5)
    for index, checked in enumerate(trace.layers):
        codes = trace.tensors(index).activation
        for where in list(np.ndindex(trace.tensors(index).output.shape))[::37]:
            assert partial_sums(checked, codes, where) == own_sums(checked, codes, where)


def test_the_first_mismatch_is_the_first_in_network_order() -> None:
    trace = build_trace()
    for index in (6, 2):
        trace = tensors(trace, index, output=trace.tensors(index).output + 1)
    verification = verify_trace(trace)
    assert verification.first is not None
    assert (verification.first.layer, verification.first.index) == ("zero", (0, 0, 0, 0))
    assert [(check.layer, check.wrong) for check in verification.layers if check.wrong] == [
        ("zero", 1024),
        ("rows", 48),
    ]


@pytest.mark.parametrize("index", [1, 2, 3, 4, 5, 7])
def test_codes_that_the_post_steps_do_not_give_are_found(index: int) -> None:
    trace = build_trace()
    codes = trace.tensors(index).activation.copy()
    where = tuple(size - 1 for size in codes.shape)
    right = int(codes[where])
    codes[where] = right - 1 if right > trace.layers[index].act.min_code else right + 1
    verification = verify_trace(tensors(trace, index, activation=codes))
    assert verification.first == Mismatch("post steps", LAYERS[index], "codes", where, int(codes[where]), right)


def test_a_changed_requantisation_is_found_in_the_next_layer() -> None:
    trace = build_trace()
    step = trace.layers[2].post[4]
    assert isinstance(step, Requantise)
    first = with_step(trace, 2, 4, direction=-step.direction)
    found = verify_trace(first).first
    assert found is not None
    assert (found.engine, found.layer, found.what) == ("post steps", "depthwise", "codes")


def test_a_changed_bias_before_the_logits_is_found_by_the_recorded_prediction() -> None:
    trace = build_trace()
    bias = np.zeros(3, np.int64)
    bias[(trace.info["predictions"][0] + 1) % 3] = 10**9
    trace = layer(trace, 7, post=(Bias(bias), *trace.layers[7].post))
    verification = verify_trace(trace)
    right, wrong = trace.info["predictions"][0], int(bias.argmax())
    assert verification.first == Mismatch("logits", "out", "prediction", (0,), right, wrong)
    labels = trace.info["labels"]
    assert verification.correct == labels.count(wrong)


def test_a_changed_weight_or_threshold_is_found() -> None:
    trace = build_trace()
    weight = trace.layers[4].weight.copy()
    weight[0, 0, 0, 1] += 1
    assert verify_trace(layer(trace, 4, weight=weight)).first is not None
    gate = trace.layers[3].gate
    assert gate is not None
    later = dataclasses.replace(gate, threshold=gate.threshold + 1000)
    found = verify_trace(layer(trace, 3, gate=later)).first
    assert found is not None
    assert (found.layer, found.what) == ("depthwise", "mask")


def test_a_changed_policy_is_found() -> None:
    trace = build_trace()
    gate = trace.layers[1].gate
    assert gate is not None
    found = verify_trace(layer(trace, 1, gate=dataclasses.replace(gate, policy=GatePolicy.ZERO))).first
    assert found is not None
    assert (found.layer, found.what, found.computed) == ("keep", "output", 0)


def thresholded(delta: float, threshold: int) -> Layer:
    """Return the second layer with the first channel's delta and T_c replaced."""
    base = build_trace().layers[1]
    assert base.gate is not None
    assert base.gate.delta is not None
    deltas, thresholds = base.gate.delta.copy(), base.gate.threshold.copy()
    deltas[0], thresholds[0] = delta, threshold
    return dataclasses.replace(base, gate=dataclasses.replace(base.gate, delta=deltas, threshold=thresholds))


def test_thresholds_are_held_against_delta() -> None:
    base = build_trace().layers[1]
    assert base.gate is not None
    unit = base.act_scale * float(base.weight_scale[0]) * 2
    assert threshold_mismatch(thresholded(7.5 * unit, 7)) is None
    assert threshold_mismatch(thresholded(-7.5 * unit, -8)) is None
    for wrong in (-9, -7):
        assert threshold_mismatch(thresholded(-7.5 * unit, wrong)) == Mismatch(
            "delta", "keep", "threshold", (0,), wrong, -8
        )


def test_a_threshold_out_of_reach_may_be_clamped() -> None:
    base = build_trace().layers[1]
    highest = int(np.maximum(base.weight[0].astype(np.int64), 0).sum()) * 3
    lowest = int(np.minimum(base.weight[0].astype(np.int64), 0).sum()) * 3
    assert threshold_mismatch(thresholded(1e300, highest)) is None
    assert threshold_mismatch(thresholded(float("inf"), highest)) is None
    assert threshold_mismatch(thresholded(1e300, highest - 1)) is not None
    assert threshold_mismatch(thresholded(-1e300, lowest - 1)) is None
    assert threshold_mismatch(thresholded(float("-inf"), -(2**63))) is None
    assert threshold_mismatch(thresholded(-1e300, lowest)) is not None


def test_a_threshold_computed_in_float64_is_accepted() -> None:
    base = build_trace().layers[1]
    scale = float(base.weight_scale[0])
    unit = base.act_scale * scale * 2.0
    delta = next(n * unit for n in range(1, 1000) if verdicts_differ(n * unit, base.act_scale, scale))
    in_float = int(np.floor(delta / unit))
    assert threshold_mismatch(thresholded(delta, in_float)) is None
    assert threshold_mismatch(thresholded(delta, in_float - 1)) is None  # the exact one
    assert threshold_mismatch(thresholded(delta, in_float - 2)) is not None


def verdicts_differ(delta: float, act_scale: float, weight_scale: float) -> bool:
    from tests.build_trace import exact_thresholds

    exact = int(exact_thresholds(np.array([delta]), act_scale, weight_scale, 1)[0])
    return int(np.floor(delta / (act_scale * weight_scale * 2.0))) == exact + 1


def test_layers_can_be_chosen_and_then_nothing_is_chained() -> None:
    trace = build_trace()
    trace = tensors(trace, 3, output=trace.tensors(3).output + 1)
    verification = verify_trace(trace, layers=["stem", "head"])
    assert verification.equal
    assert not verification.chained
    assert verification.correct is None
    assert [(check.layer, check.codes) for check in verification.layers] == [("stem", 0), ("head", 0)]
    assert not verify_trace(trace, layers=["depthwise"]).equal
    with pytest.raises(ValueError, match="layers must be names of the trace's layers, not 'nobody'"):
        verify_trace(trace, layers=["nobody"])


def test_a_simulator_is_an_engine_like_the_others() -> None:
    def simulator(checked: Layer, codes: NDArray[np.int16]) -> LayerValues:
        values = fast_engine(checked, codes)
        if checked.name == "zero":
            values.output[1, 2, 3, 4] += 10**5
        return values

    trace = build_trace()
    verification = verify_trace(trace, engines={**ENGINES, "simulator": simulator})
    found = verification.first
    assert found is not None
    assert sum(check.wrong for check in verification.layers) == 1  # the post steps follow the first engine
    right = int(trace.tensors(2).output[1, 2, 3, 4])
    assert (found.engine, found.index, found.recorded, found.computed) == (
        "simulator",
        (1, 2, 3, 4),
        right,
        right + 10**5,
    )
    assert str(found).startswith(f"zero: output[1,2,3,4] is {right} in the trace, {right + 10**5} by simulator (A_h = ")


def test_an_engine_is_needed() -> None:
    with pytest.raises(ValueError, match="engines must name at least one engine"):
        verify_trace(build_trace(), engines={})


def test_a_shortcut_that_does_not_fit_is_refused_with_its_step() -> None:
    trace = build_trace()
    step = trace.layers[0].post[2]
    assert isinstance(step, SaveShortcut)
    with pytest.raises(InputError, match=r"^layers\[0\]\.post\[2\]: stream0 must fit 4 unsigned bits, 0 \.\. 15, not "):
        verify_trace(with_step(trace, 0, 2, bits=4))


def test_each_layer_is_reported_when_it_is_done_and_read_once() -> None:
    trace = build_trace()
    log: list[str] = []

    class Logged:
        def tensors(self, index: int) -> LayerTensors:
            log.append(f"read {LAYERS[index]}")
            return trace.tensors(index)

        def boundary(self, index: int) -> NDArray[np.int64]:
            raise AssertionError("the trace has no boundary")

    verify_trace(dataclasses.replace(trace, source=Logged()), done=lambda check: log.append(check.layer))
    assert log == [entry for name in LAYERS for entry in (f"read {name}", name)]
