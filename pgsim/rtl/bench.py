"""The compiled machine as a Python object: load a layer, run it, read the events that it signalled."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pgsim.errors import MismatchError
from pgsim.hw.accelerator import Accelerator
from pgsim.model.job import ArrayCause, GroupCause
from pgsim.model.lanes import LaneWidths
from pgsim.rtl.build import build
from pgsim.rtl.generate import Capacity, sources
from pgsim.rtl.image import Image
from pgsim.rtl.post_unit import WRITE, PostUnit, Select

Ints = NDArray[np.int64]


class _Stream(IntEnum):
    """The event streams of harness.cpp, in its order; the columns of each."""

    OUTPUTS = 0  # cycle, segment, channel, y, x, value
    PUSHES = 1  # cycle, column
    LAUNCHES = 2  # group, column, segment, entries, cycle, cycle of the last result
    TILE_STARTS = 3  # cycle, tile
    TILE_LEAVES = 4
    SHARED = 5
    SHARED_LEAVES = 6
    DONE = 7  # cycle of the last output, segment
    CAUSES = 8  # cycle, cause


_WIDTHS = {_Stream.OUTPUTS: 6, _Stream.LAUNCHES: 6}
MEMORIES = ("layer", "segments", "high", "low", "weights", "thresholds", "cycles")
_CHUNK = 1 << 16  # cycles between looks at the world
_POST_LIMIT = 1 << 20  # cycles that the post-processing unit may take after the last result


@dataclass(frozen=True)
class Events:
    """What the RTL signalled in one layer and batch; arrays int64, one row an event, in order of the cycle."""

    cycles: int
    high_reads: int  # words of each plane that the LSB array's groups read, and their reads of weights
    low_reads: int
    weight_reads: int
    low_part_cycles: int  # in which the LSB parts of gated_fused were at work
    channel_read_cycles: int
    channel_write_cycles: int
    array_causes: Ints
    group_causes: Ints
    queue_histogram: Ints
    outputs: Ints  # [O, 6] cycle, segment, channel, y, x, value
    pushes: Ints  # [E, 2] cycle, column
    launches: Ints  # [U, 6] group, column, segment, entries, cycle, cycle of the last result
    tile_starts: Ints  # [T, 2] cycle, tile
    tile_leaves: Ints
    shared: Ints
    shared_leaves: Ints
    done: Ints  # [S, 2] cycle of the last output, segment
    array_log: Ints  # [X, 2] cycle, cause, where the cause changes
    words_kept: Ints  # [3] shortcuts, codes and logits that the post-processing unit wrote
    post_fault: bool  # it says that they are not to be trusted
    assertion_cycle: int | None  # in which an assertion of the RTL failed first, where they are built in


def bench_defines(accelerator: Accelerator, post: PostUnit | None) -> dict[str, int]:
    """Return the macros of test bench and harness for a machine."""
    update = accelerator.update
    return {
        "PG_COLUMNS": accelerator.array.columns,
        "PG_GROUPS": update.groups if update else 1,
        "PG_HAS_GROUPS": int(update is not None),
        "PG_QUEUE_DEPTH": update.queue_depth if update else 0,
    } | ({"PG_POST": 1} if post else {})


class Unfinished(MismatchError):
    """The machine did not come to the end of a layer; `events` are those until then."""

    def __init__(self, message: str, events: Events) -> None:
        super().__init__(message)
        self.events = events


class Bench:
    """A machine compiled for one accelerator, lane widths and capacity. Use it in a `with` block."""

    def __init__(
        self,
        accelerator: Accelerator,
        widths: LaneWidths,
        capacity: Capacity,
        post: PostUnit | None = None,
        *,
        waves: bool = False,
        assertions: bool = False,
        optimise: int = 2,
        cache: Path | None = None,
        change: Callable[[dict[str, str]], dict[str, str]] | None = None,
    ) -> None:
        """Compile the machine, or take it from the cache; `post` is the unit behind its output ports, if any.

        `waves` builds in what `wave` needs, `assertions` those of the RTL; both cost speed. `change` may rewrite its
        sources, to plant a fault.
        """
        texts = sources(accelerator, widths, capacity, post)
        texts = change(texts) if change else texts
        defines = bench_defines(accelerator, post) | ({"PGSIM_ASSERT": 1} if assertions else {})
        self.accelerator, self.widths, self.capacity, self.post = accelerator, widths, capacity, post
        self._library = _load(build(texts, defines, waves=waves, optimise=optimise, cache=cache))
        self._open: ctypes.c_void_p | None = ctypes.c_void_p(self._library.pg_new())
        self._wave: Path | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the machine."""
        if self._open is not None:
            self._library.pg_delete(self._open)
            self._open = None

    @property
    def _handle(self) -> ctypes.c_void_p:
        if self._open is None:
            raise ValueError("a machine that was closed must not be used again")
        return self._open

    def wave(self, path: Path, window: tuple[int, int] | None = None) -> None:
        """Write a waveform, as VCD: of all that follows, or of cycles first .. last of the layers that follow.

        `end_wave` ends the file. Raises OSError for a file that cannot be written, here or later.
        """
        first, last = window or (0, -1)
        self._wave = path
        self._check_wave(self._library.pg_wave(self._handle, os.fsencode(path), first, last))

    def end_wave(self) -> None:
        """Write what is left of the waveform, and close its file. Raises OSError where it could not be written."""
        self._check_wave(self._library.pg_wave_error(self._handle, 1))

    def _check_wave(self, error: int) -> None:
        if error:
            raise OSError(error, os.strerror(error), str(self._wave))

    def load(self, image: Image, program: NDArray[np.void] | None = None) -> None:
        """Put a layer and batch into the machine's registers and memories.

        `program` are host writes of the post-processing unit (pgsim.rtl.post_unit.WRITE). Its memories keep what they
        hold until `forget`.
        """
        packed = image.packed(self.capacity, self.accelerator.array.psum_bits)
        for index, name in enumerate(MEMORIES):
            place, words = packed[name]
            if len(place):
                place, words = np.ascontiguousarray(place, np.int32), np.ascontiguousarray(words, np.uint32)
                self._library.pg_poke(
                    self._handle, index, len(place), place.ctypes.data, words.ctypes.data, words.shape[1]
                )
        if program is not None:
            writes = np.ascontiguousarray(program, WRITE)
            self._library.pg_post_load(self._handle, len(writes), writes.ctypes.data)
        self._library.pg_reset(self._handle)

    def forget(self) -> None:
        """Set every word of the post-processing unit's memories to its smallest number, which few layers leave."""
        self._library.pg_post_forget(self._handle)

    def read(self, memory: Select, addresses: Ints) -> Ints:
        """Return words of a memory of the post-processing unit, int64 of the shape of `addresses`, as its host does."""
        where = np.ascontiguousarray(addresses, np.int64)
        words = np.zeros(where.shape, np.int64)
        self._library.pg_post_read(self._handle, memory, where.size, where.ctypes.data, words.ctypes.data)
        return words

    def run(self, limit: int, tick: Callable[[], None] | None = None) -> Events:
        """Run the loaded layer to its end, at most `limit` cycles; call `tick` now and then.

        The post-processing unit runs on until it is idle. Raises Unfinished where the machine has not ended by then,
        OSError where the waveform cannot be written.
        """
        done = 0
        while not self._library.pg_run(self._handle, min(_CHUNK, limit - done)):
            done += min(_CHUNK, limit - done)
            if done == limit:
                break
            self._check_wave(self._library.pg_wave_error(self._handle, 0))
            if tick is not None:
                tick()
        if done < limit:
            self._library.pg_post_drain(self._handle, _POST_LIMIT)
        counts = self._counts(0)
        streams = {stream: self._stream(stream) for stream in _Stream}
        events = Events(
            cycles=int(counts[0]),
            high_reads=int(counts[1]),
            low_reads=int(counts[2]),
            weight_reads=int(counts[3]),
            low_part_cycles=int(counts[4]),
            channel_read_cycles=int(counts[5]),
            channel_write_cycles=int(counts[6]),
            array_causes=self._counts(1)[: len(ArrayCause)],
            group_causes=self._counts(2)[: len(GroupCause)],
            queue_histogram=self._counts(3),
            outputs=streams[_Stream.OUTPUTS],
            pushes=streams[_Stream.PUSHES],
            launches=streams[_Stream.LAUNCHES],
            tile_starts=streams[_Stream.TILE_STARTS],
            tile_leaves=streams[_Stream.TILE_LEAVES],
            shared=streams[_Stream.SHARED],
            shared_leaves=streams[_Stream.SHARED_LEAVES],
            done=streams[_Stream.DONE],
            array_log=streams[_Stream.CAUSES],
            words_kept=counts[8:11],
            post_fault=bool(counts[13]),
            assertion_cycle=int(counts[15]) if counts[14] else None,
        )
        if done == limit:
            raise Unfinished(f"the RTL must finish the layer, not run on after {limit} cycles", events)
        if not counts[12]:
            raise Unfinished("the post-processing unit must come to rest after a layer, not stay at work", events)
        return events

    def _stream(self, stream: _Stream) -> Ints:
        length = ctypes.c_int64()
        data = self._library.pg_stream(self._handle, stream.value, ctypes.byref(length))
        return _copied(data, length.value).reshape(-1, _WIDTHS.get(stream, 2))

    def _counts(self, which: int) -> Ints:
        length = ctypes.c_int64()
        return _copied(self._library.pg_counts(self._handle, which, ctypes.byref(length)), length.value)


def _copied(data: int | None, length: int) -> Ints:
    if not length or data is None:
        return np.zeros(0, np.int64)
    return np.ctypeslib.as_array(ctypes.cast(data, ctypes.POINTER(ctypes.c_int64)), (length,)).astype(np.int64)


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, number = ctypes.c_void_p, ctypes.c_int64
    library.pg_new.restype = handle
    library.pg_delete.argtypes = [handle]
    library.pg_wave.argtypes = [handle, ctypes.c_char_p, number, number]
    library.pg_wave_error.argtypes = [handle, ctypes.c_int]
    library.pg_poke.argtypes = [handle, ctypes.c_int, number, ctypes.c_void_p, ctypes.c_void_p, number]
    library.pg_reset.argtypes = [handle]
    library.pg_run.argtypes = [handle, number]
    library.pg_post_forget.argtypes = [handle]
    library.pg_post_load.argtypes = [handle, number, ctypes.c_void_p]
    library.pg_post_drain.argtypes = [handle, number]
    library.pg_post_read.argtypes = [handle, ctypes.c_int, number, ctypes.c_void_p, ctypes.c_void_p]
    for name in ("pg_stream", "pg_counts"):
        function = getattr(library, name)
        function.argtypes, function.restype = [handle, ctypes.c_int, ctypes.POINTER(number)], handle
    return library
