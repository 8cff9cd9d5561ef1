"""Bounds and orders that hold for every layer and machine: no engine may be faster than its lanes, and work is work."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.arith.overflow import Accumulator, Overflow, gated_layer
from pgsim.errors import InputError
from pgsim.hw.accelerator import Organisation
from pgsim.hw.prices import Stimulus
from pgsim.model.counts import count_layer
from pgsim.model.fast import run_fast
from pgsim.model.job import Job, Timing, make_job
from pgsim.model.lanes import LaneWidths
from pgsim.model.residency import Placement, plane_bits
from pgsim.model.schedule import Traffic, make_schedule
from pgsim.results.actions import ActionKind, Actions
from pgsim.workload.layer import Gate, Geometry, Layer, LayerKind
from tests.model.random_machines import Case, cases, make_accelerator

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
WIDTHS = LaneWidths(2, 1, True)


def mask_of(layer: Layer, activation: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Mask bool [N, K, P, Q] of a layer under a threshold, in accumulators that nothing here overflows."""
    assert layer.gate is not None
    values = gated_layer(
        activation, layer.weight, layer.geometry, layer.act.encoding, layer.act.bits, layer.gate.pred_bits,
        threshold, layer.gate.policy, Accumulator(48, 1, Overflow.ERROR), layer.name,
    )  # fmt: skip
    return values.mask


def run_masked(case: Case, mask: np.ndarray | None) -> tuple[Job, Timing]:
    """Job and timing of a case on lanes of 2 and 1 bits (3 and 0 where there is one array)."""
    org = case.accelerator.organisation
    widths = WIDTHS if org in (Organisation.DECOUPLED, Organisation.GATED_FUSED) else LaneWidths(3, 0, True)
    try:
        schedule = make_schedule(
            case.layer, case.accelerator, widths, len(case.activation), case.traffic, gated=mask is not None
        )
    except InputError:
        reject()  # a buffer too small for any tile
    job = make_job(schedule, case.layer.geometry, case.accelerator, mask)
    return job, run_fast(job)


def actions_of(case: Case, mask: np.ndarray) -> tuple[Actions, int, int, Timing]:
    """Actions and busy lane-cycles (PE array, LSB array) of a decoupled case."""
    job, timing = run_masked(case, mask)
    placement = Placement(case.traffic, "", 0, 0, 0, 0, plane_bits(case.layer, WIDTHS), False)
    images = len(case.activation)
    return (*count_layer(case.layer, case.accelerator, WIDTHS, job, timing, placement, images, mask), timing)


def lower_bound(case: Case, job: Job, updated: int) -> int:
    """Cycles that the lanes need at least, were all of them busy all the time: max(N / P_h, (1 - Sp) N / P_l), with the
    passes of the operands. A cooperative pair of arrays shares what is not gated."""
    g, array, update = case.layer.geometry, case.accelerator.array, case.accelerator.update
    passes = job.schedule.passes
    outputs = len(case.activation) * g.outputs
    pe_lanes = array.rows * array.columns * array.multipliers
    lsb_lanes = update.groups * update.lanes * array.multipliers if update else 0
    if job.cooperative:  # both arrays at their own rates
        rate_times_both = pe_lanes * passes.update + lsb_lanes * passes.predict
        return -(-outputs * g.reduction * passes.predict * passes.update // rate_times_both)
    cycles = passes.predict
    if case.accelerator.organisation is Organisation.TWO_PASS and case.layer.gate:
        cycles += passes.update
    predict = -(-outputs * g.reduction * cycles // pe_lanes)
    if job.mask is None:
        return predict
    return max(predict, -(-updated * g.reduction * passes.update // lsb_lanes))


def channel_bound(job: Job) -> int:
    """Cycles that the off-chip channel is held for."""
    moved = np.concatenate((job.schedule.segment_read_bits, job.schedule.segment_write_bits))
    return int((-(-moved // job.channel_bits)).sum())


@QUICK
@given(cases(), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.integers(0, 2**32 - 1))
def test_no_machine_is_faster_than_its_lanes_or_its_channel(case: Case, share: float, seed: int) -> None:
    mask = None
    if case.layer.gate is not None and case.accelerator.organisation is not Organisation.DENSE:
        shape = (len(case.activation), *case.layer.geometry.output_shape)
        mask = np.random.default_rng(seed).random(shape) < share
    if mask is None:
        case = replace(case, layer=replace(case.layer, gate=None))
    job, timing = run_masked(case, mask)
    updated = int(mask.sum()) if mask is not None else 0
    assert timing.cycles >= lower_bound(case, job, updated)
    assert timing.cycles >= channel_bound(job)
    assert timing.channel_read_cycles + timing.channel_write_cycles == channel_bound(job)


def balanced(queue_depth: int, share: float, *, groups: int = 2, burst: bool = False) -> tuple[float, float, float]:
    """Cycles of a long layer (1024 pixels, D = 72), and its bounds N / P_h and (1 - Sp) N / P_l.

    Two groups hold a quarter of the PE array's lanes. Banks are as many as pixels, so that only the queue is in the
    way. `burst`: all updates are in the first rows, which only a queue that holds them can spread over the rest.
    """
    geometry = Geometry(LayerKind.CONV, 32, 8, 32, 32, (3, 3), (1, 1), (1, 1, 1, 1))
    layer = Layer(
        "long", geometry, NumberFormat(Encoding.UNSIGNED, 3), NumberFormat(Encoding.TWOS_COMPLEMENT, 8),
        np.ones(geometry.weight_shape, np.int16), 1.0, np.ones(1), Gate(2, np.zeros(8, np.int64)),
    )  # fmt: skip
    machine = make_accelerator(
        rows=4, columns=8, multipliers=4, groups=groups, lanes=4, queue_depth=queue_depth, banks=1024
    )
    mask = np.random.default_rng(1).random((1, 8, 32, 32)) < share
    if burst:
        mask = np.broadcast_to(np.arange(32)[:, None] < 32 * share, (1, 8, 32, 32))
    case = Case(layer, np.zeros((1, *geometry.activation_shape), np.int16), machine, Traffic(False, 0, 0))
    _, timing = run_masked(case, mask)
    macs = geometry.outputs * geometry.reduction
    return timing.cycles, macs / (4 * 8 * 4), int(mask.sum()) * geometry.reduction / (groups * 4 * 4)


@pytest.mark.parametrize(("share", "burst"), [(0.15, False), (0.15, True), (0.8, False), (0.8, True)])
def test_a_deeper_queue_approaches_the_bound(share: float, burst: bool) -> None:
    # Both sides of the balance at 0.25: the prediction bounds one, the updates the other.
    times = []
    for depth in (1, 4, 16, 64, 1024):
        cycles, predict, update = balanced(depth, share, burst=burst)
        assert cycles >= max(predict, update)
        times.append(cycles / max(predict, update))
    assert times[0] > 1.5  # one entry a FIFO: a group has one lane in four
    if burst and share < 0.25:
        assert times[2] > 1.2  # a burst of 160 entries a FIFO blocks the drain, and updates do not last to the end
    assert all(later <= 1.02 * before for before, later in pairwise(times))
    # A launch takes 72 steps, a pop and 4 returns; the first tile predicts alone, the last updates do; weights come in.
    assert times[-1] < 1.12


def test_what_is_not_provisioned_bounds_the_time() -> None:
    # Twice the update lanes: the layer that waited for its updates now waits for its prediction.
    slow, predict, update = balanced(1024, 0.4)
    fast, _, halved = balanced(1024, 0.4, groups=4)
    assert update == 2 * halved > predict > halved
    assert slow > update
    assert predict < fast < 1.12 * predict


@QUICK
@given(cases(Organisation.DECOUPLED), st.integers(0, 200))
def test_a_lower_threshold_never_lowers_the_work_of_the_update_phase(case: Case, lower: int) -> None:
    if case.layer.gate is None:
        reject()
    threshold = case.layer.gate.threshold
    before, after = (mask_of(case.layer, case.activation, t) for t in (threshold, threshold - lower))
    assert (after | ~before).all()  # what was updated still is
    few, _, busy_few, timing_few = actions_of(case, before)
    many, _, busy_many, timing_many = actions_of(case, after)
    assert busy_few <= busy_many
    assert busy_many - busy_few == (int(after.sum()) - int(before.sum())) * (
        case.layer.geometry.reduction * run_masked(case, before)[0].schedule.passes.update
    )
    for kind in (ActionKind.FIFO_PUSH, ActionKind.FIFO_POP):
        assert few.count(kind) <= many.count(kind)
    assert timing_few.launches[:, 3].sum() <= timing_many.launches[:, 3].sum()
    assert few.count(ActionKind.MAC, "array", Stimulus.MSB) == many.count(ActionKind.MAC, "array", Stimulus.MSB)


@QUICK
@given(cases(Organisation.DECOUPLED), st.integers(0, 2**32 - 1))
def test_permuted_images_are_the_same_work(case: Case, seed: int) -> None:
    if case.layer.gate is None:
        reject()
    order = np.random.default_rng(seed).permutation(len(case.activation))
    permuted = replace(case, activation=case.activation[order])
    masks = [mask_of(case.layer, c.activation, case.layer.gate.threshold) for c in (case, permuted)]
    np.testing.assert_array_equal(masks[0][order], masks[1])
    (one, *busy_one, _), (other, *busy_other, _) = actions_of(case, masks[0]), actions_of(permuted, masks[1])
    assert busy_one == busy_other
    working = (Stimulus.MSB, Stimulus.LSB)
    reads = {ActionKind.SRAM_READ, ActionKind.REGISTER_WRITE}  # launches differ, and what they read and keep
    for kind in set(ActionKind) - {ActionKind.MAC, *reads}:
        assert one.count(kind) == other.count(kind)
    assert one.count(ActionKind.SRAM_READ, "activation") == other.count(ActionKind.SRAM_READ, "activation")
    for component in ("array", "update_array"):
        assert one.count(ActionKind.MAC, component, *working) == other.count(ActionKind.MAC, component, *working)
