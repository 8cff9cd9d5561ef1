"""The run's audit of itself: every count compared with the same quantity from another source.

    trace geometry, masks ----.
    schedule (what must move) -+--> LayerFacts --.
    launches of the engine ----'                 +--> Checks: expected == found
    LayerResult (what was counted) --------------'

A rule that a layer or an accelerator has no use for (a queue in a dense one) yields no check.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from pgsim.hw.prices import Stimulus
from pgsim.results.actions import Action, ActionKind
from pgsim.results.layer import LayerResult
from pgsim.results.run import Check, Totals
from pgsim.workload.layer import Geometry

IDLE = (Stimulus.IDLE, Stimulus.GATED)
WORKING = tuple(stimulus for stimulus in Stimulus if stimulus not in IDLE)


class Prices(NamedTuple):
    """What the energies must come from: pJ of one action, leakage of each component in mW, the clock."""

    action_pj: Callable[[Action], float]
    leakage_mw: Mapping[str, float]
    clock_mhz: float


@dataclass(frozen=True)
class LayerFacts:
    """What one layer's counts must come to, from anything but the counters. Adding two gives two batches' facts.

    Bits are those that the schedule moves; cycles those that its work takes. `kept_bits` are outputs written to on-chip
    SRAMs; a queue's figures are 0 where there is none. `outputs_wrong` counts outputs and mask bits that differ from
    the recorded ones though the gate is the trace's.
    """

    images: int
    updated: int  # outputs that the mask updates; 0 where no gate is applied
    shared: int  # outputs of tiles that a cooperative LSB array takes
    outputs_wrong: int
    tile_cycles: int  # tiles x the cycles that each spends on its steps on the PE array
    wait_cycles: int  # tiles x the cycles in which their steps wait for activation words, as banks and ports have it
    fetch_cycles: int  # tiles x the cycles in which each fetches partial sums, where K is split
    update_cycles: int  # launches x the cycles of each on a group of the LSB array, bank conflicts apart
    launches: int
    launched: int  # entries of all launches
    read_bits: int
    write_bits: int
    kept_bits: int
    read_cycles: int
    write_cycles: int

    def __add__(self, other: LayerFacts) -> LayerFacts:
        return LayerFacts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def audit(
    layers: Sequence[LayerResult],
    geometries: Sequence[Geometry],
    facts: Sequence[LayerFacts],
    columns: int,
    prices: Prices,
    totals: Callable[[bool | None], Totals],
) -> tuple[Check, ...]:
    """Return every check of a run: those of each layer, in order, and those of the totals.

    `totals` is RunResult.totals, `columns` the FIFOs of the update queue (the PE array's columns).
    """
    checks = []
    for layer, geometry, fact in zip(layers, geometries, facts, strict=True):
        for rules in (_work(layer, geometry, fact), _time(layer, fact, columns), _moved(layer, fact)):
            checks += [Check(name, expected, found, layer.shape.name) for name, expected, found in rules]
        checks += [Check(name, expected, found, layer.shape.name) for name, expected, found in _energy(layer, prices)]
    checks += [Check(name, expected, found) for name, expected, found in _totals(layers, totals)]
    return tuple(checks)


Rules = Iterator[tuple[str, float, float]]  # rule in words, expected, found


def _work(layer: LayerResult, geometry: Geometry, fact: LayerFacts) -> Rules:
    counts = layer.counts
    yield "outputs: images x the trace's geometry", fact.images * geometry.outputs, counts.outputs
    yield "MACs issued: images x the trace's geometry", fact.images * geometry.macs, counts.macs_issued
    if counts.outputs_checked:
        yield "outputs compared with the recorded: all", counts.outputs, counts.outputs_checked
        yield "outputs and masks that are not the recorded: none", 0, fact.outputs_wrong
    if not layer.shape.gate_applied:
        yield "outputs updated without a gate: none", 0, counts.outputs_updated
        return
    yield "outputs updated: the mask's", fact.updated, counts.outputs_updated
    skipped = (counts.outputs - fact.updated) * geometry.reduction
    yield "MACs updated + skipped: all that were issued", counts.macs_issued, counts.macs_updated + skipped


def _time(layer: LayerResult, fact: LayerFacts, columns: int) -> Rules:
    shape, counts, actions = layer.shape, layer.counts, layer.counts.actions
    yield "cycles of the PE array: one cause each", counts.cycles, sum(counts.array_causes.values())
    yield "busy cycles of the PE array: the tiles'", fact.tile_cycles, counts.array_causes["busy"]
    waited = counts.array_causes["bank_conflict"]
    yield "cycles waiting for activation words: the tiles'", fact.wait_cycles, waited
    split = counts.array_causes["k_split"]  # waits for the part of K before are in it, too; none where K is whole
    fetched = min(split, fact.fetch_cycles) if fact.fetch_cycles else split
    yield "cycles fetching partial sums: at least the tiles'", fact.fetch_cycles, fetched
    lanes = shape.lanes * counts.cycles
    yield "lane-cycles of the PE array: lanes x cycles", lanes, actions.count(ActionKind.MAC, "array")
    working = actions.count(ActionKind.MAC, "array", *WORKING)
    yield "lanes with an operand: those that were priced so", counts.lane_cycles_busy, working
    if shape.groups:
        yield (
            "cycles of the LSB groups: one cause each",
            shape.groups * counts.cycles,
            sum(counts.group_causes.values()),
        )
        yield "busy cycles of the LSB groups: the launches'", fact.update_cycles, counts.group_causes["busy"]
        yield "launches: one pop each", fact.launches, counts.group_causes["pop"]
        yield (
            "entries launched: the outputs updated, and those shared",
            counts.outputs_updated + fact.shared,
            fact.launched,
        )
        yield "results returned: the entries launched", fact.launched, counts.group_causes["return"]
        yield "FIFO-cycles: one occupancy each", columns * counts.cycles, sum(counts.queue_histogram)
        pushes, pops = actions.count(ActionKind.FIFO_PUSH), actions.count(ActionKind.FIFO_POP)
        yield "entries pushed: the outputs updated", counts.outputs_updated, pushes
        yield "entries popped: those pushed", pushes, pops
    if shape.update_lanes and actions.count(ActionKind.MAC, "update_array"):
        lanes = shape.update_lanes * counts.cycles
        yield "lane-cycles of the LSB lanes: lanes x cycles", lanes, actions.count(ActionKind.MAC, "update_array")
        working = actions.count(ActionKind.MAC, "update_array", *WORKING)
        yield "LSB lanes with an operand: those that were priced so", counts.update_lane_cycles_busy, working


def _moved(layer: LayerResult, fact: LayerFacts) -> Rules:
    counts, actions = layer.counts, layer.counts.actions
    reads, writes = actions.count(ActionKind.DRAM_READ), actions.count(ActionKind.DRAM_WRITE)
    yield "bits from off chip: the schedule's", fact.read_bits, reads
    yield "bits to off chip: the schedule's", fact.write_bits, writes
    stored = actions.count(ActionKind.SRAM_WRITE)
    yield "bits written to SRAMs: those from off chip and the outputs kept", reads + fact.kept_bits, stored
    yield "cycles of the channel, reading: the schedule's", fact.read_cycles, counts.channel_read_cycles
    yield "cycles of the channel, writing: the schedule's", fact.write_cycles, counts.channel_write_cycles


def _energy(layer: LayerResult, prices: Prices) -> Rules:
    counts, energy = layer.counts, layer.energy
    priced: dict[str, list[float]] = defaultdict(list)
    for action, count in counts.actions.counts.items():
        priced[action.component].append(count * prices.action_pj(action))
    for component in sorted({*priced, *energy.dynamic_pj}):
        expected = math.fsum(priced[component])
        yield f"energy of {component}: counts x prices", expected, energy.dynamic_pj.get(component, 0.0)
    nanoseconds = counts.cycles * 1e3 / prices.clock_mhz
    for component in sorted({*prices.leakage_mw, *energy.leakage_pj}):
        expected = prices.leakage_mw.get(component, 0.0) * nanoseconds  # 1 mW x 1 ns = 1 pJ
        yield f"leakage of {component}: power x time", expected, energy.leakage_pj.get(component, 0.0)


def _totals(layers: Sequence[LayerResult], totals: Callable[[bool | None], Totals]) -> Rules:
    network, gated, others = totals(None), totals(True), totals(False)
    parts = [value for layer in layers for value in _parts(layer)]
    yield "cycles of the network: the layers' sum", sum(layer.counts.cycles for layer in layers), network.cycles
    yield "energy of the network: all layers' components", math.fsum(parts), network.energy.total_pj
    for what in ("layers", "cycles", "macs_issued", "macs_updated", "outputs", "outputs_updated"):
        both = getattr(gated, what) + getattr(others, what)
        yield f"{what.replace('_', ' ')}: gated and other layers are all", getattr(network, what), both


def _parts(layer: LayerResult) -> list[float]:
    return [*layer.energy.dynamic_pj.values(), *layer.energy.leakage_pj.values()]
