"""The whole machine, cycle by cycle: read beside docs/timing-contract.md, whose rule numbers it carries.

It is given the operands and computes with them: accumulators, entries and lanes hold real partial sums, so that what
comes out of the output ports is the layer's result, not a copy of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgsim.model.clocked.operands import Operands
from pgsim.model.clocked.units import Column, Entry, Fifo, GroupState, OffChipChannel, UpdateGroup
from pgsim.model.job import ArrayCause, GroupCause, Job, Timing

__all__ = ["Machine", "Operands", "run_clocked"]


@dataclass
class Tile:
    """A tile in flight: its number and its accumulators, [columns][pixels]."""

    index: int
    psum: NDArray[np.int64]
    spent: int = 0  # cycles spent where it is now


@dataclass(frozen=True)
class Item:
    """A piece of a tile that a group of a cooperative LSB array takes: pixels of one column."""

    tile: int
    column: int
    entries: tuple[Entry, ...]


class Machine:
    """One layer and batch on the machine. `step` is one cycle; `run` goes to the end."""

    def __init__(self, job: Job, operands: Operands) -> None:
        schedule = job.schedule
        self.job, self.operands, self.schedule = job, operands, schedule
        self.cycle = 0
        reads, writes = schedule.segment_read_bits.tolist(), schedule.segment_write_bits.tolist()
        self.channel = OffChipChannel(job.channel_bits, job.channel_latency, reads, writes)
        self.next_tile = 0
        self.items: deque[Item] = deque()  # of the tile that a cooperative LSB array took
        self.on_array: Tile | None = None  # the tile that the PE array (its MSB part) holds
        self.second: Tile | None = None  # the tile in the LSB parts of gated_fused
        self.columns = [Column() for _ in range(job.columns)]
        self.fifos = [Fifo(job.queue_depth) for _ in range(job.columns)]
        self.groups = [UpdateGroup() for _ in range(job.groups)]
        self.last_served = job.columns - 1
        self.outputs_left = (schedule.segment_columns * schedule.segment_pixels).tolist()
        self.is_done = [False] * schedule.segments  # as of the start of the cycle
        self.is_retired = [False] * schedule.segments
        self.outputs = operands.empty_outputs()
        self.array_causes = [0] * len(ArrayCause)
        self.group_causes = [0] * len(GroupCause)
        self.queue_histogram = [0] * (job.queue_depth + 1)
        self.lsb_words_read = self.second_busy = 0
        self.tile_start = [-1] * schedule.tiles
        self.tile_transfer = [-1] * schedule.tiles
        self.tile_on_lsb = [0] * schedule.tiles
        self.segment_done = [-1] * schedule.segments
        self.launches: list[list[int]] = []
        self.pushes: list[tuple[int, int]] = []
        self.array_log: list[tuple[int, ArrayCause]] = []

    def run(self) -> Timing:
        """Step until every segment is retired; return the counts."""
        while not self._finished():
            self.step()
        return Timing(
            cycles=self.cycle,
            array_causes=np.array(self.array_causes, dtype=np.int64),
            group_causes=np.array(self.group_causes, dtype=np.int64),
            queue_histogram=np.array(self.queue_histogram, dtype=np.int64),
            lsb_words_read=self.lsb_words_read,
            second_busy=self.second_busy,
            channel_read_cycles=self.channel.read_cycles,
            channel_write_cycles=self.channel.write_cycles,
            tile_start=np.array(self.tile_start, dtype=np.int64),
            tile_transfer=np.array(self.tile_transfer, dtype=np.int64),
            tile_on_lsb=np.array(self.tile_on_lsb, dtype=np.int64),
            segment_done=np.array(self.segment_done, dtype=np.int64),
            launches=np.array(self.launches, dtype=np.int64).reshape(-1, 6),
            pushes=np.array(self.pushes, dtype=np.int64).reshape(-1, 2),
            array_log=np.array(self.array_log, dtype=np.int64).reshape(-1, 2),
        )

    def _finished(self) -> bool:
        self._retire()
        return all(self.is_retired)

    def step(self) -> None:
        """Do one cycle: rules 1 to 6 of section 2, in their order."""
        for fifo in self.fifos:
            fifo.start_cycle()
        if self.job.groups:
            for fifo in self.fifos:
                self.queue_histogram[fifo.count] += 1
        self._retire()
        self.channel.step(self.cycle, self.is_retired)
        work_left = self._prediction_work_left()
        finished_segment = [column.finished_segment for column in self.columns]
        claimed: set[int] = set()  # output ports taken in this cycle
        self._pop(finished_segment, work_left)
        self._run_groups(claimed)
        refused = self._drain(claimed)
        self._pe_array(refused)
        self.cycle += 1

    # Rule 1

    def _retire(self) -> None:
        for segment, left in enumerate(self.outputs_left):
            if left == 0 and not self.is_done[segment]:
                self.is_done[segment] = True
                if self.channel.write_bits[segment]:
                    self.channel.write_queue.append(segment)
            if self.is_done[segment] and not self.is_retired[segment]:
                ended_at = self.channel.write_ended_at.get(segment, 0 if not self.channel.write_bits[segment] else None)
                self.is_retired[segment] = ended_at is not None and ended_at <= self.cycle

    def _take_port(self, segment: int, column: int, pixel: int, value: int) -> None:
        self.operands.store(self.outputs, segment, column, pixel, value)
        self.outputs_left[segment] -= 1
        if self.outputs_left[segment] == 0:
            self.segment_done[segment] = self.cycle

    # Rule 3: free groups look for work

    def _pop(self, finished_segment: list[int], work_left: bool) -> None:
        waiting = any(fifo.count for fifo in self.fifos)
        taken: set[int] = set()
        self.free_before = [group.state is GroupState.FREE for group in self.groups]
        if self.job.cooperative and not self.items:
            self._share_tile()
        for number, group in enumerate(self.groups):
            if group.state is not GroupState.FREE:
                continue
            if not self.job.uses_groups:
                self.group_causes[GroupCause.NOT_GATED] += 1
            elif self.job.cooperative and self.items:
                item = self.items.popleft()
                self._launch(number, item.column, list(item.entries), [0] * len(item.entries))
                if not self.items:
                    self.tile_transfer[item.tile] = self.cycle
            elif (column := self._choose_fifo(finished_segment, taken)) is not None:
                taken.add(column)
                self.last_served = column
                fifo = self.fifos[column]
                entries = [fifo.entries.popleft() for _ in range(min(self.job.lanes, fifo.run_length()))]
                self._launch(number, column, entries, [self.operands.aligned(entry.psum) for entry in entries])
            else:
                cause = GroupCause.PARTIAL if waiting else GroupCause.STARVED if work_left else GroupCause.TAIL
                self.group_causes[cause] += 1

    def _launch(self, number: int, column: int, entries: list[Entry], psums: list[int]) -> None:
        self.launches.append([number, column, entries[0].segment, len(entries), self.cycle, -1])
        self.groups[number].take(column, entries, psums, len(self.launches) - 1)
        self.group_causes[GroupCause.POP] += 1

    def _share_tile(self) -> None:
        """A cooperative LSB array takes the next tile, if it will not be the last to finish."""
        if self.next_tile == self.schedule.tiles:
            return
        index, lanes = self.next_tile, self.job.lanes
        segment = int(self.schedule.tile_segment[index])
        columns, pixels = int(self.schedule.segment_columns[segment]), int(self.schedule.tile_pixels[index])
        rounds = -(-columns * -(-pixels // lanes) // self.job.groups)
        own_cycles = rounds * self.schedule.steps * self.schedule.passes.update
        others_cycles = (self.schedule.tiles - index - 1) * int(self.job.tile_cycles[index])
        if not self.channel.is_on_chip(segment, self.cycle) or others_cycles < own_cycles:
            return
        first = int(self.schedule.tile_first_pixel[index])
        for chunk in range(first, first + pixels, lanes):
            for column in range(columns):
                chunk_pixels = range(chunk, min(chunk + lanes, first + pixels))
                self.items.append(Item(index, column, tuple(Entry(segment, pixel, 0) for pixel in chunk_pixels)))
        self.tile_on_lsb[index] = 1
        self.tile_start[index] = self.cycle
        self.next_tile += 1

    def _choose_fifo(self, finished_segment: list[int], taken: set[int]) -> int | None:
        for offset in range(1, self.job.columns + 1):
            column = (self.last_served + offset) % self.job.columns
            fifo = self.fifos[column]
            if column in taken or not fifo.count:
                continue
            run_is_complete = finished_segment[column] >= fifo.entries[0].segment
            if fifo.run_length() >= self.job.lanes or run_is_complete or fifo.is_full():
                return column
        return None

    # Rule 4: groups that were running or returning at the start of the cycle

    def _run_groups(self, claimed: set[int]) -> None:
        bank_word: dict[int, tuple[int, ...]] = {}  # LSB bank -> the word it serves in this cycle
        for group, was_free in zip(self.groups, self.free_before, strict=True):
            if was_free:
                continue
            if group.state is GroupState.RUN:
                self.group_causes[self._run_step(group, bank_word)] += 1
            else:
                self.group_causes[self._return_result(group, claimed)] += 1

    def _run_step(self, group: UpdateGroup, bank_word: dict[int, tuple[int, ...]]) -> GroupCause:
        if group.pass_index == 0:
            for lane, entry in enumerate(group.entries):
                if group.has_word[lane]:
                    continue
                word = self.operands.lsb_word_address(entry.segment, group.column, entry.pixel, group.step)
                if word is not None:
                    bank = word[1] % self.job.banks
                    if bank not in bank_word:
                        bank_word[bank] = word
                        self.lsb_words_read += 1
                    elif bank_word[bank] != word:
                        continue
                group.has_word[lane] = True
            if not all(group.has_word):
                return GroupCause.BANK_CONFLICT
        for lane, entry in enumerate(group.entries):
            group.psums[lane] = self.operands.update_step(
                group.psums[lane], entry.segment, group.column, entry.pixel, group.step, group.pass_index
            )
        group.pass_index += 1
        if group.pass_index == self.schedule.passes.update:
            group.pass_index = 0
            group.step += 1
            group.has_word = [False] * len(group.entries)
            if group.step == self.schedule.steps:
                group.state = GroupState.RETURN
        return GroupCause.BUSY

    def _return_result(self, group: UpdateGroup, claimed: set[int]) -> GroupCause:
        if group.column in claimed:
            return GroupCause.PORT_WAIT
        claimed.add(group.column)
        entry = group.entries[group.returned]
        self._take_port(entry.segment, group.column, entry.pixel, group.psums[group.returned])
        group.returned += 1
        if group.returned == len(group.entries):
            group.state = GroupState.FREE
            self.launches[group.launch][5] = self.cycle
        return GroupCause.RETURN

    # Rule 5: drain

    def _drain(self, claimed: set[int]) -> ArrayCause:
        """Each column offers one output; return what the first refusal was, by priority (DRAIN: none)."""
        refused = ArrayCause.DRAIN
        for number, column in enumerate(self.columns):
            if not column.pending:
                continue
            entry = column.pending[0]
            if self.operands.is_updated(entry.segment, number, entry.psum):
                if self.fifos[number].is_full():
                    refused = ArrayCause.QUEUE_FULL
                    continue
                self.fifos[number].entries.append(entry)
                self.pushes.append((self.cycle, number))
                self.operands.enqueue(entry.segment, number, entry.pixel)
            else:
                if number in claimed:
                    refused = ArrayCause.OUTPUT_PORT if refused is ArrayCause.DRAIN else refused
                    continue
                self._take_port(entry.segment, number, entry.pixel, self.operands.kept(entry.psum))
            column.pending.popleft()
            if not column.pending and self._is_last_pixel(entry):
                column.finished_segment = entry.segment
        return refused

    def _is_last_pixel(self, entry: Entry) -> bool:
        last = self.schedule.segment_first_tile[entry.segment] + self.schedule.segment_tiles[entry.segment] - 1
        return entry.pixel == self.schedule.tile_first_pixel[last] + self.schedule.tile_pixels[last] - 1

    # Rule 6: the PE array

    def _pe_array(self, refused: ArrayCause) -> None:
        if self.second is not None and self.second.spent == self.job.second_cycles and self._shadow_is_free():
            self._to_shadow(self.second)
            self.second = None
        if self.on_array is not None and self.on_array.spent == self.job.tile_cycles[self.on_array.index]:
            self._leave_array()
        if self.second is not None and self.second.spent < self.job.second_cycles:
            self.second.psum = self.operands.second_cycle(self.second.psum, self.second.index, self.second.spent)
            self.second.spent += 1
            self.second_busy += 1
        if self.on_array is None and self.next_tile < self.schedule.tiles:
            segment = int(self.schedule.tile_segment[self.next_tile])
            if self.channel.is_on_chip(segment, self.cycle) and self._psums_are_there(segment):
                self.on_array = Tile(self.next_tile, self.operands.first_psums(segment, self.next_tile))
                self.tile_start[self.next_tile] = self.cycle
                self.next_tile += 1
        cause = self._array_cause(refused)
        self.array_causes[cause] += 1
        if not self.array_log or self.array_log[-1][1] is not cause:
            self.array_log.append((self.cycle, cause))

    def _array_cause(self, refused: ArrayCause) -> ArrayCause:
        tile = self.on_array
        if tile is not None and tile.spent < self.job.tile_cycles[tile.index]:
            worked = tile.spent - int(self.job.tile_fetch[tile.index])
            tile.spent += 1
            if worked < 0:
                return ArrayCause.K_SPLIT
            tile.psum = self.operands.predict_cycle(tile.psum, tile.index, worked)
            return ArrayCause.BUSY
        if tile is not None:
            return refused
        if self.next_tile == self.schedule.tiles:
            return ArrayCause.TAIL
        segment = int(self.schedule.tile_segment[self.next_tile])
        if segment >= 2 and not self.is_done[segment - 2]:
            return ArrayCause.UPDATE_WAIT
        return ArrayCause.K_SPLIT if self.channel.is_on_chip(segment, self.cycle) else ArrayCause.OFF_CHIP

    def _psums_are_there(self, segment: int) -> bool:
        """Whether the part of K before, if there is one, has spilled all its partial sums."""
        return self.schedule.segment_first_step[segment] == 0 or self.is_done[segment - 1]

    def _leave_array(self) -> None:
        """Move full accumulators on, if there is room: to the shadow, or to the LSB parts of gated_fused."""
        tile = self.on_array
        assert tile is not None
        if self.job.second_cycles:
            if self.second is not None:
                return
            self.second = Tile(tile.index, tile.psum)
        else:
            if not self._shadow_is_free():
                return
            self._to_shadow(tile)
        self.tile_transfer[tile.index] = self.cycle
        self.on_array = None

    def _shadow_is_free(self) -> bool:
        return not any(column.pending for column in self.columns)

    def _to_shadow(self, tile: Tile) -> None:
        segment = int(self.schedule.tile_segment[tile.index])
        first, count = int(self.schedule.tile_first_pixel[tile.index]), int(self.schedule.tile_pixels[tile.index])
        for number in range(int(self.schedule.segment_columns[segment])):
            values = tile.psum[number]
            self.columns[number].pending.extend(
                Entry(segment, first + offset, int(values[offset])) for offset in range(count)
            )

    def _prediction_work_left(self) -> bool:
        """Whether the groups may still get work: tiles left or in flight, items, or a shadow that is not drained."""
        return (
            self.next_tile < self.schedule.tiles
            or self.on_array is not None
            or self.second is not None
            or bool(self.items)
            or not self._shadow_is_free()
        )


def run_clocked(job: Job, operands: Operands) -> tuple[Timing, NDArray[np.int64]]:
    """Run one layer and batch to its end; return the counts and the outputs, int64 [N, K, P, Q]."""
    machine = Machine(job, operands)
    return machine.run(), machine.outputs
