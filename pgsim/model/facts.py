"""What a layer's counts must come to, from its schedule, mask and launches: the other side of the audit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pgsim.model.counts import spilled_bits
from pgsim.model.job import Job, Timing
from pgsim.model.residency import Placement
from pgsim.results.audit import LayerFacts


def layer_facts(
    job: Job,
    timing: Timing,
    placement: Placement,
    images: int,
    mask: NDArray[np.bool_] | None,
    psum_bits: int,
    outputs_wrong: int,
) -> LayerFacts:
    """Return the facts of one layer and batch. `mask` bool [N, K, P, Q], None where no gate is applied."""
    schedule, traffic = job.schedule, placement.traffic
    on_lsb = timing.tile_on_lsb == 1
    tile_steps = schedule.segment_steps[schedule.tile_segment]
    outputs_of_tiles = schedule.segment_columns[schedule.tile_segment] * schedule.tile_pixels
    written = traffic.write_bits + placement.shortcut_write_bits  # what leaves the chip passes the output buffer
    return LayerFacts(
        images=images,
        updated=int(mask.sum()) if mask is not None else 0,
        shared=int(outputs_of_tiles[on_lsb].sum()),
        outputs_wrong=outputs_wrong,
        tile_cycles=int(tile_steps[~on_lsb].sum()) * sum(job.phases),
        wait_cycles=int(schedule.tile_waits[~on_lsb].sum()) * len(job.phases),
        fetch_cycles=int(job.tile_fetch[~on_lsb].sum()),
        update_cycles=len(timing.launches) * schedule.steps * schedule.passes.update,
        launches=len(timing.launches),
        launched=int(timing.launches[:, 3].sum()),
        read_bits=schedule.activation_fill_bits + schedule.weight_fill_bits + traffic.read_bits * images,
        write_bits=traffic.write_bits * images,
        kept_bits=(placement.code_write_bits + written) * images + spilled_bits(schedule, psum_bits),
        read_cycles=_channel_cycles(schedule.segment_read_bits, job.channel_bits),
        write_cycles=_channel_cycles(schedule.segment_write_bits, job.channel_bits),
    )


def _channel_cycles(bits: NDArray[np.int64], width: int) -> int:
    return int((-(-bits // width)).sum())
