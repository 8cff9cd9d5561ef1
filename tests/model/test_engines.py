"""The clocked engine and the fast one: equal in every count; what leaves the machine's ports is the layer's result."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from hypothesis import HealthCheck, given, reject, settings

from pgsim.arith.formats import GatePolicy
from pgsim.arith.overflow import Accumulator, dense_layer, gated_layer
from pgsim.errors import InputError
from pgsim.hw.accelerator import Organisation
from pgsim.model.clocked import Operands, run_clocked
from pgsim.model.fast import run_fast
from pgsim.model.job import Job, Timing, make_job
from pgsim.model.lanes import LaneWidths
from pgsim.model.schedule import make_schedule
from tests.model.random_machines import Case, cases

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def prepare(case: Case) -> tuple[Job, Operands, np.ndarray]:
    """Schedule, job and operands of a case, and the outputs that arith says must come out."""
    layer, org = case.layer, case.accelerator.organisation
    pred = layer.pred_bits
    lsb_array = case.accelerator.update.act_bits if case.accelerator.update else None
    msb = case.accelerator.array.act_bits or pred
    widths = LaneWidths(msb, 0 if org in (Organisation.DENSE, Organisation.TWO_PASS) else lsb_array or 1, True)
    gate = layer.gate if org is not Organisation.DENSE else None
    gated = gate is not None
    schedule = make_schedule(layer, case.accelerator, widths, len(case.activation), case.traffic, gated=gated)
    array = case.accelerator.array
    accumulator = Accumulator(array.psum_bits, array.multipliers, array.overflow)
    if gate is None:
        mask = None
        outputs = dense_layer(case.activation, layer.weight, layer.geometry, accumulator, layer.name)
    else:
        values = gated_layer(
            case.activation, layer.weight, layer.geometry, layer.act.encoding, layer.act.bits, pred,
            gate.threshold, gate.policy, accumulator, layer.name,
        )  # fmt: skip
        mask, outputs = values.mask, values.a
    job = make_job(schedule, layer.geometry, case.accelerator, mask)
    operands = Operands(
        layer, schedule, case.accelerator, widths, case.activation, gate.threshold if gate else None,
        gate.policy if gate else GatePolicy.KEEP,
    )  # fmt: skip
    return job, operands, outputs


def assert_same(clocked: Timing, fast: Timing) -> None:
    for field in fields(Timing):
        one, other = getattr(clocked, field.name), getattr(fast, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype == np.int64, field.name
        np.testing.assert_array_equal(one, other, err_msg=field.name)


@SLOW
@given(cases())
def test_both_engines_agree_in_every_count_and_the_ports_give_the_layers_result(case: Case) -> None:
    try:
        job, operands, outputs = prepare(case)
    except InputError:
        reject()  # a buffer too small for any tile; test_schedule.py has these
    clocked, values = run_clocked(job, operands)
    assert_same(clocked, run_fast(job))
    np.testing.assert_array_equal(values, outputs)
    assert clocked.array_causes.sum() == clocked.cycles
    assert clocked.group_causes.sum() == job.groups * clocked.cycles
    assert clocked.queue_histogram.sum() == (job.columns * clocked.cycles if job.groups else 0)
