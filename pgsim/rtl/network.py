"""A trace through the RTL of an accelerator, layer by layer and batch by batch, each compared with an engine.

trace layer --arith--> outputs, mask --engine--> Timing   ==   events <--RTL-- image of the layer
            outputs --post steps--> codes, shortcuts, logits   ==   memories of the RTL's post-processing unit
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pgsim.arith import overflow
from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator
from pgsim.model.clocked import Operands, run_clocked
from pgsim.model.fast import run_fast
from pgsim.model.inference import Chain
from pgsim.model.job import ArrayCause, GroupCause, Job, Timing, make_job
from pgsim.model.lanes import LaneWidths, resolve_widths
from pgsim.model.residency import Placement, place
from pgsim.model.schedule import Schedule, make_schedule
from pgsim.model.simulate import gate_of, layer_values
from pgsim.rtl.bench import Bench, Unfinished
from pgsim.rtl.cosim import Comparison, compare_events, cycle_of
from pgsim.rtl.generate import Capacity
from pgsim.rtl.image import make_image, needed_capacity
from pgsim.rtl.post_cosim import compare_kept, unfit
from pgsim.rtl.post_plan import PostPlan, added, keepers, plan_post
from pgsim.rtl.post_unit import PostUnit
from pgsim.rtl.side_by_side import side_by_side
from pgsim.rtl.waves import Repeat
from pgsim.workload.layer import Gate, Layer, Requantise
from pgsim.workload.trace import LayerTensors, Trace


@dataclass(frozen=True)
class LayerComparison:
    """One layer of a trace through RTL and engine, all its batches."""

    index: int
    name: str
    comparison: Comparison
    lane_operations: int  # of lanes whose array was at work
    spans: tuple[tuple[float, float], ...]  # begin and end, in seconds, of the RTL's work on a batch, loading included
    repeat: Repeat | None = None  # runs the first batch that differs once more
    unfit: str = ""  # which shortcut does not fit its bits on this machine, if any

    def __add__(self, other: LayerComparison) -> LayerComparison:
        return LayerComparison(
            self.index,
            self.name,
            self.comparison + other.comparison,
            self.lane_operations + other.lane_operations,
            self.spans + other.spans,
            self.repeat or other.repeat,
            self.unfit or other.unfit,
        )

    @property
    def seconds(self) -> float:
        """Seconds in which the RTL was at work, on any machine."""
        taken, until = 0.0, float("-inf")
        for begin, end in sorted(self.spans):
            taken += max(0.0, end - max(begin, until))
            until = max(until, end)
        return taken


@dataclass(frozen=True)
class Network:
    """A trace on an accelerator: what is compared, and how large a machine must be to take every layer of it.

    Where no post-processing unit runs what follows its layers, `post` is None and `no_post` says why.
    """

    trace: Trace
    accelerator: Accelerator
    widths: LaneWidths
    placements: tuple[Placement, ...]
    capacity: Capacity
    post: PostPlan | None = None
    no_post: str = ""

    @property
    def unit(self) -> PostUnit | None:
        """The post-processing unit behind the machine's ports."""
        return self.post.unit if self.post else None

    def schedule(self, index: int, images: int) -> Schedule:
        """The mapper's layout of one layer over a batch of images."""
        layer = self.trace.layers[index]
        gated = gate_of(layer, self.accelerator) is not None
        return make_schedule(layer, self.accelerator, self.widths, images, self.placements[index].traffic, gated=gated)

    def together(self, layer: Layer, images: int) -> int:
        """Images of a layer that run together: a batch, or all steps of a sequence."""
        return images if layer.recurrent else min(images, self.accelerator.batch)

    def in_memory(self, images: int) -> int:
        """Images whose tensors are kept at once when layers follow one another: the most that run together."""
        return max(self.together(layer, images) for layer in self.trace.layers)


def make_network(trace: Trace, accelerator: Accelerator, images: int) -> Network:
    """Lay out a trace of which `images` images are run. Raises InputError where a buffer is too small for any tile."""
    widths = resolve_widths(accelerator, trace)
    placements = tuple(place(trace, accelerator, widths, accelerator.array.psum_bits))
    bare = Network(trace, accelerator, widths, placements, Capacity())
    needs, schedules = [], []
    for index, layer in enumerate(trace.layers):
        together = bare.together(layer, images)
        schedules.append(bare.schedule(index, together))
        job = make_job(schedules[-1], layer.geometry, accelerator, None)
        needs.append(needed_capacity(layer, job, accelerator, together))
    sized = replace(bare, capacity=reduce(Capacity.joined, needs).rounded())
    array, kept = accelerator.array, bare.in_memory(images)
    try:
        post = plan_post(trace.layers, trace.boundaries, schedules, array.columns, array.psum_bits, kept)
    except InputError as error:
        return replace(sized, no_post=str(error))
    return replace(sized, post=post)


def cosimulate(
    network: Network,
    layers: Sequence[int],
    images: int,
    *,
    engine: str = "fast",
    benches: Sequence[Bench] = (),
    jobs: int = 1,
    wave: Path | None = None,
    assertions: bool = False,
    cache: Path | None = None,
    started: Callable[[str, int, int], None] | None = None,
) -> Iterator[LayerComparison]:
    """Run layers of the network through the RTL and an engine ("fast" or "clocked"), yield each one's comparison.

    Every layer starts from what the trace recorded: codes, and the outputs of layers that shortcuts come from.
    Machines take batches at once, each in a thread: `benches`, where they are compiled already, else `jobs` new ones.
    `wave` names a VCD file of the whole run on one machine; it is complete when the last layer has been yielded.
    `assertions` builds in those of the RTL; one that fails is a difference. `started` is called with (what, amount
    done, amount in all) before the machine is compiled and while batches run. Raises InputError where a tool is
    missing, OverflowDetected where an accumulator overflows on a machine that calls this an error, OSError where the
    waveform cannot be written.
    """
    trace = network.trace
    if not 1 <= images <= trace.images:
        raise InputError(f"--images must be 1 .. {trace.images}, the trace's images, not {images}")
    total = images * sum(trace.layers[index].geometry.macs for index in layers)
    done = 0
    report = started or (lambda _what, _done, _total: None)
    report("compiling the RTL", 0, total)

    def run(batch: _Batch, machine: Bench, tick: Callable[[], None]) -> LayerComparison:
        machine.forget()
        return compare_batch(network, batch.work, batch.expect, machine, batch.images, engine, tick, at=0)

    def show(batch: _Batch) -> None:
        report(batch.work.layer.name, min(done, total), total)

    with ExitStack() as stack:
        machines = list(benches)
        for _ in range(0 if benches else 1 if wave else jobs):
            one = machine_of(network, None, wave=wave, assertions=assertions, cache=cache)
            machines.append(stack.enter_context(one))
        found: list[LayerComparison] = []
        for batch, comparison in side_by_side(machines, _batches(network, layers, images), run, show):
            found.append(comparison)
            first, last = batch.images
            done += batch.work.layer.geometry.macs * (last - first)
            if last == images:
                yield reduce(add, found)
                found.clear()


def _batches(network: Network, layers: Sequence[int], images: int) -> Iterator[_Batch]:
    """Chosen layers' batches in order, each with what the machine must make of it."""
    trace = network.trace
    part = some_images(trace, 0, images)
    chain = Chain(part)
    for index in sorted(_followed(trace.layers, layers) if network.post else set(layers)):
        layer, recorded = trace.layers[index], part.tensors(index)
        if index in layers:
            work = Work.of(network, index, recorded.activation)
            expect = Expected.of(network, chain, work, recorded)
            together = network.together(layer, images)
            for first in range(0, images, together):
                yield _Batch(work, expect, (first, min(first + together, images)))
        if network.post:
            chain.follow(index, recorded.output)


def compiled(
    network: Network,
    *,
    waves: bool = False,
    assertions: bool = False,
    optimise: int = 2,
    cache: Path | None = None,
    change: Callable[[dict[str, str]], dict[str, str]] | None = None,
) -> Bench:
    """Compile the network's machine. The options are `Bench`'s."""
    return Bench(
        network.accelerator, network.widths, network.capacity, network.unit, waves=waves,
        assertions=assertions, optimise=optimise, cache=cache, change=change,
    )  # fmt: skip


@contextmanager
def machine_of(
    network: Network,
    bench: Bench | None,
    *,
    wave: Path | None = None,
    assertions: bool = False,
    cache: Path | None = None,
) -> Iterator[Bench]:
    """Hand out `bench`, or the network's machine, compiled. `wave` names a VCD file of all that the latter will do.

    Raises OSError where the file cannot be written.
    """
    if bench is not None:
        yield bench
        return
    with compiled(network, waves=wave is not None, assertions=assertions, cache=cache) as machine:
        if wave is not None:
            machine.wave(wave)
        yield machine
        if wave is not None:
            machine.end_wave()


def _followed(layers: Sequence[Layer], chosen: Sequence[int]) -> set[int]:
    """Return the chosen layers and those whose shortcuts they need, directly or not."""
    gives = {step.name: index for index, layer in enumerate(layers) for step in keepers(layer)}
    followed, waiting = set[int](), set(chosen)
    while waiting:
        index = waiting.pop()
        followed.add(index)
        waiting |= {gives[name] for name in added(layers[index]) if name in gives} - followed
    return followed


@dataclass(frozen=True)
class _SomeImages:
    """Some images of a trace's recorded tensors: a TensorSource."""

    trace: Trace
    first: int
    last: int

    def tensors(self, index: int) -> LayerTensors:
        whole, some = self.trace.tensors(index), slice(self.first, self.last)
        mask = None if whole.mask is None else whole.mask[some]
        return LayerTensors(whole.activation[some], whole.output[some], mask)

    def boundary(self, index: int) -> NDArray[np.int64]:
        return self.trace.boundary(index)[self.first : self.last]


def some_images(trace: Trace, first: int, last: int) -> Trace:
    """Return the trace of images first .. last - 1 alone."""
    return replace(trace, images=last - first, source=_SomeImages(trace, first, last))


@dataclass(frozen=True)
class Work:
    """One layer's integers: codes, and what the machine's gate makes of them."""

    index: int
    layer: Layer
    gate: Gate | None
    activation: NDArray[np.int16]
    outputs: NDArray[np.int64]
    mask: NDArray[np.bool_] | None

    @staticmethod
    def of(network: Network, index: int, activation: NDArray[np.int16]) -> Work:
        """Compute what the machine must give for these codes, int16 [N, C, H, W]."""
        layer, array = network.trace.layers[index], network.accelerator.array
        gate = gate_of(layer, network.accelerator)
        accumulator = overflow.Accumulator(array.psum_bits, array.multipliers, array.overflow)
        return Work(index, layer, gate, activation, *layer_values(layer, gate, activation, accumulator))


@dataclass(frozen=True)
class Expected:
    """What the post-processing unit must leave after a layer, and the shortcuts that are put into its memory before.

    All int64 [N, K, P, Q] by name.
    """

    kept: Mapping[str, NDArray[np.int64]]
    shortcuts: Mapping[str, NDArray[np.int64]]
    alone: Mapping[str, NDArray[np.int64]]  # shortcuts that a run of this layer alone needs in the memory

    @staticmethod
    def of(network: Network, chain: Chain, work: Work, recorded: LayerTensors) -> Expected:
        """Take the layer's integers through its post steps; shortcuts are those of `chain`, all of them put in.

        Where the machine's outputs are the recorded ones, its codes must be the recorded codes of the layer that reads
        them. Where they are not, a shortcut may not fit its bits: it is there as it is.
        """
        if network.post is None:
            return Expected({}, {}, {})
        trace, layer = chain.trace, work.layer
        as_recorded = np.array_equal(work.outputs, recorded.output)
        kept = chain.kept_by(work.index, work.outputs, any_width=not as_recorded)
        if as_recorded:
            names = {step.name for step in layer.post if isinstance(step, Requantise)}
            for index, reader in enumerate(trace.layers):
                if reader.input_name in names:
                    name = reader.input_name
                    kept[name] = trace.tensors(index).activation.astype(np.int64).reshape(kept[name].shape)
                    names.discard(name)
        shortcuts = {name: chain.shortcut(name) for name in added(layer)}
        return Expected(kept, shortcuts, shortcuts)


@dataclass(frozen=True)
class _Batch:
    work: Work
    expect: Expected
    images: tuple[int, int]  # first .. last - 1


def compare_batch(
    network: Network,
    work: Work,
    expect: Expected,
    bench: Bench,
    images: tuple[int, int],
    engine: str,
    tick: Callable[[], None],
    *,
    at: int,
    codes: NDArray[np.int16] | None = None,
) -> LayerComparison:
    """Run images first .. last - 1 of a layer through RTL and engine and compare.

    `codes` go into the RTL instead of the layer's own, int16 [N, C, H, W] of those images. The first of them is number
    `at` in the memories of the post-processing unit.
    """
    layer, accelerator, (first, last) = work.layer, network.accelerator, images
    activation, outputs = work.activation[first:last], work.outputs[first:last]
    schedule = network.schedule(work.index, last - first)
    mask = work.mask[first:last] if work.mask is not None else None
    job = make_job(schedule, layer.geometry, accelerator, mask)
    timing = run_fast(job) if engine == "fast" else _clocked(network, work, job, activation)
    began = time.perf_counter()

    def program(shortcuts: Mapping[str, NDArray[np.int64]]) -> NDArray[np.void] | None:
        if network.post is None:
            return None
        some = {name: values[first:last] for name, values in shortcuts.items()}
        return network.post.program(layer, schedule, at, some)

    image = make_image(layer, work.gate, job, accelerator, activation if codes is None else codes)
    bench.load(image, program(expect.shortcuts))
    try:
        events = bench.run(2 * timing.cycles + 10000, tick)
    except Unfinished as error:
        events = error.events
    span = (began, time.perf_counter())
    comparison = compare_events(events, job, layer.geometry, timing, outputs)
    too_wide = ""
    if network.post:
        kept = {name: values[first:last] for name, values in expect.kept.items()}
        too_wide = unfit(layer, kept)
        comparison += compare_kept(bench, events, network.post, layer, at, kept)
    repeat = None
    if comparison.first is not None:
        cycle = cycle_of(comparison.first, events, job)
        latest = max(events.cycles, timing.cycles)
        repeat = Repeat(image, program(expect.alone), latest - 1 if cycle is None else cycle, cycle is not None, latest)
    array, update = accelerator.array, accelerator.update
    operations = int(events.array_causes[ArrayCause.BUSY]) * array.lanes + events.low_part_cycles * array.lanes
    if update is not None:
        operations += int(events.group_causes[GroupCause.BUSY]) * update.lanes * array.multipliers
    return LayerComparison(work.index, layer.name, comparison, operations, (span,), repeat, too_wide)


def _clocked(network: Network, work: Work, job: Job, activation: NDArray[np.int16]) -> Timing:
    accelerator, widths = network.accelerator, network.widths
    operands = Operands.under(work.gate, work.layer, job.schedule, accelerator, widths, activation)
    return run_clocked(job, operands)[0]
