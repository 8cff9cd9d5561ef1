"""A trace through the RTL of an accelerator, layer by layer and batch by batch, each compared with an engine.

trace layer --arith--> outputs, mask --engine--> Timing   ==   events <--RTL-- image of the layer
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pgsim.arith import overflow
from pgsim.arith.formats import GatePolicy
from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator
from pgsim.model.clocked import Operands, run_clocked
from pgsim.model.fast import run_fast
from pgsim.model.job import ArrayCause, GroupCause, Job, Timing, make_job
from pgsim.model.lanes import LaneWidths, resolve_widths
from pgsim.model.residency import Placement, place
from pgsim.model.schedule import Schedule, make_schedule
from pgsim.model.simulate import gate_of
from pgsim.rtl.bench import Bench
from pgsim.rtl.cosim import Comparison, compare, outputs_of, timing_of
from pgsim.rtl.generate import Capacity
from pgsim.rtl.image import make_image, needed_capacity
from pgsim.workload.layer import Gate, Layer
from pgsim.workload.trace import Trace


@dataclass(frozen=True)
class LayerComparison:
    """One layer of a trace through RTL and engine, all its batches."""

    index: int
    name: str
    comparison: Comparison
    lane_operations: int  # of lanes whose array was at work
    seconds: float  # that the RTL took, loading included

    def __add__(self, other: LayerComparison) -> LayerComparison:
        return LayerComparison(
            self.index,
            self.name,
            self.comparison + other.comparison,
            self.lane_operations + other.lane_operations,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Network:
    """A trace on an accelerator: what is compared, and how large a machine must be to take every layer of it."""

    trace: Trace
    accelerator: Accelerator
    widths: LaneWidths
    placements: tuple[Placement, ...]
    capacity: Capacity

    def schedule(self, index: int, images: int) -> Schedule:
        """The mapper's layout of one layer over a batch of images."""
        layer = self.trace.layers[index]
        gated = gate_of(layer, self.accelerator) is not None
        return make_schedule(layer, self.accelerator, self.widths, images, self.placements[index].traffic, gated=gated)

    def together(self, layer: Layer, images: int) -> int:
        """Images of a layer that run together: a batch, or all steps of a sequence."""
        return images if layer.recurrent else min(images, self.accelerator.batch)


def make_network(trace: Trace, accelerator: Accelerator, images: int) -> Network:
    """Lay out a trace of which `images` images are run. Raises InputError where a buffer is too small for any tile."""
    widths = resolve_widths(accelerator, trace)
    placements = tuple(place(trace, accelerator, widths, accelerator.array.psum_bits))
    bare = Network(trace, accelerator, widths, placements, Capacity())
    needs = []
    for index, layer in enumerate(trace.layers):
        together = bare.together(layer, images)
        job = make_job(bare.schedule(index, together), layer.geometry, accelerator, None)
        needs.append(needed_capacity(layer, job, accelerator, together))
    capacity = reduce(Capacity.joined, needs).rounded()
    return Network(trace, accelerator, widths, placements, capacity)


def cosimulate(
    network: Network,
    layers: Sequence[int],
    images: int,
    *,
    engine: str = "fast",
    wave: Path | None = None,
    cache: Path | None = None,
    started: Callable[[str, int, int], None] | None = None,
) -> Iterator[LayerComparison]:
    """Run layers of the network through the RTL and an engine ("fast" or "clocked"), yield each one's comparison.

    `wave` names a VCD file of the whole run. `started` is called with (what, amount done, amount in all) before the
    machine is compiled and before each batch. Raises InputError where a tool is missing, OverflowDetected where an
    accumulator overflows on a machine that calls this an error.
    """
    trace, accelerator = network.trace, network.accelerator
    if not 1 <= images <= trace.images:
        raise InputError(f"--images must be 1 .. {trace.images}, the trace's images, not {images}")
    total = images * sum(trace.layers[index].geometry.macs for index in layers)
    done = 0
    report = started or (lambda _what, _done, _total: None)
    report("compiling the RTL", 0, total)
    with Bench(accelerator, network.widths, network.capacity, waves=wave is not None, cache=cache) as bench:
        if wave is not None:
            bench.wave(wave)
        for index in layers:
            layer = trace.layers[index]
            work = _Work.of(network, index, images)
            found: list[LayerComparison] = []
            for first in range(0, images, network.together(layer, images)):
                tick = partial(report, layer.name, done, total)
                tick()
                found.append(_compare_batch(network, work, bench, first, images, engine, tick))
                done = min(total, done + layer.geometry.macs * network.together(layer, images))
            yield reduce(add, found)


@dataclass(frozen=True)
class _Work:
    """One layer's integers: codes, and what the machine's gate makes of them."""

    index: int
    layer: Layer
    gate: Gate | None
    activation: NDArray[np.int16]
    outputs: NDArray[np.int64]
    mask: NDArray[np.bool_] | None

    @staticmethod
    def of(network: Network, index: int, images: int) -> _Work:
        layer, array = network.trace.layers[index], network.accelerator.array
        gate = gate_of(layer, network.accelerator)
        activation = network.trace.tensors(index).activation[:images]
        accumulator = overflow.Accumulator(array.psum_bits, array.multipliers, array.overflow)
        if gate is None:
            outputs = overflow.dense_layer(activation, layer.weight, layer.geometry, accumulator, layer.name)
            return _Work(index, layer, None, activation, outputs, None)
        values = overflow.gated_layer(
            activation, layer.weight, layer.geometry, layer.act.encoding, layer.act.bits, gate.pred_bits,
            gate.threshold, gate.policy, accumulator, layer.name,
        )  # fmt: skip
        return _Work(index, layer, gate, activation, values.a, values.mask)


def _compare_batch(
    network: Network, work: _Work, bench: Bench, first: int, images: int, engine: str, tick: Callable[[], None]
) -> LayerComparison:
    layer, accelerator = work.layer, network.accelerator
    last = min(first + network.together(layer, images), images)
    activation, outputs = work.activation[first:last], work.outputs[first:last]
    schedule = network.schedule(work.index, last - first)
    mask = work.mask[first:last] if work.mask is not None else None
    job = make_job(schedule, layer.geometry, accelerator, mask)
    timing = run_fast(job) if engine == "fast" else _clocked(network, work, job, activation)
    began = time.perf_counter()
    bench.load(make_image(layer, work.gate, job, accelerator, activation))
    events = bench.run(2 * timing.cycles + 10000, tick)
    seconds = time.perf_counter() - began
    comparison = compare(timing_of(events, job), outputs_of(events, job, layer.geometry), timing, outputs)
    array, update = accelerator.array, accelerator.update
    operations = int(events.array_causes[ArrayCause.BUSY]) * array.lanes + events.low_part_cycles * array.lanes
    if update is not None:
        operations += int(events.group_causes[GroupCause.BUSY]) * update.lanes * array.multipliers
    return LayerComparison(work.index, layer.name, comparison, operations, seconds)


def _clocked(network: Network, work: _Work, job: Job, activation: NDArray[np.int16]) -> Timing:
    gate = work.gate
    operands = Operands(
        work.layer, job.schedule, network.accelerator, network.widths, activation,
        gate.threshold if gate else None, gate.policy if gate else GatePolicy.KEEP,
    )  # fmt: skip
    return run_clocked(job, operands)[0]
