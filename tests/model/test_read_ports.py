"""Banks, ports and rows of weights (timing contract, section 3), and the steps of a sequence: counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
from pgsim.hw.accelerator import Accelerator, Organisation
from pgsim.model.clocked import Operands, run_clocked
from pgsim.model.fast import run_fast
from pgsim.model.job import ArrayCause, GroupCause, Timing, make_job
from pgsim.model.lanes import LaneWidths
from pgsim.model.schedule import Traffic, make_schedule
from pgsim.workload.layer import Gate, Geometry, Layer, LayerKind
from tests.model.random_machines import make_accelerator

ENGINES = pytest.mark.parametrize("engine", ["clocked", "fast"])
ON_CHIP = Traffic(input_off_chip=False, pixel_bits=8, pixel_lsb_bits=0)


def run(engine: str, layer: Layer, accelerator: Accelerator, codes: np.ndarray, traffic: Traffic = ON_CHIP) -> Timing:
    """A layer without a gate; with `ON_CHIP`, weights are there too."""
    schedule = make_schedule(layer, accelerator, LaneWidths(8, 1, True), len(codes), traffic, gated=False)
    if traffic is ON_CHIP:
        schedule.segment_read_bits[:] = 0
    job = make_job(schedule, layer.geometry, accelerator, None)
    if engine == "fast":
        return run_fast(job)
    operands = Operands(
        layer, schedule, accelerator, LaneWidths(8, 1, True), codes.astype(np.int16), None, GatePolicy.KEEP
    )
    return run_clocked(job, operands)[0]


def plain(geometry: Geometry, recurrent: bool = False) -> Layer:
    form = NumberFormat(Encoding.TWOS_COMPLEMENT, 8)
    weight = np.ones(geometry.weight_shape, dtype=np.int16)
    act = NumberFormat(Encoding.UNSIGNED, 8)
    return Layer("plain", geometry, act, form, weight, 1.0, np.ones(1), recurrent=recurrent)


def causes(timing: Timing) -> dict[ArrayCause, int]:
    return {cause: int(timing.array_causes[cause]) for cause in ArrayCause if timing.array_causes[cause]}


@ENGINES
@pytest.mark.parametrize(
    ("banks", "ports", "waits"),
    [(1, 1, 3), (2, 1, 3), (4, 1, 1), (8, 1, 0), (3, 1, 1), (2, 2, 1), (2, 3, 1), (1, 4, 0)],
)
def test_a_step_takes_as_long_as_its_fullest_bank(engine: str, banks: int, ports: int, waits: int) -> None:
    """Output pixels 0 to 3 of stride 2 read input pixels 0, 2, 4 and 6."""
    layer = plain(Geometry(LayerKind.CONV, 1, 1, 1, 7, stride=(1, 2)))
    machine = make_accelerator(
        Organisation.DENSE, rows=4, columns=1, multipliers=1, activation_banks=banks, activation_ports=ports
    )
    timing = run(engine, layer, machine, np.ones((1, 1, 1, 7), np.int64))
    expected = {ArrayCause.BUSY: 1, ArrayCause.TAIL: 4 + 1, ArrayCause.BANK_CONFLICT: waits}  # a transfer, a drain of 4
    assert causes(timing) == {cause: cycles for cause, cycles in expected.items() if cycles}
    rows = [[0, ArrayCause.BANK_CONFLICT], [waits, ArrayCause.BUSY], [waits + 1, ArrayCause.TAIL]]
    assert timing.array_log.tolist() == rows[waits == 0 :]


@ENGINES
def test_taps_on_padding_ask_no_bank(engine: str) -> None:
    """Three taps over pixels 0 to 3, one bank: the outer taps read 3 words each, the middle one 4."""
    layer = plain(Geometry(LayerKind.CONV, 1, 1, 1, 4, kernel=(1, 3), padding=(0, 0, 1, 1)))
    machine = make_accelerator(
        Organisation.DENSE, rows=4, columns=1, multipliers=1, activation_banks=1, activation_ports=1
    )
    timing = run(engine, layer, machine, np.ones((1, 1, 1, 4), np.int64))
    assert causes(timing) == {ArrayCause.BUSY: 3, ArrayCause.BANK_CONFLICT: 2 + 3 + 2, ArrayCause.TAIL: 5}


@ENGINES
def test_a_layer_without_a_gate_waits_for_the_slower_of_both_planes(engine: str) -> None:
    layer = plain(Geometry(LayerKind.CONV, 1, 1, 1, 4))
    machine = make_accelerator(rows=4, columns=1, multipliers=1, activation_banks=4, activation_ports=1, banks=2)
    timing = run(engine, layer, machine, np.ones((1, 1, 1, 4), np.int64))
    assert timing.array_causes[ArrayCause.BANK_CONFLICT] == 1


def gated_pixels() -> tuple[Layer, np.ndarray]:
    """A 1 x 1 convolution of 2 channels into 1 over 3 pixels; pixel 0 alone is updated."""
    geometry = Geometry(LayerKind.CONV, 2, 1, 1, 3)
    form = NumberFormat(Encoding.TWOS_COMPLEMENT, 8)
    gate = Gate(1, np.zeros(1, dtype=np.int64))
    weight = np.array([[1, 0]], dtype=np.int16).reshape(1, 2, 1, 1)
    layer = Layer("gated", geometry, NumberFormat(Encoding.UNSIGNED, 2), form, weight, 1.0, np.ones(1), gate)
    return layer, np.array([[[[2, 0, 1]], [[1, 1, 1]]]], dtype=np.int64)


@ENGINES
@pytest.mark.parametrize(("ports", "row_steps", "waits"), [(1, 1, 1), (2, 1, 0), (1, 2, 0)])
def test_a_group_gets_its_weights_when_the_array_leaves_it_a_port(
    engine: str, ports: int, row_steps: int, waits: int
) -> None:
    """The array reads in cycles 0 to 5, with rows of two steps in 0, 2 and 4. The group asks first in cycle 5."""
    layer, codes = gated_pixels()
    machine = make_accelerator(
        rows=1, columns=1, multipliers=1, groups=1, lanes=1, weight_ports=ports, row_steps=row_steps
    )
    schedule = make_schedule(layer, machine, LaneWidths(1, 1, True), 1, ON_CHIP, gated=True)
    schedule.segment_read_bits[:] = 0
    job = make_job(schedule, layer.geometry, machine, np.array([[[[True, False, False]]]]))
    operands = Operands(
        layer, schedule, machine, LaneWidths(1, 1, True), codes.astype(np.int16), np.zeros(1, np.int64), GatePolicy.KEEP
    )
    timing = run_fast(job) if engine == "fast" else run_clocked(job, operands)[0]
    assert timing.launches.tolist() == [[0, 0, 0, 1, 4, 7 + waits]]
    assert timing.group_causes[GroupCause.WEIGHT_PORT] == waits
    assert timing.group_causes[GroupCause.BUSY] == 2
    assert timing.weight_rows_read == 2 // row_steps
    assert timing.cycles == 9  # pixels 0 and 2 want the port in cycle 7, or one of them in 8


@ENGINES
@pytest.mark.parametrize("recurrent", [False, True])
def test_the_steps_of_a_sequence_wait_for_each_other(engine: str, recurrent: bool) -> None:
    """Codes of 8 bits over a channel of 8 bits and latency 1, behind weights of 8 bits; a tile takes one cycle.

    Image 0 arrives in cycle 3 and leaves its port in cycle 5, so that a step that waits for it is read in cycle 6.
    """
    layer = plain(Geometry(LayerKind.LINEAR, 1, 1), recurrent)
    machine = make_accelerator(Organisation.DENSE, rows=1, columns=1, multipliers=1, channel_bits=8, latency=1)
    traffic = replace(ON_CHIP, input_off_chip=True)
    timing = run(engine, layer, machine, np.ones((2, 1, 1, 1), np.int64), traffic)
    if recurrent:
        assert timing.tile_start.tolist() == [3, 8]
        assert timing.cycles == 11
        expected = {ArrayCause.OFF_CHIP: 5, ArrayCause.BUSY: 2, ArrayCause.RECURRENCE: 2, ArrayCause.TAIL: 2}
    else:
        assert timing.tile_start.tolist() == [3, 4]
        expected = {ArrayCause.OFF_CHIP: 3, ArrayCause.BUSY: 2, ArrayCause.TAIL: 2}
    assert causes(timing) == expected
