"""The simulator as an engine of `verify`: what comes out of the machine's output ports, not out of a formula.

The fast engine says which entries the update queue took and which of them the LSB array launched; an output is updated
exactly where that happened. The clocked engine computes with the operands on every cycle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.fast import dense_layer, masked_sums
from pgsim.arith.formats import GatePolicy
from pgsim.arith.gating import gated_output, gating_mask
from pgsim.arith.split import split
from pgsim.hw.accelerator import Accelerator, Organisation
from pgsim.model.clocked import Operands, run_clocked
from pgsim.model.fast import run_fast
from pgsim.model.inference import Engine, LayerValues
from pgsim.model.job import Job, Timing, make_job
from pgsim.model.lanes import LaneWidths
from pgsim.model.schedule import Schedule, Traffic, make_schedule
from pgsim.workload.layer import Layer


def launched(job: Job, timing: Timing) -> NDArray[np.bool_]:
    """Return which outputs the LSB array updated, bool [N, K, P*Q]: the entries that a column's launches took, in
    order.

    A column's FIFO holds its masked outputs in the order of the drain: segments, then pixels. Launches take them in
    that order, so the n entries that a column's launches took are its first n.
    """
    assert job.mask is not None
    schedule = job.schedule
    updated = np.zeros_like(job.mask)
    for column in range(job.columns):
        taken = int(timing.launches[timing.launches[:, 1] == column, 3].sum())
        for segment in range(schedule.segments):
            if column >= schedule.segment_columns[segment]:
                continue
            image, channel = schedule.segment_image[segment], schedule.segment_first_channel[segment] + column
            first = schedule.tile_first_pixel[schedule.segment_first_tile[segment]]
            pixels = first + np.nonzero(job.mask[image, channel, first : first + schedule.segment_pixels[segment]])[0]
            updated[image, channel, pixels[:taken]] = True
            taken -= min(taken, len(pixels))
        assert taken == 0, "a column launched more entries than its mask holds"
    return updated


def _prepare(layer: Layer, codes: NDArray[np.int16], accelerator: Accelerator) -> tuple[LaneWidths, Schedule]:
    assert accelerator.organisation is Organisation.DECOUPLED
    assert accelerator.update is not None
    msb, lsb = accelerator.array.act_bits or layer.pred_bits, accelerator.update.act_bits or max(1, layer.update_bits)
    widths = LaneWidths(msb, lsb, True)
    traffic = Traffic(input_off_chip=False, pixel_bits=0, pixel_lsb_bits=0)
    return widths, make_schedule(layer, accelerator, widths, len(codes), traffic, gated=layer.gate is not None)


def simulator_engine(accelerator: Accelerator) -> Engine:
    """Return an engine: prediction by arith, updates where the decoupled machine's LSB array was launched."""

    def engine(layer: Layer, codes: NDArray[np.int16]) -> LayerValues:
        if layer.gate is None:
            return LayerValues(dense_layer(codes, layer.weight, layer.geometry), None)
        gate = layer.gate
        high, low = split(codes, layer.act.encoding, layer.act.bits, gate.pred_bits)
        a_h = dense_layer(high, layer.weight, layer.geometry)
        _, schedule = _prepare(layer, codes, accelerator)
        job = make_job(schedule, layer.geometry, accelerator, gating_mask(a_h, gate.threshold))
        updated = launched(job, run_fast(job)).reshape(a_h.shape)
        a_l = masked_sums(low, layer.weight, layer.geometry, updated)
        return LayerValues(gated_output(a_h, a_l, updated, layer.update_bits, gate.policy), updated)

    return engine


def clocked_engine(accelerator: Accelerator) -> Engine:
    """Return an engine that steps every cycle of the decoupled machine with the operands: slow, and obvious."""

    def engine(layer: Layer, codes: NDArray[np.int16]) -> LayerValues:
        widths, schedule = _prepare(layer, codes, accelerator)
        gate = layer.gate
        threshold, policy = (gate.threshold, gate.policy) if gate else (None, GatePolicy.KEEP)
        operands = Operands(layer, schedule, accelerator, widths, codes, threshold, policy)
        # The job's mask only says that there is a gate: the machine compares for itself.
        shape = (len(codes), *layer.geometry.output_shape)
        job = make_job(schedule, layer.geometry, accelerator, np.zeros(shape, np.bool_) if gate else None)
        _, outputs = run_clocked(job, operands)
        if gate is None:
            return LayerValues(outputs, None)
        return LayerValues(outputs, operands.updated)

    return engine
