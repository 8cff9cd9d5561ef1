"""The audit holds for real runs, and every one of its rules fails when a count is tampered with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from pgsim.hw.prices import Stimulus
from pgsim.io.energy import load_energy_table
from pgsim.io.hardware import load_accelerator
from pgsim.model import simulate as simulation
from pgsim.results.actions import Action, ActionKind, Actions
from pgsim.results.audit import audit
from pgsim.results.layer import LayerResult
from pgsim.results.run import Check, RunResult
from tests.build_trace import build_trace

MACHINES = (
    "predictivenet", "predictivenet_cooperative", "predictivenet_zero", "gated_fused", "fracbnn_two_pass", "dense_int8",
)  # fmt: skip


@cache
def audited(name: str, batch: int = 1, images: int = 2) -> tuple[RunResult, tuple[Any, ...]]:
    """A run of the small trace, and the arguments that its audit was called with."""
    accelerator = replace(load_accelerator(name), batch=batch)
    seen: list[tuple[Any, ...]] = []

    def spy(*arguments: Any) -> tuple[Check, ...]:
        seen.append(arguments)
        return audit(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "audit", spy)
        result = simulation.simulate(build_trace(images=images), accelerator, load_energy_table("45nm"))
    return result, seen[0]


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(("batch", "images"), [(1, 2), (2, 3)])
def test_every_check_of_a_real_run_holds(name: str, batch: int, images: int) -> None:
    result, _ = audited(name, batch, images)
    assert [check for check in result.audit if not check.holds] == []
    assert {check.layer for check in result.audit} == {"", *(layer.shape.name for layer in result.layers)}
    assert len(result.audit) > 25 * len(result.layers)


def counts(**changes: Any) -> Callable[[LayerResult], LayerResult]:
    """Add to counts of a layer; a pair changes one cause of a mapping."""

    def change(layer: LayerResult) -> LayerResult:
        new: dict[str, Any] = {}
        for field, by in changes.items():
            old = getattr(layer.counts, field)
            new[field] = {**old, by[0]: old[by[0]] + by[1]} if isinstance(by, tuple) else old + by
        return replace(layer, counts=replace(layer.counts, **new))

    return change


def action(kind: ActionKind, component: str, by: int, *stimuli: Stimulus) -> Callable[[LayerResult], LayerResult]:
    """Add to the first matching count of actions."""

    def change(layer: LayerResult) -> LayerResult:
        old = layer.counts.actions.counts
        chosen = next(
            a for a in old if a.kind is kind and a.component == component and (not stimuli or a.stimulus in stimuli)
        )
        return replace(layer, counts=replace(layer.counts, actions=Actions({**old, chosen: old[chosen] + by})))

    return change


def energy(part: str, component: str) -> Callable[[LayerResult], LayerResult]:
    def change(layer: LayerResult) -> LayerResult:
        old = getattr(layer.energy, part)
        grown = {**old, component: old[component] * 1.000001}
        return replace(layer, energy=replace(layer.energy, **{part: grown}))

    return change


def histogram(layer: LayerResult) -> LayerResult:
    first, *rest = layer.counts.queue_histogram
    return replace(layer, counts=replace(layer.counts, queue_histogram=(first - 1, *rest)))


WORKING = (Stimulus.MSB, Stimulus.LSB, Stimulus.DENSE)
TAMPERS: dict[str, tuple[int, Callable[[LayerResult], LayerResult], set[str]]] = {
    # what is done: (layer, how, the rules that must fail besides totals and energies)
    "an output more": (1, counts(outputs=1), {
        "outputs: images x the trace's geometry", "outputs compared with the recorded: all",
        "MACs updated + skipped: all that were issued"}),
    "a MAC more": (1, counts(macs_issued=1), {
        "MACs issued: images x the trace's geometry", "MACs updated + skipped: all that were issued"}),
    "an update's MAC less": (1, counts(macs_updated=-1), {"MACs updated + skipped: all that were issued"}),
    "an update less": (1, counts(outputs_updated=-1), {
        "outputs updated: the mask's", "entries launched: the outputs updated, and those shared",
        "entries pushed: the outputs updated"}),
    "an update in a plain layer": (0, counts(outputs_updated=1), {
        "outputs updated without a gate: none", "entries launched: the outputs updated, and those shared",
        "entries pushed: the outputs updated"}),
    "an output not compared": (1, counts(outputs_checked=-1), {"outputs compared with the recorded: all"}),
    "a busy cycle more": (1, counts(array_causes=("busy", 1)), {
        "cycles of the PE array: one cause each", "busy cycles of the PE array: the tiles'"}),
    "a stall more": (1, counts(array_causes=("drain", 1)), {"cycles of the PE array: one cause each"}),
    "a wait for a word more": (1, counts(array_causes=("bank_conflict", 1)), {
        "cycles of the PE array: one cause each", "cycles waiting for activation words: the tiles'"}),
    "a fetch more": (1, counts(array_causes=("k_split", 1)), {
        "cycles of the PE array: one cause each", "cycles fetching partial sums: at least the tiles'"}),
    "a cycle more": (1, counts(cycles=1), {
        "cycles of the PE array: one cause each", "cycles of the LSB groups: one cause each",
        "lane-cycles of the PE array: lanes x cycles", "lane-cycles of the LSB lanes: lanes x cycles",
        "FIFO-cycles: one occupancy each"}),
    "a lane-cycle more": (1, counts(lane_cycles_busy=1), {"lanes with an operand: those that were priced so"}),
    "an LSB lane-cycle more": (1, counts(update_lane_cycles_busy=1), {
        "LSB lanes with an operand: those that were priced so"}),
    "a busy group-cycle more": (1, counts(group_causes=("busy", 1)), {
        "cycles of the LSB groups: one cause each", "busy cycles of the LSB groups: the launches'"}),
    "a pop more": (1, counts(group_causes=("pop", 1)), {
        "cycles of the LSB groups: one cause each", "launches: one pop each"}),
    "a return more": (1, counts(group_causes=("return", 1)), {
        "cycles of the LSB groups: one cause each", "results returned: the entries launched"}),
    "a FIFO-cycle less": (1, histogram, {"FIFO-cycles: one occupancy each"}),
    "a push more": (1, action(ActionKind.FIFO_PUSH, "queue", 1), {
        "entries pushed: the outputs updated", "entries popped: those pushed"}),
    "a pop less": (1, action(ActionKind.FIFO_POP, "queue", -1), {"entries popped: those pushed"}),
    "an idle lane more": (1, action(ActionKind.MAC, "array", 1, Stimulus.GATED), {
        "lane-cycles of the PE array: lanes x cycles"}),
    "a working lane more": (1, action(ActionKind.MAC, "array", 1, *WORKING), {
        "lane-cycles of the PE array: lanes x cycles", "lanes with an operand: those that were priced so"}),
    "a working LSB lane more": (1, action(ActionKind.MAC, "update_array", 1, *WORKING), {
        "lane-cycles of the LSB lanes: lanes x cycles", "LSB lanes with an operand: those that were priced so"}),
    "a bit read twice": (0, action(ActionKind.DRAM_READ, "off_chip", 1), {
        "bits from off chip: the schedule's", "bits written to SRAMs: those from off chip and the outputs kept"}),
    "a bit not written": (5, action(ActionKind.DRAM_WRITE, "off_chip", -1), {"bits to off chip: the schedule's"}),
    "a bit not stored": (1, action(ActionKind.SRAM_WRITE, "weight", -1), {
        "bits written to SRAMs: those from off chip and the outputs kept"}),
    "a channel cycle more, reading": (1, counts(channel_read_cycles=1), {
        "cycles of the channel, reading: the schedule's"}),
    "a channel cycle more, writing": (1, counts(channel_write_cycles=1), {
        "cycles of the channel, writing: the schedule's"}),
}  # fmt: skip


def failing(name: str, layer: int, change: Callable[[LayerResult], LayerResult]) -> set[str]:
    """The rules of a layer that fail after a change to it; no other layer's may."""
    _, (layers, geometries, facts, columns, prices, totals) = audited(name)
    changed = [change(one) if index == layer else one for index, one in enumerate(layers)]
    checks = [check for check in audit(changed, geometries, facts, columns, prices, totals) if not check.holds]
    assert {check.layer for check in checks} <= {"", layers[layer].shape.name}
    return {check.name for check in checks if check.layer}


@pytest.mark.parametrize("tamper", TAMPERS)
def test_a_count_that_is_tampered_with_fails_its_checks(tamper: str) -> None:
    layer, change, expected = TAMPERS[tamper]
    found = failing("predictivenet", layer, change)
    assert {rule for rule in found if not rule.startswith(("energy of", "leakage of"))} == expected


@pytest.mark.parametrize("part", ["dynamic_pj", "leakage_pj"])
def test_an_energy_that_is_a_millionth_off_fails_its_check(part: str) -> None:
    result, _ = audited("predictivenet")
    word = "energy of {}: counts x prices" if part == "dynamic_pj" else "leakage of {}: power x time"
    for component, value in getattr(result.layers[1].energy, part).items():
        assert value > 0
        assert failing("predictivenet", 1, energy(part, component)) == {word.format(component)}


def test_energy_moved_between_components_fails_although_the_sum_is_the_same() -> None:
    def move(layer: LayerResult) -> LayerResult:
        old = layer.energy.dynamic_pj
        moved = {**old, "array": old["array"] - 1.0, "weight": old["weight"] + 1.0}
        return replace(layer, energy=replace(layer.energy, dynamic_pj=moved))

    assert failing("predictivenet", 1, move) == {
        "energy of array: counts x prices",
        "energy of weight: counts x prices",
    }


def test_a_split_of_k_may_wait_for_its_partial_sums_but_not_fetch_fewer() -> None:
    """The cause k_split holds both: fetches, and waits for the part of K before (timing contract, section 6)."""
    machine = load_accelerator("dense_uniform")
    memory = replace(machine.memory, weight=replace(machine.memory.weight, size_bits=1024))
    seen: list[tuple[Any, ...]] = []

    def spy(*arguments: Any) -> tuple[Check, ...]:
        seen.append(arguments)
        return audit(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "audit", spy)
        trace = build_trace(images=2)
        bare = replace(trace, layers=tuple(replace(layer, post=()) for layer in trace.layers))  # parameters need room
        result = simulation.simulate(bare, replace(machine, memory=memory), load_energy_table("45nm"))
    layers, _, facts, *_ = seen[0]
    split = [(layer, fact) for layer, fact in zip(layers, facts, strict=True) if fact.fetch_cycles]
    assert any(layer.counts.array_causes["k_split"] > fact.fetch_cycles for layer, fact in split)
    assert [check for check in result.audit if not check.holds] == []
    missing = [replace(fact, fetch_cycles=10**6) if fact.fetch_cycles else fact for fact in facts]
    failed = audit(layers, seen[0][1], missing, *seen[0][3:])
    assert {check.name for check in failed if not check.holds} == {"cycles fetching partial sums: at least the tiles'"}


def test_outputs_that_are_not_the_recorded_fail() -> None:
    _, (layers, geometries, facts, *rest) = audited("predictivenet")
    wrong = [replace(facts[0], outputs_wrong=1), *facts[1:]]
    checks = audit(layers, geometries, wrong, *rest)
    assert [check.name for check in checks if not check.holds] == ["outputs and masks that are not the recorded: none"]


@pytest.mark.parametrize("field", ["layers", "cycles", "macs_issued", "macs_updated", "outputs", "outputs_updated"])
def test_totals_that_are_not_the_layers_sums_fail(field: str) -> None:
    _, (layers, geometries, facts, columns, prices, totals) = audited("predictivenet")

    def tampered(gated: bool | None) -> Any:
        honest = totals(gated)
        return replace(honest, **{field: getattr(honest, field) + 1}) if gated is None else honest

    names = {c.name for c in audit(layers, geometries, facts, columns, prices, tampered) if not c.holds}
    assert f"{field.replace('_', ' ')}: gated and other layers are all" in names
    assert names <= {
        f"{field.replace('_', ' ')}: gated and other layers are all", "cycles of the network: the layers' sum"
    }  # fmt: skip


def test_an_energy_lost_on_the_way_to_the_total_fails() -> None:
    _, (layers, geometries, facts, columns, prices, totals) = audited("predictivenet")

    def tampered(gated: bool | None) -> Any:
        honest = totals(gated)
        return replace(honest, energy=replace(honest.energy, leakage_pj={}))

    names = [c.name for c in audit(layers, geometries, facts, columns, prices, tampered) if not c.holds]
    assert names == ["energy of the network: all layers' components"]


def test_every_rule_is_seen_to_fail_somewhere_in_this_file() -> None:
    every = {check.name for name in MACHINES for check in audited(name)[0].audit}
    tampered = set().union(*(rules for _, _, rules in TAMPERS.values()))
    others = {"outputs and masks that are not the recorded: none"}
    left = every - tampered - others
    assert {rule for rule in left if "energy of" not in rule and "leakage of" not in rule} == {
        "cycles of the network: the layers' sum",
        *(f"{what}: gated and other layers are all" for what in
          ("layers", "cycles", "macs issued", "macs updated", "outputs", "outputs updated")),
    }  # fmt: skip


def test_integers_must_be_equal_and_energies_to_a_part_in_a_billion() -> None:
    assert not Check("integers", 10**15, 10**15 + 1).holds
    assert Check("energies", 1e15, 1e15 * (1 + 0.9e-9)).holds
    assert not Check("energies", 1e15, 1e15 * (1 + 1.1e-9)).holds
    assert not Check("energies", 0.0, 1e-30).holds


def test_an_action_is_told_from_its_neighbours() -> None:
    one = Action(ActionKind.MAC, "array", 2, 8, Stimulus.MSB)
    both = Actions({one: 2}) + Actions({one: 3, replace(one, stimulus=Stimulus.LSB): 4})
    assert both.count(ActionKind.MAC, "array", Stimulus.MSB) == 5
    assert both.count(ActionKind.MAC, "array", *WORKING) == both.count(ActionKind.MAC) == 9
