"""The simulator as an engine: its outputs are those that left the machine's ports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgsim.arith.reference import dense_layer, gated_layer
from pgsim.hw.accelerator import Accelerator
from pgsim.model.fast import run_fast
from pgsim.model.job import make_job
from pgsim.model.lanes import LaneWidths
from pgsim.model.schedule import Traffic, make_schedule
from pgsim.model.simulated import clocked_engine, launched, simulator_engine
from tests.model.random_machines import layers, make_accelerator

SLOW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def machine(data: st.DataObject) -> Accelerator:
    return make_accelerator(
        rows=data.draw(st.integers(1, 4)),
        columns=data.draw(st.integers(1, 3)),
        groups=data.draw(st.integers(1, 2)),
        lanes=data.draw(st.integers(1, 3)),
        queue_depth=data.draw(st.integers(1, 4)),
        banks=data.draw(st.integers(1, 4)),
    )


@pytest.mark.parametrize("make_engine", [simulator_engine, clocked_engine])
@SLOW
@given(data=st.data())
def test_what_leaves_the_ports_is_what_the_scalar_reference_computes(make_engine, data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
    layer, codes = data.draw(layers())
    values = make_engine(machine(data))(layer, codes)
    if layer.gate is None:
        np.testing.assert_array_equal(values.output, dense_layer(codes, layer.weight, layer.geometry))
        assert values.mask is None
        return
    gate = layer.gate
    numbers = (layer.act.encoding, layer.act.bits, gate.pred_bits, gate.threshold, gate.policy)
    expected = gated_layer(codes, layer.weight, layer.geometry, *numbers)
    np.testing.assert_array_equal(values.output, expected.a)
    np.testing.assert_array_equal(values.mask, expected.mask)
    assert values.output.dtype == np.int64
    assert values.mask.dtype == np.bool_


@SLOW
@given(data=st.data())
def test_a_launch_that_is_lost_leaves_its_outputs_not_updated(data: st.DataObject) -> None:
    layer, codes = data.draw(layers(gated=True))
    accelerator = machine(data)
    traffic = Traffic(input_off_chip=False, pixel_bits=0, pixel_lsb_bits=0)
    schedule = make_schedule(layer, accelerator, LaneWidths(1, 1, True), len(codes), traffic, gated=True)
    mask = np.random.default_rng(0).random((len(codes), *layer.geometry.output_shape)) < 0.5
    job = make_job(schedule, layer.geometry, accelerator, mask)
    timing = run_fast(job)
    np.testing.assert_array_equal(launched(job, timing).reshape(mask.shape), mask)
    if len(timing.launches):
        lost = replace(timing, launches=timing.launches[:-1])
        assert launched(job, lost).sum() == mask.sum() - timing.launches[-1, 3]
