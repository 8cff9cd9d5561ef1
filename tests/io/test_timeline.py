"""The timeline: valid, without overlaps, and its slices and counters add up to what was counted."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator
from pgsim.io.energy import load_energy_table
from pgsim.io.hardware import load_accelerator
from pgsim.io.timeline import writing_timeline
from pgsim.model.simulate import simulate
from pgsim.results.run import RunResult
from tests.build_trace import build_trace

Event = dict[str, Any]
CAUSES = ("tail", "queue_full", "output_port", "drain", "update_wait", "off_chip", "k_split")
GROUP_WORK = ("pop", "busy", "bank_conflict", "weight_port", "return", "port_wait")


@dataclass(frozen=True)
class Drawn:
    """A machine's run and the events of its process, by thread and by counter."""

    accelerator: Accelerator
    result: RunResult
    slices: dict[str, list[Event]]
    counters: dict[str, list[Event]]


MACHINES = {
    "decoupled": replace(load_accelerator("predictivenet"), clock_mhz=300.0, batch=2),  # 3.33 ns a cycle
    "cooperative": load_accelerator("predictivenet_cooperative"),
    "gated_fused": load_accelerator("gated_fused"),
    "two_pass": load_accelerator("fracbnn_two_pass"),
    "dense": replace(load_accelerator("dense_int8"), clock_mhz=1500.0),
}


@cache
def all_drawn() -> dict[str, Drawn]:
    """One file with every machine in it."""
    trace, results = build_trace(images=3), {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "timeline.json"
        with writing_timeline(path, trace) as timeline:
            for name, accelerator in MACHINES.items():
                observe = timeline.begin(accelerator)
                results[name] = simulate(trace, accelerator, load_energy_table("45nm"), observe=observe)
        document = json.loads(path.read_text())
    assert document["displayTimeUnit"] == "ns"
    events = document["traceEvents"]
    drawn = {}
    for number, (name, accelerator) in enumerate(MACHINES.items(), 1):
        own = [event for event in events if event["pid"] == number]
        names = {e["tid"]: e["args"]["name"] for e in own if e["name"] == "thread_name"}
        assert [e["args"]["name"] for e in own if e["name"] == "process_name"] == [accelerator.name]
        slices, counters = defaultdict(list), defaultdict(list)
        for event in own:
            if event["ph"] == "X":
                slices[names[event["tid"]]].append(event)
            elif event["ph"] == "C":
                counters[event["name"]].append(event)
            else:
                assert event["ph"] == "M"
        drawn[name] = Drawn(accelerator, results[name], dict(slices), dict(counters))
    return drawn


@pytest.fixture(params=MACHINES)
def drawn(request: pytest.FixtureRequest) -> Drawn:
    return all_drawn()[request.param]


def cycles_of(events: list[Event], *names: str) -> int:
    return sum(e["args"]["cycles"] for e in events if not names or e["name"] in names)


def counted(drawn: Drawn, causes: str, *names: str) -> int:
    return sum(getattr(layer.counts, causes).get(name, 0) for layer in drawn.result.layers for name in names)


def test_slices_of_one_thread_never_overlap_in_cycles_nor_in_time(drawn: Drawn) -> None:
    for thread, events in drawn.slices.items():
        ordered = sorted(events, key=lambda e: e["args"]["cycle"])
        for one, other in itertools.pairwise(ordered):
            assert one["args"]["cycle"] + one["args"]["cycles"] <= other["args"]["cycle"], thread
            assert round(1e3 * (one["ts"] + one["dur"])) <= round(1e3 * other["ts"]), thread


def test_times_are_the_cycles_at_the_clock_to_a_nanosecond(drawn: Drawn) -> None:
    for event in (event for events in drawn.slices.values() for event in events):
        assert event["ts"] == pytest.approx(event["args"]["cycle"] / drawn.accelerator.clock_mhz, abs=0.51e-3)
        assert event["dur"] == pytest.approx(event["args"]["cycles"] / drawn.accelerator.clock_mhz, abs=1.01e-3)
        assert event["args"]["cycles"] > 0


def test_layers_follow_one_another_and_take_all_cycles(drawn: Drawn) -> None:
    layers = drawn.slices["layers"]
    batches = -(-3 // drawn.accelerator.batch)
    assert [e["name"] for e in layers] == [row.shape.name for row in drawn.result.layers for _ in range(batches)]
    assert cycles_of(layers) == drawn.result.totals().cycles
    ends = [e["args"]["cycle"] + e["args"]["cycles"] for e in layers]
    assert [e["args"]["cycle"] for e in layers] == [0, *ends[:-1]]


def test_the_pe_array_is_accounted_for_in_every_cycle_by_its_cause(drawn: Drawn) -> None:
    events = drawn.slices["PE array"]
    assert cycles_of(events) == drawn.result.totals().cycles
    for cause in CAUSES:
        assert cycles_of(events, cause) == counted(drawn, "array_causes", cause), cause
    tiles = [e for e in events if e["name"] not in CAUSES]
    assert cycles_of(tiles) == counted(drawn, "array_causes", "busy", "bank_conflict")
    waits = sum(e["args"]["bank_conflict_cycles"] for e in tiles)
    assert waits == counted(drawn, "array_causes", "bank_conflict")
    assert {e["name"] for e in events} - set(CAUSES) == {f"tile {e['args']['tile']}" for e in tiles}


def test_each_tile_is_one_slice_and_all_tiles_hold_all_outputs(drawn: Drawn) -> None:
    tiles = [e["args"] for e in drawn.slices["PE array"] if e["name"].startswith("tile")]
    shared = 0
    if drawn.accelerator.cooperative:
        shared = sum(row.counts.group_causes["return"] for row in drawn.result.layers if not row.shape.gated)
        assert shared > 0
    outputs = sum(tile["channels"] * tile["pixels"] for tile in tiles)
    assert outputs + shared == sum(row.counts.outputs for row in drawn.result.layers)


def test_the_groups_slices_are_their_launches(drawn: Drawn) -> None:
    groups = {thread: events for thread, events in drawn.slices.items() if thread.startswith("LSB group")}
    update = drawn.accelerator.update
    assert len(groups) <= (update.groups if update else 0)
    events = [event for events in groups.values() for event in events]
    assert cycles_of(events) == counted(drawn, "group_causes", *GROUP_WORK)
    assert len(events) == counted(drawn, "group_causes", "pop")
    assert sum(e["args"]["entries"] for e in events) == counted(drawn, "group_causes", "return")


def test_the_lsb_parts_work_on_every_tile_of_a_gated_layer() -> None:
    drawn = all_drawn()["gated_fused"]
    gated = [row for row in drawn.result.layers if row.shape.gated]
    tiles = [e["args"] for e in drawn.slices["LSB parts"]]
    assert sum(tile["channels"] * tile["pixels"] for tile in tiles) == sum(row.counts.outputs for row in gated)
    assert "LSB parts" not in all_drawn()["decoupled"].slices


def test_the_channels_slices_are_the_bits_that_moved(drawn: Drawn) -> None:
    events = drawn.slices["off-chip channel"]
    layers = [row.counts for row in drawn.result.layers]
    assert cycles_of(events, "read") == sum(counts.channel_read_cycles for counts in layers)
    assert cycles_of(events, "write") == sum(counts.channel_write_cycles for counts in layers)
    moved = sum(e["args"]["bits"] for e in events)
    assert moved == sum(counts.actions.count(kind) for counts in layers for kind in dram())


def dram() -> tuple[Any, ...]:
    from pgsim.results.actions import ActionKind

    return ActionKind.DRAM_READ, ActionKind.DRAM_WRITE


def test_counters_are_never_negative_in_order_and_end_at_zero(drawn: Drawn) -> None:
    assert "off-chip channel, bits" in drawn.counters
    for name, events in drawn.counters.items():
        values = [event["args"]["value"] for event in events]
        assert min(values) >= 0
        assert values[-1] == 0
        assert max(values) > 0
        assert all(one != other for one, other in itertools.pairwise(values)), name
        times = [event["ts"] for event in events]
        assert times == sorted(times)


def test_the_queue_counter_is_the_histogram_drawn_over_time() -> None:
    """The area under the counter is what the histogram adds up to, and its peaks are the histogram's."""
    drawn = all_drawn()["decoupled"]
    total = sum(level * count for row in drawn.result.layers for level, count in enumerate(row.counts.queue_histogram))
    events = drawn.counters["update queue, entries"]
    nanoseconds = sum(
        one["args"]["value"] * (other["ts"] - one["ts"]) * 1e3 for one, other in itertools.pairwise(events)
    )
    assert nanoseconds * drawn.accelerator.clock_mhz / 1e3 == pytest.approx(total, rel=0.02)
    peaks = [event["args"]["value"] for event in drawn.counters["fullest FIFO, entries"]]
    assert max(peaks) == max(row.counts.queue_peak for row in drawn.result.layers)


def test_a_machine_without_a_queue_has_no_queue_counter() -> None:
    assert list(all_drawn()["dense"].counters) == ["off-chip channel, bits"]


def test_an_interrupted_run_leaves_no_timeline(tmp_path: Path) -> None:
    def interrupted() -> None:
        with writing_timeline(tmp_path / "t.json", build_trace()) as timeline:
            timeline.begin(MACHINES["dense"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_timeline_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(InputError, match=r"^/proc/t\.json: the output must be writable"):  # noqa: SIM117
        with writing_timeline("/proc/t.json", build_trace()):
            raise AssertionError("the block must not run")


def test_an_entry_is_in_the_counter_from_the_cycle_after_its_push() -> None:
    """As the rules of the next cycle see it, at whose start occupancies are read."""
    accelerator, firsts, base = load_accelerator("predictivenet"), [], 0  # 2 ns a cycle
    with TemporaryDirectory() as folder:
        path = Path(folder) / "timeline.json"
        with writing_timeline(path, build_trace()) as timeline:
            draw = timeline.begin(accelerator)

            def observe(layer: int, first_image: int, job: Any, timing: Any) -> None:
                nonlocal base
                firsts.extend(base + timing.pushes[:1, 0])
                base += timing.cycles
                draw(layer, first_image, job, timing)

            simulate(build_trace(), accelerator, load_energy_table("45nm"), observe=observe)
        events = json.loads(path.read_text())["traceEvents"]
    counts = [e for e in events if e["name"] == "update queue, entries"]
    risen = [round(counts[0]["ts"] * 500)] + [
        round(other["ts"] * 500) for one, other in itertools.pairwise(counts) if one["args"]["value"] == 0
    ]
    assert firsts
    assert {cycle + 1 for cycle in firsts} <= set(risen)
    assert not set(firsts) & set(risen)
