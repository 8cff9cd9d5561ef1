"""Co-simulation: one layer and batch through the RTL and through an engine, compared event by event.

    image --RTL--> events --> Timing, outputs   ==   Timing, outputs <--engine-- job

Nothing of the engine's result reaches the RTL; what the RTL signalled is put into the engine's form and compared field
by field. Equal means equal in every bit and every cycle.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pgsim.model.job import Job, Timing
from pgsim.rtl.bench import Events
from pgsim.workload.layer import Geometry

Ints = NDArray[np.int64]


def timing_of(events: Events, job: Job) -> Timing:
    """Return what the RTL signalled as an engine's Timing."""
    schedule = job.schedule
    start, transfer = (_by_number(rows, schedule.tiles) for rows in (
        np.concatenate([events.tile_starts, events.shared]),
        np.concatenate([events.tile_leaves, events.shared_leaves]),
    ))  # fmt: skip
    on_lsb = np.zeros(schedule.tiles, np.int64)
    on_lsb[events.shared[:, 1]] = 1
    return Timing(
        cycles=events.cycles,
        array_causes=events.array_causes,
        group_causes=events.group_causes,
        queue_histogram=events.queue_histogram if job.groups else _idle_histogram(job),
        msb_words_read=events.high_reads,
        lsb_words_read=events.low_reads,
        weight_rows_read=events.weight_reads,
        second_busy=events.low_part_cycles,
        channel_read_cycles=events.channel_read_cycles,
        channel_write_cycles=events.channel_write_cycles,
        tile_start=start,
        tile_transfer=transfer,
        tile_on_lsb=on_lsb,
        segment_done=_by_number(events.done, schedule.segments),
        launches=events.launches,
        pushes=events.pushes,
        array_log=events.array_log,
    )


def _idle_histogram(job: Job) -> Ints:
    return np.zeros(job.queue_depth + 1, np.int64)


def _by_number(rows: Ints, count: int) -> Ints:
    """[n, 2] of (cycle, number) -> [count], the cycle of each number; -1 where there was no such event."""
    cycles = np.full(count, -1, np.int64)
    cycles[rows[:, 1]] = rows[:, 0]
    return cycles


def outputs_of(events: Events, job: Job, geometry: Geometry) -> Ints:
    """Return what left the output ports as int64 [N, K, P, Q]; the smallest int64 where nothing did, or twice."""
    schedule = job.schedule
    images = int(schedule.segment_image.max()) + 1
    empty = np.iinfo(np.int64).min
    outputs = np.full((images, *geometry.output_shape), empty, np.int64)
    _, segment, channel, y, x, value = events.outputs.T
    whole = schedule.segment_first_step[segment] + schedule.segment_steps[segment] == schedule.steps
    image = schedule.segment_image[segment]
    where = np.ravel_multi_index((image[whole], channel[whole], y[whole], x[whole]), outputs.shape)
    outputs.reshape(-1)[where] = value[whole]
    places, times = np.unique(where, return_counts=True)
    outputs.reshape(-1)[places[times > 1]] = empty
    return outputs


@dataclass(frozen=True)
class Difference:
    """The first event in which RTL and engine differ, or the first word that the post-processing unit left wrong."""

    what: str  # field of Timing, "output", or what the post-processing unit keeps
    cycle: int | None  # in which the earlier of the two happens, where it is one event
    place: tuple[int, ...]
    rtl: str
    engine: str
    against: str = "engine"

    def __str__(self) -> str:
        where = f"{self.what}{list(self.place) if self.place else ''}"
        when = f" (cycle {self.cycle})" if self.cycle is not None else ""
        return f"{where}{when} is {self.rtl} in the RTL, {self.engine} in the {self.against}"


@dataclass(frozen=True)
class Comparison:
    """RTL against an engine on one layer and batch. Comparisons add up."""

    cycles: int  # that the RTL took
    outputs: int  # compared
    bits: int  # of outputs and of what the post-processing unit keeps that differ
    events: int  # that differ, of all fields of Timing
    compared: int  # numbers compared beside the outputs
    first: Difference | None
    kept: int = 0  # words of the post-processing unit compared: shortcuts, both planes of codes, logits

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.bits == 0 and self.events == 0

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            self.cycles + other.cycles,
            self.outputs + other.outputs,
            self.bits + other.bits,
            self.events + other.events,
            self.compared + other.compared,
            self.first or other.first,
            self.kept + other.kept,
        )


def compare_events(events: Events, job: Job, geometry: Geometry, engine: Timing, expected: Ints) -> Comparison:
    """Compare what the RTL signalled with an engine's Timing and outputs, int64 [N, K, P, Q].

    An event of a tile, segment or place that the layer has not is a difference, too, and ends the comparison.
    """
    stray = _stray(events, job, expected.shape)
    if stray is not None:
        return Comparison(events.cycles, 0, 0, 1, 0, stray)
    found = compare(timing_of(events, job), outputs_of(events, job, geometry), engine, expected)
    if events.assertion_cycle is None:
        return found
    failed = Difference("an assertion of the RTL", events.assertion_cycle, (), "failed", "never failed")
    return Comparison(0, 0, 0, 1, 0, failed) + found


def _stray(events: Events, job: Job, shape: tuple[int, ...]) -> Difference | None:
    """The first event that names a tile, segment, channel or pixel which is not there."""
    tiles, segments = job.schedule.tiles, job.schedule.segments
    named = [
        ("tile_start", events.tile_starts, (1,), (tiles,)),
        ("tile_transfer", events.tile_leaves, (1,), (tiles,)),
        ("tile_on_lsb", events.shared, (1,), (tiles,)),
        ("tile_transfer", events.shared_leaves, (1,), (tiles,)),
        ("segment_done", events.done, (1,), (segments,)),
        ("output", events.outputs, (1, 2, 3, 4), (segments, *shape[1:])),
    ]
    found = []
    for what, rows, columns, ends in named:
        beyond = np.nonzero((rows[:, columns] >= ends).any(axis=1))[0]
        if len(beyond):
            cycle, *place = (int(one) for one in rows[beyond[0], : 1 + len(columns)])
            found.append(Difference(what, cycle, tuple(place), "an event", "no event"))
    return min(found, key=lambda one: one.cycle or 0, default=None)


def cycle_of(difference: Difference, events: Events, job: Job) -> int | None:
    """Return the cycle that belongs to a difference: its own, or that in which its output was at the port."""
    if difference.cycle is not None or difference.what != "output":
        return difference.cycle
    image, *place = difference.place
    rows = events.outputs[(events.outputs[:, 2:5] == place).all(axis=1)]
    schedule = job.schedule
    segment = rows[:, 1]
    whole = schedule.segment_first_step[segment] + schedule.segment_steps[segment] == schedule.steps
    rows = rows[whole & (schedule.segment_image[segment] == image)]
    return int(rows[0, 0]) if len(rows) else None


_CYCLE_COLUMN = {"launches": 4, "pushes": 0, "array_log": 0}  # where a row carries its cycle
_IS_CYCLE = ("tile_start", "tile_transfer", "segment_done")


def compare(rtl: Timing, outputs: Ints, engine: Timing, expected: Ints) -> Comparison:
    """Compare two Timings and the outputs beside them; `first` is the earliest difference."""
    found: list[Difference] = []
    differing = compared = 0
    for field in fields(Timing):
        one, other = np.atleast_1d(getattr(rtl, field.name)), np.atleast_1d(getattr(engine, field.name))
        compared += other.size
        rows, of_rtl, of_engine = _differing_rows(one, other)
        differing += len(rows)
        if len(rows):
            row = int(rows[0])
            found.append(_difference(field.name, row, of_rtl, of_engine, other.ndim))
    wrong = np.argwhere(outputs != expected)
    bits = 0
    if len(wrong):
        bits = differing_bits(outputs, expected)
        where = tuple(int(i) for i in wrong[0])
        found.append(Difference("output", None, where, str(int(outputs[where])), str(int(expected[where]))))
    first = min(found, key=lambda d: (d.cycle is None, d.cycle or 0), default=None)
    return Comparison(rtl.cycles, expected.size, bits, differing, compared, first)


def differing_bits(one: Ints, other: Ints) -> int:
    """Count the bits, of 64 a number, in which two arrays of a shape differ."""
    return int(np.bitwise_count((one ^ other).view(np.uint64)).sum())


def _differing_rows(one: Ints, other: Ints) -> tuple[Ints, Ints, Ints]:
    """Rows in which two tables differ; those that one of them lacks differ, and read as empty."""
    count = min(len(one), len(other))
    same = one[:count] == other[:count]
    rows = np.nonzero(~(same if same.ndim == 1 else same.all(axis=1)))[0]
    return np.concatenate([rows, np.arange(count, max(len(one), len(other)))]), one, other


def _difference(name: str, row: int, one: Ints, other: Ints, axes: int) -> Difference:
    def shown(table: Ints) -> str:
        if row >= len(table):
            return "no event"
        return str(table[row].tolist())

    cycle: int | None = None
    if name in _CYCLE_COLUMN or name in _IS_CYCLE:
        column = _CYCLE_COLUMN.get(name)
        if name == "launches" and row < min(len(one), len(other)) and (one[row, :5] == other[row, :5]).all():
            column = 5  # it differs in its last result
        cycles = [int(t[row] if column is None else t[row, column]) for t in (one, other) if row < len(t)]
        cycle = min((c for c in cycles if c >= 0), default=None)  # -1: no such event
    return Difference(
        name, cycle, (row,) if axes > 1 or name in _IS_CYCLE or len(other) > 1 else (), shown(one), shown(other)
    )
