"""When the off-chip channel moved what, from a layer's timing (timing contract, section 2, rules 1 and 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pgsim.model.job import Job, Timing


def channel_transfers(job: Job, timing: Timing) -> NDArray[np.int64]:
    """Return int64 [transfers, 4]: segment, 1 for a write and 0 for a read, first cycle, cycle after the last.

    Transfers stand in the order in which they held the channel; those of 0 bits hold it for no cycle and are left out.
    """
    reads, writes = job.schedule.segment_read_bits.tolist(), job.schedule.segment_write_bits.tolist()
    seen_done = (timing.segment_done + 1).tolist()  # the cycle in which rule 1 sees that a segment is done
    retired = [cycle if bits == 0 else None for cycle, bits in zip(seen_done, writes, strict=True)]
    queue = sorted((cycle, segment) for segment, cycle in enumerate(seen_done) if writes[segment])
    follows = job.schedule.segment_follows.tolist()
    found: list[tuple[int, int, int, int]] = []
    free_at = segment = queued = cycle = 0

    def hold(which: int, is_write: int, bits: int) -> int:
        end = cycle + -(-bits // job.channel_bits)
        found.append((which, is_write, cycle, end))
        return end

    while segment < len(reads) or queued < len(queue):
        before = retired[segment - 2] if 2 <= segment < len(reads) else 0
        if before is not None and segment < len(reads) and follows[segment]:
            before = max(before, seen_done[segment - 1])
        may_read = segment < len(reads) and before is not None and before <= cycle
        if may_read and not reads[segment]:
            segment += 1
        elif cycle < free_at:
            cycle = free_at
        elif may_read:
            free_at = hold(segment, 0, reads[segment])
            segment += 1
        elif queued < len(queue) and queue[queued][0] <= cycle:
            written = queue[queued][1]
            free_at = retired[written] = hold(written, 1, writes[written])
            queued += 1
        else:
            nexts = [queue[queued][0]] if queued < len(queue) else []
            nexts += [before] if before is not None and segment < len(reads) else []
            cycle = min(nexts)
    return np.array(found, dtype=np.int64).reshape(-1, 4)
