"""What an engine is given and what it returns: one layer and batch on one accelerator."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pgsim.hw.accelerator import Accelerator, Buffer, Organisation
from pgsim.model.schedule import Schedule, array_phases, reads_lsb, tile_cycles
from pgsim.workload.layer import Geometry


class ArrayCause(IntEnum):
    """What one cycle of the PE array went to, in order of priority (timing contract, section 6)."""

    BUSY = 0  # spent on a tile's steps
    TAIL = 1  # no tile left
    QUEUE_FULL = 2  # full accumulators wait for the shadow: a FIFO refused an entry
    OUTPUT_PORT = 3  # full accumulators wait for the shadow: a port was taken by a returning update
    DRAIN = 4  # full accumulators wait for the shadow, or for the LSB parts (gated_fused)
    UPDATE_WAIT = 5  # the segment two back is not done: its updates still hold weights and LSB plane
    OFF_CHIP = 6  # operands are not on chip yet
    K_SPLIT = 7  # fetched partial sums of the part of K before
    BANK_CONFLICT = 8  # a pixel of the step still waits for its activation word
    RECURRENCE = 9  # the step of the sequence before is not done


class GroupCause(IntEnum):
    """What one cycle of one group of the LSB array went to, in order of priority (timing contract, section 6)."""

    POP = 0  # took entries from a FIFO
    BUSY = 1  # completed a step's reads, or a further pass of it
    BANK_CONFLICT = 2  # a lane still waits for its LSB word
    WEIGHT_PORT = 3  # every lane has its word, the group's weights are not read yet
    RETURN = 4  # handed a result to its output port
    PORT_WAIT = 5  # had a result and no port
    PARTIAL = 6  # entries wait, too few of one channel to start
    STARVED = 7  # no entry waits, and more may come
    TAIL = 8  # nothing is left to do
    NOT_GATED = 9  # the layer has no gate and is not shared: the LSB array sits it out


@dataclass(frozen=True)
class Ports:
    """What a buffer serves: `banks`, each `ports` different words a cycle."""

    banks: int
    ports: int


@dataclass(frozen=True)
class Job:
    """One layer and batch on one accelerator, as both engines take it.

    `mask` is bool [N, K, P*Q], None where every output goes straight to its port (a layer that is not gated, and every
    layer of dense, two_pass and gated_fused). `tile_cycles` int64 [T] is E of every tile, of which the first
    `tile_fetch` int64 [T] fetch partial sums. `phases` is the passes a step takes each time a tile goes through its
    steps on the PE array: twice in two_pass with a gate, else once. `second_cycles` int64 [T] is the cycles of a tile
    in the LSB parts of gated_fused, else 0. `cooperative`: the LSB array shares the tiles. `reads_lsb`: the PE array
    reads both planes. `activation`, `lsb` and `weight` are the buffers' ports (one part's of `weight`, where
    gated_fused has two parts at work); one read of `weight` gives a column its weights of `row_steps` steps.
    """

    schedule: Schedule
    geometry: Geometry
    mask: NDArray[np.bool_] | None
    tile_cycles: NDArray[np.int64]
    tile_fetch: NDArray[np.int64]
    phases: tuple[int, ...]
    second_cycles: NDArray[np.int64]
    cooperative: bool
    reads_lsb: bool
    columns: int
    groups: int
    lanes: int
    queue_depth: int
    activation: Ports
    lsb: Ports
    weight: Ports
    row_steps: int
    channel_bits: int
    channel_latency: int

    @property
    def uses_groups(self) -> bool:
        """Whether the LSB array has anything to do."""
        return self.mask is not None or self.cooperative


def make_job(schedule: Schedule, geometry: Geometry, accelerator: Accelerator, mask: NDArray[np.bool_] | None) -> Job:
    """Return the job of one layer; `mask` bool [N, K, P, Q] where it runs with a gate on this accelerator, else
    None."""
    org, gated = accelerator.organisation, mask is not None
    queued = gated and org is Organisation.DECOUPLED
    update, memory = accelerator.update, accelerator.memory
    cycles = tile_cycles(schedule, org, gated)
    has_second = gated and org is Organisation.GATED_FUSED
    return Job(
        schedule=schedule,
        geometry=geometry,
        mask=mask.reshape(*mask.shape[:2], -1) if queued and mask is not None else None,
        tile_cycles=cycles,
        tile_fetch=schedule.tile_fetch,
        phases=array_phases(schedule, org, gated),
        second_cycles=cycles if has_second else np.zeros_like(cycles),
        cooperative=accelerator.cooperative and not gated and schedule.parts == 1 and not schedule.recurrent,
        reads_lsb=reads_lsb(accelerator, gated),
        columns=accelerator.array.columns,
        groups=update.groups if update else 0,
        lanes=update.lanes if update else 0,
        queue_depth=update.queue_depth if update else 0,
        activation=_ports(memory.activation),
        lsb=_ports(memory.activation_lsb),
        weight=_ports(memory.weight, 2 if has_second else 1),
        row_steps=memory.weight.row_steps,
        channel_bits=accelerator.memory.off_chip.width_bits,
        channel_latency=accelerator.memory.off_chip.latency_cycles,
    )


def _ports(buffer: Buffer | None, streams: int = 1) -> Ports:
    return Ports(buffer.banks, buffer.ports // streams) if buffer else Ports(1, 1)


@dataclass(frozen=True)
class Timing:
    """What an engine counted. Equal between engines, array by array, dtype included.

    array_causes int64 [10] sums to `cycles`; group_causes int64 [10] sums to groups * cycles (0 groups: all zeros).
    queue_histogram int64 [Dq + 1]: FIFO-cycles at each occupancy, taken at the start of every cycle; sums to columns *
    cycles.
    tile_start, tile_transfer int64 [T]: first cycle on the PE array, and the cycle the accumulators left it; for a
    tile that a cooperative LSB array took, the cycle it was taken and the cycle its last item was handed to a group.
    segment_done int64 [S]: the cycle in which the segment's last output took its port.
    launches int64 [U, 6]: group, column, segment, entries, pop cycle, cycle of the last result, one row a launch in
    pop order.
    tile_on_lsb int64 [T]: 1 where a cooperative LSB array took the tile, else 0.
    msb_words_read, lsb_words_read: words that the LSB array's groups read from each plane; weight_rows_read: reads of
    their columns' weights. One that is shared counts once, one that the PE array reads in the same cycle not at all.
    pushes int64 [E, 2]: cycle and column of every entry that went into the queue, in order.
    array_log int64 [X, 2]: cycle and ArrayCause, one row wherever the PE array's cause changes.
    """

    cycles: int
    array_causes: NDArray[np.int64]
    group_causes: NDArray[np.int64]
    queue_histogram: NDArray[np.int64]
    msb_words_read: int
    lsb_words_read: int
    weight_rows_read: int
    second_busy: int  # cycles in which the LSB parts of gated_fused worked
    channel_read_cycles: int
    channel_write_cycles: int
    tile_start: NDArray[np.int64]
    tile_transfer: NDArray[np.int64]
    tile_on_lsb: NDArray[np.int64]
    segment_done: NDArray[np.int64]
    launches: NDArray[np.int64]
    pushes: NDArray[np.int64]
    array_log: NDArray[np.int64]

    @property
    def queue_peak(self) -> int:
        """Largest occupancy that any FIFO reached."""
        used = np.nonzero(self.queue_histogram)[0]
        return int(used[-1]) if len(used) else 0
