"""From a layer's schedule, timing and mask to counted actions: what every part of the machine did, in integers."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from pgsim.hw.accelerator import Accelerator, DepthwisePort, Organisation
from pgsim.hw.prices import Stimulus
from pgsim.model.crossbar import COMPONENT as CROSSBAR
from pgsim.model.crossbar import crossbar
from pgsim.model.entry import entry_bits
from pgsim.model.job import Job, Timing
from pgsim.model.lanes import LaneWidths
from pgsim.model.post_unit import COMPONENT as POST
from pgsim.model.post_unit import parameter_bits, post_work
from pgsim.model.residency import Placement
from pgsim.model.schedule import Schedule
from pgsim.results.actions import Action, ActionKind, Actions
from pgsim.workload.layer import Layer

Counts = Counter[Action]


def lane_actions(
    layer: Layer, accelerator: Accelerator, widths: LaneWidths, job: Job, timing: Timing, images: int, updated: int
) -> tuple[Counts, int, int]:
    """Count MAC lanes by what they saw; return also the busy lane-cycles of the PE array and of the LSB side.

    A lane is busy in the cycles (passes included) in which its PE reduces a channel that exists; all other lane-cycles
    are idle: ragged words and tiles, stalls, and outputs that the gate leaves alone in two_pass and gated_fused.
    """
    org, array, schedule = accelerator.organisation, accelerator.array, job.schedule
    idle = Stimulus.GATED if accelerator.clock_gating else Stimulus.IDLE
    gated = layer.gate is not None and org is not Organisation.DENSE
    shared = int(timing.launches[:, 3].sum()) if job.cooperative else 0  # outputs that a cooperative LSB array computes
    outputs = images * layer.geometry.outputs - shared
    predict = outputs * layer.geometry.reduction * schedule.passes.predict
    update = (shared if job.cooperative else updated) * layer.geometry.reduction * schedule.passes.update
    lanes, weight = array.rows * array.columns * array.multipliers, array.weight_bits
    counts: Counts = Counter()

    def add(component: str, bits: int, stimulus: Stimulus, count: int) -> None:
        counts[Action(ActionKind.MAC, component, bits, weight, stimulus)] += count

    total = lanes * timing.cycles
    stimulus = Stimulus.MSB if gated else Stimulus.DENSE
    if org is Organisation.GATED_FUSED and not gated:
        # Both parts work on a code at once, each on its bits: two lanes, as there are in the area.
        for component, bits in (("array", widths.msb), ("update_array", widths.lsb)):
            add(component, bits, Stimulus.DENSE, predict)
            add(component, bits, idle, total - predict)
        return counts, predict, predict
    add("array", widths.msb, stimulus, predict)
    if org is Organisation.TWO_PASS and gated:
        add("array", widths.msb, Stimulus.LSB, update)
        add("array", widths.msb, idle, total - predict - update)
        return counts, predict + update, 0
    add("array", widths.msb, idle, total - predict)
    if org is Organisation.DECOUPLED:
        assert accelerator.update is not None
        lsb_lanes = accelerator.update.groups * accelerator.update.lanes * array.multipliers
        add("update_array", widths.lsb, Stimulus.LSB if gated else Stimulus.DENSE, update)
        add("update_array", widths.lsb, idle, lsb_lanes * timing.cycles - update)
        return counts, predict, update
    if org is Organisation.GATED_FUSED:
        add("update_array", widths.lsb, Stimulus.LSB, update)
        add("update_array", widths.lsb, idle, total - update)
        return counts, predict, update
    return counts, predict, 0


def memory_actions(
    layer: Layer,
    accelerator: Accelerator,
    schedule: Schedule,
    timing: Timing,
    placement: Placement,
    images: int,
) -> Counts:
    """Count bits read and written in every buffer and over the off-chip channel.

    A step reads one word of N channels for each pixel of the tile (shared by the columns; each column its own in a
    depthwise layer with own ports), none on padding, and one weight word of N for each column. Words are read whole.
    """
    org, array = accelerator.organisation, accelerator.array
    gated = layer.gate is not None and org is not Organisation.DENSE
    high, low = placement.planes
    on_pe_array = timing.tile_on_lsb == 0
    tile_segment = schedule.tile_segment[on_pe_array]
    words = _pe_words(layer, accelerator, schedule, timing)
    row = accelerator.memory.weight.row_steps
    last_step = schedule.segment_first_step + schedule.segment_steps - 1
    rows = last_step // row - schedule.segment_first_step // row + 1
    weight_words = int((schedule.segment_columns * rows)[tile_segment].sum()) * row
    update_weight_words = timing.weight_rows_read * row
    n, weight_bits = array.multipliers, layer.weight_format.storage_bits
    counts: Counts = Counter()

    def add(kind: ActionKind, component: str, bits: int) -> None:
        counts[Action(kind, component)] += bits

    if org is Organisation.DECOUPLED:
        add(ActionKind.SRAM_READ, "activation", words * n * high)
        if not gated:
            add(ActionKind.SRAM_READ, "activation_lsb", words * n * low)
        add(ActionKind.SRAM_READ, "activation_lsb", timing.lsb_words_read * n * low)
        if not gated:  # a cooperative LSB array reads whole codes
            add(ActionKind.SRAM_READ, "activation", timing.msb_words_read * n * high)
    elif gated:  # two_pass and gated_fused read each plane in a stream of its own, the second whatever the mask says
        sign = layer.act.storage_bits - layer.act.bits  # in both streams
        add(ActionKind.SRAM_READ, "activation", words * n * (layer.act.storage_bits + sign))
        update_weight_words = weight_words
    else:
        add(ActionKind.SRAM_READ, "activation", words * n * layer.act.storage_bits)
    add(ActionKind.SRAM_READ, "weight", (weight_words + update_weight_words) * n * weight_bits)
    if row > 1:  # kept for the steps to come; a lane's own operand register is in its price
        kept = Action(ActionKind.REGISTER_WRITE, "weight_register", weight_bits)
        counts[kept] += (weight_words + update_weight_words) * n

    fill, lsb_fill = _split_fill(schedule, placement)
    add(ActionKind.SRAM_WRITE, "activation", fill)
    add(ActionKind.SRAM_WRITE, "weight", schedule.weight_fill_bits)
    codes, low_codes = placement.code_write_bits * images, placement.code_lsb_write_bits * images
    add(ActionKind.SRAM_WRITE, "activation", codes - low_codes)
    if accelerator.memory.activation_lsb is not None:
        add(ActionKind.SRAM_WRITE, "activation_lsb", lsb_fill + low_codes)
    off_chip_reads, off_chip_writes = placement.traffic.read_bits * images, placement.traffic.write_bits * images
    spilled = spilled_bits(schedule, array.psum_bits)
    add(ActionKind.SRAM_WRITE, "output", spilled)
    add(ActionKind.SRAM_READ, "output", spilled)
    # What leaves the chip passes the output buffer; a shortcut that comes from off chip does too.
    add(ActionKind.SRAM_WRITE, "output", off_chip_writes + off_chip_reads + placement.shortcut_write_bits * images)
    add(ActionKind.SRAM_READ, "output", off_chip_writes + placement.shortcut_read_bits * images)
    add(ActionKind.DRAM_READ, "off_chip", int(schedule.segment_read_bits.sum()))
    add(ActionKind.DRAM_WRITE, "off_chip", int(schedule.segment_write_bits.sum()))
    return counts


def _pe_words(layer: Layer, accelerator: Accelerator, schedule: Schedule, timing: Timing) -> int:
    """Activation words that pixels of the PE array take."""
    g = layer.geometry
    depthwise = g.groups > 1 and g.group_in_channels == 1 == g.group_out_channels
    own_ports = depthwise and accelerator.depthwise is DepthwisePort.OWN_PORT
    return _window_words(layer, schedule, timing.tile_on_lsb == 0, own_ports)


def _window_words(layer: Layer, schedule: Schedule, tiles: NDArray[np.bool_], own_ports: bool) -> int:
    """Activation words that the chosen tiles read: one a pixel, word and tap that is no padding; for each column with
    own ports."""
    g = layer.geometry
    taps = g.inside_taps().reshape(g.out_pixels, -1)  # [pixels, taps] of 0 and 1
    before = np.zeros((taps.shape[0] + 1, taps.shape[1] + 1), dtype=np.int64)  # sums over the pixels and taps before
    before[1:, 1:] = taps.cumsum(axis=0).cumsum(axis=1)
    segment = schedule.tile_segment[tiles]
    pixel = schedule.tile_first_pixel[tiles]
    end = pixel + schedule.tile_pixels[tiles]
    tap = schedule.segment_first_step[segment] // schedule.words
    tap_end = tap + schedule.segment_steps[segment] // schedule.words
    inside = before[end, tap_end] - before[pixel, tap_end] - before[end, tap] + before[pixel, tap]
    if own_ports:
        inside = inside * schedule.segment_columns[segment]
    return int(inside.sum()) * schedule.words


def spilled_bits(schedule: Schedule, psum_bits: int) -> int:
    """Partial sums that parts of K before the last write to the output buffer, and later parts read back."""
    if schedule.parts == 1:
        return 0
    not_last = schedule.segment_first_step + schedule.segment_steps < schedule.steps
    return int((schedule.segment_columns * schedule.segment_pixels)[not_last].sum()) * psum_bits


def _split_fill(schedule: Schedule, placement: Placement) -> tuple[int, int]:
    traffic = placement.traffic
    pixel = traffic.pixel_bits + traffic.pixel_lsb_bits
    low = schedule.activation_fill_bits * traffic.pixel_lsb_bits // pixel if pixel else 0
    return schedule.activation_fill_bits - low, low


def crossbar_actions(
    layer: Layer,
    accelerator: Accelerator,
    widths: LaneWidths,
    schedule: Schedule,
    timing: Timing,
    placement: Placement,
    mask: NDArray[np.bool_] | None,
) -> Counts:
    """Count bits through each level of the multiplexers: words as they are delivered, one that lanes share for each."""
    array, memory = accelerator.array, accelerator.memory
    gated, n = layer.gate is not None and accelerator.organisation is not Organisation.DENSE, array.multipliers
    muxes, words = crossbar(accelerator, widths), _pe_words(layer, accelerator, schedule, timing)
    bits: Counter[str] = Counter()
    if accelerator.update is None:
        sign = layer.act.storage_bits - layer.act.bits if gated else 0  # in both streams
        bits["pixels"] = words * n * (layer.act.storage_bits + sign)
    else:
        high, low = placement.planes
        bits["pixels"] = words * n * high
        if mask is not None:
            lane_words = int((mask.sum(axis=(0, 1)) * layer.geometry.taps_inside()).sum()) * schedule.words
        else:
            lane_words = _window_words(layer, schedule, timing.tile_on_lsb == 1, own_ports=True)
            bits["pixels_lsb"] = words * n * low
            bits["lanes_msb"] = lane_words * n * high
        bits["lanes_lsb"] = lane_words * n * low
        row = memory.weight.row_steps
        row_bits = row * n * layer.weight_format.storage_bits
        bits["weights"] = len(timing.launches) * -(-schedule.steps // row) * row_bits
        launched, columns = int(timing.launches[:, 3].sum()), schedule.segment_columns[schedule.tile_segment]
        bits["entries"] = launched * entry_bits(array.psum_bits, layer.geometry.out_pixels) if gated else 0
        bits["results"] = launched * array.psum_bits
        bits["ports"] = int((columns * schedule.tile_pixels).sum()) * array.psum_bits
    passed = sum(muxes[name].levels * count for name, count in bits.items() if count)
    return Counter({Action(ActionKind.SELECT, CROSSBAR): passed})


def parameter_actions(layer: Layer, accelerator: Accelerator, schedule: Schedule) -> Counts:
    """Count what channels are given out of the weight buffer, into registers at their columns.

    Thresholds T_c and the parameters of post steps, a channel's for each channel tile (of every image and band, once
    the last part of K drains); what all channels share once for a layer and batch.
    """
    psum = accelerator.array.psum_bits
    gated = layer.gate is not None and accelerator.organisation is not Organisation.DENSE
    last = schedule.segment_first_step + schedule.segment_steps == schedule.steps
    channels = int(schedule.segment_columns[last].sum())
    of_channel, of_layer = parameter_bits(layer, psum)
    counts: Counts = Counter()
    for component, bits, sets in (
        ("comparator", psum + 1 if gated else 0, channels),
        (POST, of_channel, channels),
        (POST, of_layer, 1),
    ):
        if bits:
            counts[Action(ActionKind.SRAM_READ, "weight")] += sets * bits
            counts[Action(ActionKind.REGISTER_WRITE, component, bits)] += sets
    return counts


def output_actions(layer: Layer, accelerator: Accelerator, images: int, updated: int, drained: int) -> Counts:
    """Count comparators, shadow registers, update queue and post-processing; `drained`: accumulators that moved from
    the PE array to the shadow registers."""
    org, psum = accelerator.organisation, accelerator.array.psum_bits
    gated = layer.gate is not None and org is not Organisation.DENSE
    outputs = images * layer.geometry.outputs
    counts: Counts = Counter()
    counts[Action(ActionKind.REGISTER_WRITE, "array", psum)] += drained  # shadow registers
    if gated:
        counts[Action(ActionKind.COMPARE, "comparator", psum)] += outputs
        if org is Organisation.GATED_FUSED:
            counts[Action(ActionKind.REGISTER_WRITE, "array", psum)] += outputs  # hand-over to the LSB parts
        if org is Organisation.DECOUPLED:
            entry = entry_bits(psum, layer.geometry.out_pixels)
            counts[Action(ActionKind.FIFO_PUSH, "queue", entry)] += updated
            counts[Action(ActionKind.FIFO_POP, "queue", entry)] += updated
    for work in post_work(layer, psum):
        counts[work.action] += work.times * images
    return counts


def count_layer(
    layer: Layer,
    accelerator: Accelerator,
    widths: LaneWidths,
    job: Job,
    timing: Timing,
    placement: Placement,
    images: int,
    mask: NDArray[np.bool_] | None,
) -> tuple[Actions, int, int]:
    """Return everything the layer did over `images` images, and the busy lane-cycles of the PE array and the LSB
    side."""
    updated = int(mask.sum()) if mask is not None else 0
    counts, busy, update_busy = lane_actions(layer, accelerator, widths, job, timing, images, updated)
    schedule = job.schedule
    counts += memory_actions(layer, accelerator, schedule, timing, placement, images)
    counts += crossbar_actions(layer, accelerator, widths, schedule, timing, placement, mask)
    counts += parameter_actions(layer, accelerator, schedule)
    tile_outputs = schedule.segment_columns[schedule.tile_segment] * schedule.tile_pixels
    counts += output_actions(layer, accelerator, images, updated, int(tile_outputs[timing.tile_on_lsb == 0].sum()))
    return Actions(dict(counts)), busy, update_busy
