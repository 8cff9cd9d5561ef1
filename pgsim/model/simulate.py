"""A trace through an accelerator: values, mask, timing, counts and energy, layer by layer.

    trace layer --arith--> outputs (checked against the recorded) + mask --engine--> Timing --counts--> Actions
    --prices--> Energy

Each layer is fed its recorded activations, so that every accelerator is held to the same integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsim import __version__
from pgsim.arith import overflow
from pgsim.arith.formats import GatePolicy
from pgsim.errors import MismatchError
from pgsim.hw.accelerator import Accelerator, DepthwisePort, GateSource, Organisation
from pgsim.hw.curve import Price
from pgsim.hw.prices import EnergyTable
from pgsim.model.cost import area, energy, price_of
from pgsim.model.counts import count_layer
from pgsim.model.facts import layer_facts
from pgsim.model.fast import run_fast
from pgsim.model.job import ArrayCause, GroupCause, Job, Timing, make_job
from pgsim.model.lanes import LaneWidths, multiplier_bits, resolve_widths
from pgsim.model.residency import Placement, place
from pgsim.model.schedule import Schedule, make_schedule
from pgsim.results.audit import LayerFacts, Prices, audit
from pgsim.results.layer import LayerCounts, LayerResult, LayerShape
from pgsim.results.run import Check, Provenance, RunResult
from pgsim.workload.layer import Gate, Layer, LayerKind, Requantise
from pgsim.workload.trace import LayerTensors, Trace

Progress = Callable[[str, int, int], None]
Observer = Callable[[int, int, Job, Timing], None]


class Engine(Enum):
    """Which engine counts the cycles; they agree in every count."""

    FAST = "fast"  # compiled, skips cycles in which nothing changes; values from pgsim.arith
    CLOCKED = "clocked"  # every cycle in Python, computing with the operands; for small layers


@dataclass(frozen=True)
class _Machine:
    """An accelerator with everything that is the same for all layers of a trace."""

    accelerator: Accelerator
    widths: LaneWidths
    prices: EnergyTable
    areas: dict[str, Price]


def simulate(
    trace: Trace,
    accelerator: Accelerator,
    prices: EnergyTable,
    *,
    beside: Sequence[EnergyTable] = (),
    engine: Engine = Engine.FAST,
    verify: bool = True,
    progress: Progress | None = None,
    observe: Observer | None = None,
) -> RunResult:
    """Run every layer of `trace` through `accelerator` and return what it took.

    `verify` compares every output and mask bit with the recorded ones and raises MismatchError at the first
    difference. The result's `beside` has the same counts at the prices of the tables `beside`.

    `progress` is called with (layer name, MACs done, MACs in all) after each batch of a layer, `observe`
    with (layer index, first image of the batch, job, timing). Raises InputError where a buffer is too small for any
    tile, OverflowDetected where an accumulator overflows and the accelerator says that this is an error.
    """
    widths = resolve_widths(accelerator, trace)
    machine = _Machine(accelerator, widths, prices, area(accelerator, widths, prices))
    placements = place(trace, accelerator, widths, accelerator.array.psum_bits)
    all_macs, done_macs = trace.images * sum(layer.geometry.macs for layer in trace.layers), 0
    counted: list[tuple[LayerShape, LayerCounts]] = []
    facts: list[LayerFacts] = []
    for index, layer in enumerate(trace.layers):
        work = _compute(layer, trace.tensors(index), machine, placements[index], verify)
        parts: list[LayerCounts] = []
        known: list[LayerFacts] = []
        schedule: Schedule | None = None
        together = trace.images if layer.recurrent else accelerator.batch
        for first in range(0, trace.images, together):
            batch = work.images(slice(first, first + together))
            images = len(batch.tensors.activation)
            if schedule is None or images != together:
                schedule = make_schedule(
                    layer, accelerator, widths, images, work.placement.traffic, gated=work.gate is not None
                )
            job = make_job(schedule, layer.geometry, accelerator, batch.mask)
            timing = run_fast(job) if engine is Engine.FAST else _run_clocked(batch, machine, schedule, job)
            parts.append(_count(batch, machine, job, timing, verify))
            wrong = parts[-1].outputs_differing if work.gate is layer.gate else 0
            psum_bits = accelerator.array.psum_bits
            known.append(layer_facts(job, timing, work.placement, images, batch.mask, psum_bits, wrong))
            if observe is not None:
                observe(index, first, job, timing)
            done_macs += layer.geometry.macs * images
            if progress is not None:
                progress(layer.name, done_macs, all_macs)
        assert schedule is not None
        counted.append((_shape(index, layer, machine, schedule, work.placement), reduce(add, parts)))
        facts.append(reduce(add, known))
    second = [_Machine(accelerator, widths, table, area(accelerator, widths, table)) for table in beside]
    result, *others = (_price(trace, one, placements, counted, facts) for one in (machine, *second))
    return replace(result, beside=tuple(others))


def _price(
    trace: Trace,
    machine: _Machine,
    placements: list[Placement],
    counted: Sequence[tuple[LayerShape, LayerCounts]],
    facts: list[LayerFacts],
) -> RunResult:
    """Return the counts of all layers at the prices of one table."""
    accelerator, prices = machine.accelerator, machine.prices
    rows = [
        LayerResult(shape, counts, energy(counts.actions, counts.cycles, accelerator, prices, machine.areas))
        for shape, counts in counted
    ]
    result = RunResult(
        provenance=Provenance(
            version=__version__,
            trace=" ".join(str(trace.info[key]) for key in ("model", "dataset") if key in trace.info),
            trace_sha256=trace.sha256,
            accelerator=accelerator.name,
            accelerator_sha256=accelerator.sha256,
            energy_table=prices.name,
            energy_table_sha256=prices.sha256,
        ),
        organisation=accelerator.organisation.value,
        images=trace.images,
        clock_mhz=accelerator.clock_mhz,
        multiplier_bits=multiplier_bits(accelerator, machine.widths),
        area_um2={name: price.value for name, price in machine.areas.items()},
        layers=tuple(rows),
        audit=(),
        assumed=_assumed(trace, machine, placements, rows),
    )
    return replace(result, audit=_audit(trace, machine, result, facts))


def _audit(trace: Trace, machine: _Machine, result: RunResult, facts: list[LayerFacts]) -> tuple[Check, ...]:
    accelerator, prices = machine.accelerator, machine.prices
    buffers = accelerator.memory.buffers
    leakage = {
        name: prices.sram_leakage_mw(buffers[name].bank_bits).value * buffers[name].arrays
        if name in buffers
        else prices.logic_leakage_mw(area_um2).value
        for name, area_um2 in result.area_um2.items()
    }
    priced = Prices(lambda action: price_of(action, accelerator, prices).value, leakage, accelerator.clock_mhz)
    geometries = [layer.geometry for layer in trace.layers]
    return audit(result.layers, geometries, facts, accelerator.array.columns, priced, result.totals)


@dataclass(frozen=True)
class _Work:
    """One layer's integers on the machine: what was recorded, and what the machine's gate makes of it."""

    layer: Layer
    tensors: LayerTensors
    gate: Gate | None  # the one that the machine applies
    outputs: NDArray[np.int64]
    mask: NDArray[np.bool_] | None
    placement: Placement

    def images(self, chosen: slice) -> _Work:
        """The part of some images."""
        recorded = self.tensors
        tensors = LayerTensors(
            recorded.activation[chosen],
            recorded.output[chosen],
            recorded.mask[chosen] if recorded.mask is not None else None,
        )
        mask = self.mask[chosen] if self.mask is not None else None
        return replace(self, tensors=tensors, outputs=self.outputs[chosen], mask=mask)


def gate_of(layer: Layer, accelerator: Accelerator) -> Gate | None:
    """Return the gate that the accelerator applies to a layer: the trace's, its own zero-prediction, or none
    (dense)."""
    if layer.gate is None or accelerator.organisation is Organisation.DENSE:
        return None
    if accelerator.gate is GateSource.ZERO_PREDICTION:
        return replace(layer.gate, threshold=np.zeros_like(layer.gate.threshold), policy=GatePolicy.ZERO, delta=None)
    return layer.gate


def layer_values(
    layer: Layer, gate: Gate | None, activation: NDArray[np.int16], accumulator: overflow.Accumulator
) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Return outputs, int64 [N, K, P, Q], and mask, bool or None, of a layer under a gate, in accumulators of the
    accelerator's width. Raises OverflowDetected where one overflows and the accelerator says that this is an error."""
    if gate is None:
        return overflow.dense_layer(activation, layer.weight, layer.geometry, accumulator, layer.name), None
    values = overflow.gated_layer(
        activation,
        layer.weight,
        layer.geometry,
        layer.act.encoding,
        layer.act.bits,
        gate.pred_bits,
        gate.threshold,
        gate.policy,
        accumulator,
        layer.name,
    )
    return values.a, values.mask


def _compute(layer: Layer, tensors: LayerTensors, machine: _Machine, placement: Placement, verify: bool) -> _Work:
    """Compute a layer over all images, checked against what was recorded where the gate is the trace's."""
    array = machine.accelerator.array
    gate = gate_of(layer, machine.accelerator)
    accumulator = overflow.Accumulator(array.psum_bits, array.multipliers, array.overflow)
    outputs, mask = layer_values(layer, gate, tensors.activation, accumulator)
    if verify and gate is layer.gate:
        _check_recorded(layer, tensors, outputs, mask, accumulator)
    return _Work(layer, tensors, gate, outputs, mask, placement)


def _count(work: _Work, machine: _Machine, job: Job, timing: Timing, verify: bool) -> LayerCounts:
    geometry, images, mask = work.layer.geometry, len(work.tensors.activation), work.mask
    actions, busy, update_busy = count_layer(
        work.layer, machine.accelerator, machine.widths, job, timing, work.placement, images, mask
    )
    updated = int(mask.sum()) if mask is not None else 0
    return LayerCounts(
        images=images,
        outputs=images * geometry.outputs,
        outputs_updated=updated,
        macs_issued=images * geometry.macs,
        macs_useful=images * geometry.useful_macs,
        macs_updated=updated * geometry.reduction,
        lane_cycles_busy=busy,
        update_lane_cycles_busy=update_busy,
        cycles=timing.cycles,
        array_causes=_named(ArrayCause, timing.array_causes),
        group_causes=_named(GroupCause, timing.group_causes) if job.groups else {},
        queue_histogram=tuple(int(count) for count in timing.queue_histogram) if job.groups else (),
        channel_read_cycles=timing.channel_read_cycles,
        channel_write_cycles=timing.channel_write_cycles,
        outputs_checked=work.outputs.size if verify else 0,
        outputs_differing=int(np.count_nonzero(work.outputs != work.tensors.output)) if verify else 0,
        actions=actions,
    )


def _named(causes: type[ArrayCause] | type[GroupCause], counts: NDArray[np.int64]) -> Mapping[str, int]:
    return {cause.name.lower(): int(counts[cause]) for cause in causes}


def _check_recorded(
    layer: Layer,
    tensors: LayerTensors,
    outputs: NDArray[np.int64],
    mask: NDArray[np.bool_] | None,
    accumulator: overflow.Accumulator,
) -> None:
    pairs: list[tuple[str, NDArray[Any], NDArray[Any]]] = [("output", tensors.output, outputs)]
    if mask is not None and tensors.mask is not None:
        pairs.append(("mask", tensors.mask, mask))
    for what, recorded, computed in pairs:
        wrong = np.argwhere(recorded != computed)
        if len(wrong):
            where = tuple(int(i) for i in wrong[0])
            if accumulator.overflow is not overflow.Overflow.ERROR:
                raise MismatchError(
                    f"layer {layer.name}: with array.psum_bits {accumulator.psum_bits} and array.overflow "
                    f"{accumulator.overflow.value}, {what}{list(where)} is {int(computed[where])}, not the recorded "
                    f"{int(recorded[where])} ({len(wrong)} of {recorded.size} differ; without verification it runs)"
                )
            raise MismatchError(
                f"layer {layer.name}: recorded {what}{list(where)} must be {int(computed[where])}, not "
                f"{int(recorded[where])} ({len(wrong)} of {recorded.size} differ; `pgsim verify` tells more)"
            )


def _run_clocked(work: _Work, machine: _Machine, schedule: Schedule, job: Job) -> Timing:
    from pgsim.model.clocked import Operands, run_clocked

    layer, accelerator, activation = work.layer, machine.accelerator, work.tensors.activation
    operands = Operands.under(work.gate, layer, schedule, accelerator, machine.widths, activation)
    timing, values = run_clocked(job, operands)
    wrong = np.argwhere(values != work.outputs)
    if len(wrong):
        where = tuple(int(i) for i in wrong[0])
        raise MismatchError(
            f"layer {layer.name}: the clocked engine's output{list(where)} must be {int(work.outputs[where])}, "
            f"not {int(values[where])}"
        )
    return timing


def _shape(index: int, layer: Layer, machine: _Machine, schedule: Schedule, placement: Placement) -> LayerShape:
    g, accelerator = layer.geometry, machine.accelerator
    array, update = accelerator.array, accelerator.update
    kind = layer.kind_words
    lanes = array.rows * array.columns * array.multipliers
    update_lanes = update.groups * update.lanes * array.multipliers if update else 0
    if accelerator.organisation is Organisation.GATED_FUSED:
        update_lanes = lanes
    passes = str(schedule.passes.predict)
    if schedule.passes.update:
        passes += f" + {schedule.passes.update}"
    tiles = len(np.unique(schedule.segment_first_channel))
    tiling = (
        f"{_several(schedule.bands, 'band')} of {_several(schedule.band_rows, 'row')}, "
        f"{_several(tiles, 'channel tile')} of {int(schedule.segment_columns.max())}, "
        f"{_several(len(np.unique(schedule.tile_first_pixel)), 'pixel tile')}"
    )
    if schedule.parts > 1:
        tiling += f", K in {schedule.parts} parts"
    if g.kind is LayerKind.CONV:
        window = (
            f"{g.kernel[0]}x{g.kernel[1]}/{g.stride[0]}" if g.stride[0] == g.stride[1] else f"{g.kernel}/{g.stride}"
        )
        shape = f"{g.in_channels}x{g.in_height}x{g.in_width} -> {g.out_channels}x{g.out_height}x{g.out_width}, {window}"
    else:
        shape = f"{g.in_height}x{g.in_channels} -> {g.in_height}x{g.out_channels}"
    return LayerShape(
        index=index,
        name=layer.name,
        kind=kind,
        shape=shape,
        gated=layer.gate is not None,
        gate_applied=layer.gate is not None and accelerator.organisation is not Organisation.DENSE,
        act_bits=layer.act.bits,
        pred_bits=layer.pred_bits,
        weight_bits=layer.weight_format.bits,
        passes=passes,
        tiling=tiling,
        placement=placement.words,
        lanes=lanes,
        update_lanes=update_lanes,
        groups=update.groups if update else 0,
    )


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _assumed(trace: Trace, machine: _Machine, placements: list[Placement], rows: list[LayerResult]) -> tuple[str, ...]:
    """Everything that no source states, in words for the output."""
    accelerator = machine.accelerator
    words = list(accelerator.assumed)
    if machine.widths.from_trace:
        lsb = f" and {machine.widths.lsb}" if machine.widths.lsb else ""
        words.append(f"lane widths follow the trace: activation operands of {machine.widths.msb}{lsb} bits")
    words.append("writes into buffers, and reads of shortcuts, thresholds and parameters, take no ports")
    words.append("area and leakage are without control and wiring; ports do what the trace's layers need")
    priced = sorted(set().union(*(row.energy.assumed for row in rows)))
    if priced:
        words.append(
            f"prices without a published source: {', '.join(priced)} "
            f"(`pgsim hw prices {machine.prices.name}` has each one's reason)"
        )
    raw = [layer.name for layer, placement in zip(trace.layers, placements, strict=True) if placement.raw_output]
    if raw:
        words.append(f"accumulators leave the chip as they are, what follows is outside the trace: {', '.join(raw)}")
    unread = [name for placement in placements for name in placement.unread]
    if unread:
        words.append(f"what no layer of the trace reads leaves the chip: {', '.join(unread)}")
    if trace.boundaries:
        words.append("recorded boundaries (" + ", ".join(b.name for b in trace.boundaries) + ") come from off chip")
    if any(isinstance(step, Requantise) and step.shift is not None for layer in trace.layers for step in layer.post):
        words.append("codes that are shifted as they are stored cost no more than others: an offset on their address")
    if any(layer.geometry.groups > 1 for layer in trace.layers) and accelerator.depthwise is DepthwisePort.OWN_PORT:
        words.append("each column has a window port of its own for depthwise layers")
    return tuple(words)
