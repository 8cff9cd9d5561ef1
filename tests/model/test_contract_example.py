"""The worked example of docs/timing-contract.md, section 7: counted by hand, cycle by cycle, before the engines ran
it."""

from __future__ import annotations

import numpy as np
import pytest

from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
from pgsim.model.clocked import Operands, run_clocked
from pgsim.model.fast import run_fast
from pgsim.model.job import ArrayCause, GroupCause, Job, make_job
from pgsim.model.lanes import LaneWidths
from pgsim.model.schedule import Traffic, make_schedule
from pgsim.workload.layer import Gate, Geometry, Layer, LayerKind
from tests.model.random_machines import make_accelerator

CODES = np.array([[[[2, 1, 3, 2, 0, 1]], [[1, 0, 1, 3, 0, 2]]]], dtype=np.int16)  # high bits: the masks of the example
MASK = np.array([[[[1, 0, 1, 1, 0, 0]], [[0, 0, 0, 1, 0, 1]]]], dtype=np.bool_)


def example() -> tuple[Job, Operands]:
    geometry = Geometry(LayerKind.CONV, 2, 2, 1, 6)
    weight = np.eye(2, dtype=np.int16).reshape(2, 2, 1, 1)  # output channel c is input channel c
    form = NumberFormat(Encoding.TWOS_COMPLEMENT, 8)
    gate = Gate(1, np.zeros(2, dtype=np.int64))
    layer = Layer("example", geometry, NumberFormat(Encoding.UNSIGNED, 2), form, weight, 1.0, np.ones(1), gate)
    accelerator = make_accelerator(
        rows=2, columns=2, multipliers=1, groups=1, lanes=2, queue_depth=2, banks=2,
        activation_banks=2, activation_ports=1, weight_banks=2, weight_ports=1,
    )  # fmt: skip
    widths = LaneWidths(1, 1, True)
    on_chip = Traffic(input_off_chip=False, pixel_bits=2, pixel_lsb_bits=2)
    schedule = make_schedule(layer, accelerator, widths, 1, on_chip, gated=True)
    schedule.segment_read_bits[:] = 0  # the weights are there too
    operands = Operands(layer, schedule, accelerator, widths, CODES, gate.threshold, GatePolicy.KEEP)
    return make_job(schedule, geometry, accelerator, MASK), operands


@pytest.mark.parametrize("engine", ["clocked", "fast"])
def test_three_tiles_take_the_cycles_that_were_counted_by_hand(engine: str) -> None:
    job, operands = example()
    timing = run_clocked(job, operands)[0] if engine == "clocked" else run_fast(job)
    assert timing.cycles == 24
    array = {ArrayCause.BUSY: 6, ArrayCause.QUEUE_FULL: 1, ArrayCause.TAIL: 17}
    assert {cause: timing.array_causes[cause] for cause in ArrayCause if timing.array_causes[cause]} == array
    group = {
        GroupCause.STARVED: 4,
        GroupCause.PARTIAL: 2,
        GroupCause.POP: 3,
        GroupCause.BANK_CONFLICT: 4,
        GroupCause.BUSY: 6,
        GroupCause.RETURN: 5,
    }
    assert {cause: timing.group_causes[cause] for cause in GroupCause if timing.group_causes[cause]} == group
    assert timing.tile_start.tolist() == [0, 2, 4]
    assert timing.tile_transfer.tolist() == [2, 4, 7]
    assert timing.pushes.tolist() == [[3, 0], [5, 0], [6, 1], [7, 0], [9, 1]]
    assert timing.launches.tolist() == [[0, 0, 0, 2, 6, 12], [0, 1, 0, 2, 13, 19], [0, 0, 0, 1, 20, 23]]
    assert timing.segment_done.tolist() == [23]
    assert timing.queue_histogram.tolist() == [25, 18, 5]
    assert timing.lsb_words_read == 10
    assert timing.array_log.tolist() == [[0, ArrayCause.BUSY], [6, ArrayCause.QUEUE_FULL], [7, ArrayCause.TAIL]]


def test_the_values_of_the_example_are_its_codes_where_the_mask_updates() -> None:
    job, operands = example()
    _, outputs = run_clocked(job, operands)
    assert outputs.tolist() == [[[[2, 0, 3, 2, 0, 0]], [[0, 0, 0, 3, 0, 2]]]]
