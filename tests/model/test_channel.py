"""The off-chip channel's transfers, worked out from a timing, are those that the clocked engine's channel makes."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, reject

from pgsim.errors import InputError
from pgsim.model.channel import channel_transfers
from pgsim.model.clocked import run_clocked
from pgsim.model.clocked.units import OffChipChannel
from tests.model.random_machines import Case, cases
from tests.model.test_engines import SLOW, prepare


@SLOW
@given(cases())
def test_transfers_are_those_of_the_clocked_channel(case: Case) -> None:
    try:
        job, operands, _ = prepare(case)
    except InputError:
        reject()
    made: list[tuple[int, int, int, int]] = []
    step = OffChipChannel.step

    def watched(channel: OffChipChannel, cycle: int, *states: list[bool]) -> None:
        reads, writes, writing = channel.read_cycles, channel.write_cycles, list(channel.write_queue)
        step(channel, cycle, *states)
        if channel.read_cycles > reads:
            made.append((channel.next_read - 1, 0, cycle, channel.free_at))
        if channel.write_cycles > writes:
            made.append((writing[0], 1, cycle, channel.free_at))

    with patch.object(OffChipChannel, "step", watched):
        timing, _ = run_clocked(job, operands)
    assert [tuple(row) for row in channel_transfers(job, timing).tolist()] == made
