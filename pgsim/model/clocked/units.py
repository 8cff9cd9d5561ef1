"""The units of the machine, each with the state it holds between cycles and what it does in one (timing contract)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum


@dataclass
class OffChipChannel:
    """The off-chip channel (rule 2): one transfer at a time, reads in segment order before writes."""

    width_bits: int
    latency: int
    read_bits: list[int]
    write_bits: list[int]
    free_at: int = 0  # first cycle in which a new transfer may start
    next_read: int = 0
    on_chip_at: dict[int, int] = field(default_factory=dict)  # segment -> first cycle its operands are there
    write_queue: deque[int] = field(default_factory=deque)
    write_ended_at: dict[int, int] = field(default_factory=dict)
    read_cycles: int = 0
    write_cycles: int = 0

    def step(self, cycle: int, is_retired: list[bool], is_done: list[bool], follows: list[bool]) -> None:
        """Start what may start in this cycle. `follows`: segments that wait until the one before is done."""
        while self.next_read < len(self.read_bits):
            segment = self.next_read
            if (segment >= 2 and not is_retired[segment - 2]) or (follows[segment] and not is_done[segment - 1]):
                break
            if self.read_bits[segment] == 0:
                self.on_chip_at[segment] = cycle
                self.next_read += 1
                continue
            if cycle < self.free_at:
                return
            busy = -(-self.read_bits[segment] // self.width_bits)
            self.free_at = cycle + busy
            self.on_chip_at[segment] = cycle + busy + self.latency
            self.read_cycles += busy
            self.next_read += 1
            return
        if cycle >= self.free_at and self.write_queue:
            segment = self.write_queue.popleft()
            busy = -(-self.write_bits[segment] // self.width_bits)
            self.free_at = cycle + busy
            self.write_ended_at[segment] = cycle + busy
            self.write_cycles += busy

    def is_on_chip(self, segment: int, cycle: int) -> bool:
        """Whether the segment's operands can be used in this cycle."""
        return segment in self.on_chip_at and cycle >= self.on_chip_at[segment]


@dataclass
class ReadPorts:
    """The read ports of a buffer: each bank serves `ports` different words a cycle (section 3, words and ports)."""

    banks: int
    ports: int
    words_read: int = 0
    served: dict[int, set[tuple[int, ...]]] = field(default_factory=dict)  # bank -> its words in this cycle

    def start_cycle(self) -> None:
        """Free all ports."""
        self.served.clear()

    def read(self, bank: int, word: tuple[int, ...]) -> bool:
        """Ask a bank (taken modulo the banks) for a word; tell whether it is served in this cycle."""
        served = self.served.setdefault(bank % self.banks, set())
        if word in served:
            return True
        if len(served) == self.ports:
            return False
        served.add(word)
        self.words_read += 1
        return True


@dataclass(frozen=True)
class Entry:
    """One output on its way from the shadow registers: which one it is, and its accumulator (A_h where it is gated)."""

    segment: int
    pixel: int
    psum: int


@dataclass
class Fifo:
    """One bank of the update queue. `count` is the occupancy at the start of the cycle."""

    depth: int
    entries: deque[Entry] = field(default_factory=deque)
    count: int = 0

    def start_cycle(self) -> None:
        """Sample the occupancy that this cycle's rules read."""
        self.count = len(self.entries)

    def is_full(self) -> bool:
        """Whether a push is refused in this cycle."""
        return self.count == self.depth

    def run_length(self) -> int:
        """Entries of one segment at the head."""
        length = 0
        for entry in self.entries:
            if entry.segment != self.entries[0].segment:
                break
            length += 1
        return length


class GroupState(Enum):
    """What a group of the LSB array is doing."""

    FREE = "free"
    RUN = "run"
    RETURN = "return"


@dataclass
class UpdateGroup:
    """One group of lanes: the entries it took from one FIFO, and how far it is with them."""

    state: GroupState = GroupState.FREE
    column: int = 0
    entries: list[Entry] = field(default_factory=list)
    psums: list[int] = field(default_factory=list)
    has_high: list[bool] = field(default_factory=list)  # whether each lane has its word of the MSB plane
    has_low: list[bool] = field(default_factory=list)
    has_weights: bool = False
    step: int = 0
    pass_index: int = 0
    returned: int = 0
    launch: int = -1  # row of the launch record
    launched: int = -1  # cycle in which it took its entries

    def take(self, column: int, entries: list[Entry], psums: list[int], launch: int, cycle: int) -> None:
        """Start on entries of one FIFO, each lane from its A_h << l; the first step is in the next cycle."""
        self.state, self.column, self.entries, self.launch = GroupState.RUN, column, entries, launch
        self.psums, self.launched = psums, cycle
        self.step = self.pass_index = self.returned = 0
        self.start_step()

    def start_step(self) -> None:
        """Nothing of the next step has been read."""
        self.has_high = [False] * len(self.entries)
        self.has_low = [False] * len(self.entries)
        self.has_weights = False


@dataclass
class Column:
    """Shadow registers of one column of the PE array, and the pixels it has still to offer."""

    pending: deque[Entry] = field(default_factory=deque)
    finished_segment: int = -1  # last segment of which this column has offered every pixel
