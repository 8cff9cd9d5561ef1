"""Write what every part of an accelerator did when, as Chrome trace events: open the file in ui.perfetto.dev.

One process an accelerator; in it one thread each for the layers, the PE array, every group of the LSB array and the
off-chip channel, and counters of the update queue. Times are microseconds on a grid of nanoseconds, so that slices that
touch do not overlap; every slice has its exact cycles in its arguments. Cycles are counted on through the run, in which
the batches of a layer follow one another before the next layer starts.

Events go to the file as they come: nothing but one layer is held.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pgsim.hw.accelerator import Accelerator
from pgsim.io.atomic import replacing
from pgsim.model.channel import channel_transfers
from pgsim.model.job import ArrayCause, Job, Timing
from pgsim.workload.trace import Trace

Ints = NDArray[np.int64]

LAYERS, PE_ARRAY, LSB_PARTS, CHANNEL, GROUPS = 1, 2, 3, 4, 10  # thread numbers; group g is GROUPS + g
QUEUE_COUNTER, FIFO_COUNTER, CHANNEL_COUNTER = (
    "update queue, entries",
    "fullest FIFO, entries",
    "off-chip channel, bits",
)


@contextlib.contextmanager
def writing_timeline(path: str | os.PathLike[str], trace: Trace) -> Iterator[Timeline]:
    """Hand out a Timeline whose events become the file `path` when the block ends well; else nothing is left behind.

    Raises InputError where the file cannot be written.
    """
    with replacing(path) as stream:
        timeline = Timeline(stream, trace)
        yield timeline
        timeline.end()


class Timeline:
    """Writes the events of one run or more to a stream. `begin` each accelerator, then `end`."""

    def __init__(self, stream: BinaryIO, trace: Trace) -> None:
        self._stream = stream
        self._trace = trace
        self._process = 0
        self._separator = b"\n"
        stream.write(b'{"displayTimeUnit": "ns", "traceEvents": [')

    def begin(self, accelerator: Accelerator) -> Observer:
        """Start the process of an accelerator; return what `simulate` is to call as `observe`."""
        self._process += 1
        return Observer(self, self._process, accelerator, [layer.name for layer in self._trace.layers])

    def write(self, events: Iterable[dict[str, Any]]) -> None:
        """Append events."""
        for event in events:
            self._stream.write(self._separator + json.dumps(event, separators=(",", ":")).encode())
            self._separator = b",\n"

    def end(self) -> None:
        """Close the document."""
        self._stream.write(b"\n]}\n")


class Observer:
    """Turns the timing of one layer and batch after the other into events of one process."""

    def __init__(self, timeline: Timeline, process: int, accelerator: Accelerator, names: list[str]) -> None:
        self._timeline = timeline
        self._process = process
        self._names = names
        self._clock_mhz = accelerator.clock_mhz
        self._channel_bits = accelerator.memory.off_chip.width_bits
        self._base = 0  # cycle of the run in which the layer starts
        groups = accelerator.update.groups if accelerator.update else 0
        threads = {LAYERS: "layers", PE_ARRAY: "PE array", LSB_PARTS: "LSB parts", CHANNEL: "off-chip channel"}
        threads |= {GROUPS + group: f"LSB group {group}" for group in range(groups)}
        if accelerator.organisation.value != "gated_fused":
            del threads[LSB_PARTS]
        timeline.write(self._names_of(accelerator.name, threads))

    def __call__(self, layer: int, first_image: int, job: Job, timing: Timing) -> None:
        """Append the events of one layer and batch."""
        write = self._timeline.write
        name = self._names[layer]
        write([self._slice(LAYERS, name, 0, timing.cycles, {"layer": layer, "first_image": first_image})])
        write(self._pe_array(job, timing))
        write(self._lsb_parts(job, timing))
        write(self._groups(job, timing))
        write(self._channel(job, timing))
        write(self._queue(timing))
        self._base += timing.cycles

    def _names_of(self, name: str, threads: dict[int, str]) -> Iterator[dict[str, Any]]:
        yield {"ph": "M", "pid": self._process, "tid": 0, "name": "process_name", "args": {"name": name}}
        for thread, words in threads.items():
            where = {"ph": "M", "pid": self._process, "tid": thread}
            yield where | {"name": "thread_name", "args": {"name": words}}
            yield where | {"name": "thread_sort_index", "args": {"sort_index": thread}}

    def _microseconds(self, cycle: int) -> float:
        """Time of a cycle of the layer, on the grid of nanoseconds."""
        return round((self._base + cycle) * 1e3 / self._clock_mhz) / 1e3

    def _slice(self, thread: int, name: str, start: int, end: int, args: dict[str, Any]) -> dict[str, Any]:
        """A slice of cycles [start, end) of the layer."""
        at = self._microseconds(start)
        return {
            "ph": "X", "pid": self._process, "tid": thread, "name": name,
            "ts": at, "dur": round(self._microseconds(end) - at, 3),
            "args": {**args, "cycle": self._base + start, "cycles": end - start},
        }  # fmt: skip

    def _counter(self, name: str, cycle: int, value: int) -> dict[str, Any]:
        return {
            "ph": "C", "pid": self._process, "tid": 0, "name": name, "ts": self._microseconds(cycle),
            "args": {"value": value},
        }  # fmt: skip

    def _pe_array(self, job: Job, timing: Timing) -> Iterator[dict[str, Any]]:
        """One slice for each stretch of one cause, and for each tile, which has its waits for words in it."""
        on_array = np.flatnonzero(timing.tile_on_lsb == 0)
        starts = timing.tile_start[on_array]
        waits = job.schedule.tile_waits * len(job.phases)
        begins, causes = timing.array_log.T
        causes = np.where(causes == ArrayCause.BANK_CONFLICT, ArrayCause.BUSY, causes)
        changes = np.flatnonzero(np.diff(causes, prepend=-1))
        begins, causes = begins[changes], causes[changes]
        cuts = np.unique(np.concatenate([begins, starts]))
        ends = np.append(cuts[1:], timing.cycles)
        cause_of = causes[np.searchsorted(begins, cuts, side="right") - 1]
        tile_of = np.searchsorted(starts, cuts, side="right") - 1
        for start, end, cause, at in zip(
            cuts.tolist(), ends.tolist(), cause_of.tolist(), tile_of.tolist(), strict=True
        ):
            if cause != ArrayCause.BUSY:
                yield self._slice(PE_ARRAY, ArrayCause(cause).name.lower(), start, end, {})
                continue
            tile = int(on_array[at])
            words = _tile_words(job, tile) | {"bank_conflict_cycles": int(waits[tile])}
            yield self._slice(PE_ARRAY, f"tile {tile}", start, end, words)

    def _lsb_parts(self, job: Job, timing: Timing) -> Iterator[dict[str, Any]]:
        if not job.second_cycles.any():
            return
        for tile, start in enumerate(timing.tile_transfer.tolist()):
            end = start + int(job.second_cycles[tile])
            yield self._slice(LSB_PARTS, f"tile {tile}", start, end, _tile_words(job, tile))

    def _groups(self, job: Job, timing: Timing) -> Iterator[dict[str, Any]]:
        schedule = job.schedule
        for group, column, segment, entries, start, last in timing.launches.tolist():
            channel = int(schedule.segment_first_channel[segment]) + column
            words = {"segment": segment, "column": column, "channel": channel, "entries": entries}
            yield self._slice(GROUPS + group, f"channel {channel} x {entries}", start, last + 1, words)

    def _channel(self, job: Job, timing: Timing) -> Iterator[dict[str, Any]]:
        transfers = channel_transfers(job, timing)
        taken = transfers[:, 3] - transfers[:, 2]
        assert int(taken[transfers[:, 1] == 0].sum()) == timing.channel_read_cycles
        assert int(taken[transfers[:, 1] == 1].sum()) == timing.channel_write_cycles
        schedule = job.schedule
        before = -1  # the cycle in which the channel fell idle
        for segment, is_write, start, end in transfers.tolist():
            bits = int((schedule.segment_write_bits if is_write else schedule.segment_read_bits)[segment])
            words = {"segment": segment, "bits": bits}
            yield self._slice(CHANNEL, "write" if is_write else "read", start, end, words)
            if start != before:
                if before >= 0:
                    yield self._counter(CHANNEL_COUNTER, before, 0)
                yield self._counter(CHANNEL_COUNTER, start, self._channel_bits)
            before = end
        if before >= 0:
            yield self._counter(CHANNEL_COUNTER, before, 0)

    def _queue(self, timing: Timing) -> Iterator[dict[str, Any]]:
        """Entries in all FIFOs and in the fullest, as seen at the start of each cycle in which they change."""
        pushed, popped = timing.pushes, timing.launches[:, [4, 1, 3]]
        if not len(pushed):
            return
        cycles = np.concatenate([pushed[:, 0], popped[:, 0]]) + 1
        columns = np.concatenate([pushed[:, 1], popped[:, 1]])
        changes = np.concatenate([np.ones(len(pushed), np.int64), -popped[:, 2]])
        order = np.argsort(cycles, kind="stable")
        held = [0] * (int(columns.max()) + 1)
        moves = zip(cycles[order].tolist(), columns[order].tolist(), changes[order].tolist(), strict=True)
        at, column, change = next(moves)
        shown = (-1, -1)
        while True:
            held[column] += change
            follows = next(moves, None)
            if follows is None or follows[0] != at:
                now = (sum(held), max(held))
                for name, value, was in zip((QUEUE_COUNTER, FIFO_COUNTER), now, shown, strict=True):
                    if value != was:
                        yield self._counter(name, at, value)
                shown = now
            if follows is None:
                return
            at, column, change = follows


def _tile_words(job: Job, tile: int) -> dict[str, Any]:
    schedule = job.schedule
    segment = int(schedule.tile_segment[tile])
    return {
        "tile": tile,
        "segment": segment,
        "image": int(schedule.segment_image[segment]),
        "first_channel": int(schedule.segment_first_channel[segment]),
        "channels": int(schedule.segment_columns[segment]),
        "first_pixel": int(schedule.tile_first_pixel[tile]),
        "pixels": int(schedule.tile_pixels[tile]),
    }
