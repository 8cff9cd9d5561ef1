"""The whole machine, cycle by cycle: read beside docs/timing-contract.md, whose rule numbers it carries.

It is given the operands and computes with them: accumulators, entries and lanes hold real partial sums, so that what
comes out of the output ports is the layer's result, not a copy of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pgsim.model.clocked.operands import Operands
from pgsim.model.clocked.units import Column, Entry, Fifo, GroupState, OffChipChannel, ReadPorts, UpdateGroup
from pgsim.model.job import ArrayCause, GroupCause, Job, Ports, Timing

__all__ = ["Machine", "Operands", "run_clocked"]


@dataclass
class Tile:
    """A tile in flight: its number and its accumulators, [columns][pixels]."""

    index: int
    psum: NDArray[np.int64]
    fetched: int = 0  # cycles spent fetching partial sums
    worked: int = 0  # passes done where it is now
    has_word: list[list[bool]] = field(default_factory=list)  # of the step: for each plane read, for each pixel


class ReadSide:
    """The buffers' read ports that one operand stream has: activation planes, and weights."""

    def __init__(self, planes: list[ReadPorts], weight: ReadPorts) -> None:
        self.planes, self.weight = planes, weight

    def start_cycle(self) -> None:
        """Free all ports."""
        for ports in (*self.planes, self.weight):
            ports.start_cycle()


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
        self.msb, self.lsb, self.weight = (_read_ports(ports) for ports in (job.activation, job.lsb, job.weight))
        self.array_side = ReadSide([self.msb, self.lsb] if job.reads_lsb else [self.msb], self.weight)
        self.second_side = ReadSide([_read_ports(job.activation)], _read_ports(job.weight))
        self.group_words = [0, 0, 0]  # that the LSB array read of both planes and of the weights
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
        self.second_busy = 0
        self.follows = schedule.segment_follows.tolist()
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
            msb_words_read=self.group_words[0],
            lsb_words_read=self.group_words[1],
            weight_rows_read=self.group_words[2],
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
        """Do one cycle: rules 1 to 7 of section 2, in their order."""
        for fifo in self.fifos:
            fifo.start_cycle()
        for ports in (self.msb, self.lsb, self.weight, self.second_side):
            ports.start_cycle()
        if self.job.groups:
            for fifo in self.fifos:
                self.queue_histogram[fifo.count] += 1
        self._retire()
        self.channel.step(self.cycle, self.is_retired, self.is_done, self.follows)
        work_left = self._prediction_work_left()
        finished_segment = [column.finished_segment for column in self.columns]
        claimed: set[int] = set()  # output ports taken in this cycle
        self._pop(finished_segment, work_left)
        running = [group for group in self.groups if group.state is GroupState.RUN and group.launched < self.cycle]
        self._return_results(claimed)
        refused = self._drain(claimed)
        self._pe_array(refused)
        self._run_groups(running)
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
        self.groups[number].take(column, entries, psums, len(self.launches) - 1, self.cycle)
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

    # Rule 7: groups that run

    def _run_groups(self, running: list[UpdateGroup]) -> None:
        before = [ports.words_read for ports in (self.msb, self.lsb, self.weight)]
        for group in running:
            self.group_causes[self._run_step(group)] += 1
        for index, ports in enumerate((self.msb, self.lsb, self.weight)):
            self.group_words[index] += ports.words_read - before[index]

    def _read_words(self, group: UpdateGroup) -> None:
        """Each lane asks for the words that it lacks, the group for its weights."""
        for lane, entry in enumerate(group.entries):
            word = self.operands.word_address(entry.segment, group.column, entry.pixel, group.step)
            if not group.has_low[lane]:
                group.has_low[lane] = word is None or self.lsb.read(word[1], word)
            if not group.has_high[lane]:  # only a cooperative LSB array reads the MSB plane
                group.has_high[lane] = word is None or not self.job.cooperative or self.msb.read(word[1], word)
        if group.step % self.job.row_steps:
            group.has_weights = True  # kept from the read before
        elif not group.has_weights:
            group.has_weights = self._read_weights(self.weight, group.entries[0].segment, group.column, group.step)

    def _read_weights(self, ports: ReadPorts, segment: int, column: int, step: int) -> bool:
        row = (int(self.schedule.segment_first_channel[segment]), step // self.job.row_steps)
        return ports.read(column % min(ports.banks, self.job.columns), row)

    def _run_step(self, group: UpdateGroup) -> GroupCause:
        if group.pass_index == 0:
            self._read_words(group)
            if not all(group.has_low) or not all(group.has_high):
                return GroupCause.BANK_CONFLICT
            if not group.has_weights:
                return GroupCause.WEIGHT_PORT
        for lane, entry in enumerate(group.entries):
            group.psums[lane] = self.operands.update_step(
                group.psums[lane], entry.segment, group.column, entry.pixel, group.step, group.pass_index
            )
        group.pass_index += 1
        if group.pass_index == self.schedule.passes.update:
            group.pass_index = 0
            group.step += 1
            group.start_step()
            if group.step == self.schedule.steps:
                group.state = GroupState.RETURN
        return GroupCause.BUSY

    # Rule 4: groups that return results

    def _return_results(self, claimed: set[int]) -> None:
        for group in self.groups:
            if group.state is GroupState.RETURN:
                self.group_causes[self._return_result(group, claimed)] += 1

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
        if self.second is not None and self._is_full(self.second) and self._shadow_is_free():
            self._to_shadow(self.second)
            self.second = None
        if self.on_array is not None and self._is_full(self.on_array):
            self._leave_array()
        if self.second is not None and not self._is_full(self.second):
            self._second_cycle(self.second)
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
        if tile is not None and not self._is_full(tile):
            return self._array_cycle(tile)
        if tile is not None:
            return refused
        if self.next_tile == self.schedule.tiles:
            return ArrayCause.TAIL
        segment = int(self.schedule.tile_segment[self.next_tile])
        if segment >= 2 and not self.is_done[segment - 2]:
            return ArrayCause.UPDATE_WAIT
        if self.follows[segment] and not self.is_done[segment - 1]:
            return ArrayCause.RECURRENCE
        return ArrayCause.K_SPLIT if self.channel.is_on_chip(segment, self.cycle) else ArrayCause.OFF_CHIP

    def _is_full(self, tile: Tile) -> bool:
        """Whether a tile has done all its passes where it is: on the array, or in the LSB parts of gated_fused."""
        segment = int(self.schedule.tile_segment[tile.index])
        return tile.worked == self.operands.array_passes(segment)  # both parts of gated_fused take as many

    def _array_cycle(self, tile: Tile) -> ArrayCause:
        """A cycle of a tile on the array: fetch partial sums, wait for words, or do a pass."""
        segment = int(self.schedule.tile_segment[tile.index])
        if tile.fetched < self.job.tile_fetch[tile.index]:
            tile.fetched += 1
            return ArrayCause.K_SPLIT
        step, pass_index = self.operands.array_step(segment, tile.worked)
        if pass_index == 0 and not self._has_words(tile, step, self.array_side):
            return ArrayCause.BANK_CONFLICT
        tile.psum = self.operands.predict_cycle(tile.psum, tile.index, tile.worked)
        tile.worked += 1
        tile.has_word = []
        return ArrayCause.BUSY

    def _second_cycle(self, tile: Tile) -> None:
        self.second_busy += 1
        step, pass_index = divmod(tile.worked, self.schedule.passes.update)
        if pass_index == 0 and not self._has_words(tile, step, self.second_side):
            return
        tile.psum = self.operands.second_cycle(tile.psum, tile.index, tile.worked)
        tile.worked += 1
        tile.has_word = []

    def _has_words(self, tile: Tile, step: int, side: ReadSide) -> bool:
        """Read what the pixels of a tile still lack of a step; in the step's first cycle, the weights too."""
        segment = int(self.schedule.tile_segment[tile.index])
        first, pixels = int(self.schedule.tile_first_pixel[tile.index]), int(self.schedule.tile_pixels[tile.index])
        if not tile.has_word:
            tile.has_word = [[False] * pixels for _ in side.planes]
            if step % self.job.row_steps == 0 or step == self.schedule.segment_first_step[segment]:
                for column in range(int(self.schedule.segment_columns[segment])):
                    served = self._read_weights(side.weight, segment, column, step)
                    assert served, "the array asks first"
        for ports, has_word in zip(side.planes, tile.has_word, strict=True):
            for pixel in range(pixels):
                if not has_word[pixel]:
                    word = self.operands.word_address(segment, 0, first + pixel, step)
                    has_word[pixel] = word is None or ports.read(word[1], word)
        return all(map(all, tile.has_word))

    def _psums_are_there(self, segment: int) -> bool:
        """Whether the part of K before, if there is one, has spilled all its partial sums."""
        return self.schedule.segment_first_step[segment] == 0 or self.is_done[segment - 1]

    def _leave_array(self) -> None:
        """Move full accumulators on, if there is room: to the shadow, or to the LSB parts of gated_fused."""
        tile = self.on_array
        assert tile is not None
        if self.job.second_cycles[tile.index]:
            if self.second is not None:
                return
            self.second = Tile(tile.index, tile.psum)  # its second reduction starts
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


def _read_ports(ports: Ports) -> ReadPorts:
    return ReadPorts(ports.banks, ports.ports)


def run_clocked(job: Job, operands: Operands) -> tuple[Timing, NDArray[np.int64]]:
    """Run one layer and batch to its end; return the counts and the outputs, int64 [N, K, P, Q]."""
    machine = Machine(job, operands)
    return machine.run(), machine.outputs
