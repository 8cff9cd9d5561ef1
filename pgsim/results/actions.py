"""What a machine did, counted: actions that add. Prices come last and once (pgsim.model.cost)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from pgsim.hw.prices import Stimulus


class ActionKind(Enum):
    """One kind of work; what is counted, and what `bits` and `other_bits` of an Action mean, is on each line."""

    MAC = "mac"  # one whole MAC lane for one cycle; bits = activation operand, other_bits = weight operand
    COMPARE = "compare"  # one comparison of two `bits`-bit integers
    ADD = "add"  # one addition of `bits` bits
    MULTIPLY = "multiply"  # one multiplication outside the arrays; bits = the wider operand, other_bits = the other
    REGISTER_WRITE = "register_write"  # one register of `bits` bits written
    FIFO_PUSH = "fifo_push"  # one entry of `bits` bits
    FIFO_POP = "fifo_pop"  # one entry of `bits` bits
    SELECT = "select"  # one bit through one two-input multiplexer
    SRAM_READ = "sram_read"  # one bit read; `component` names the buffer
    SRAM_WRITE = "sram_write"  # one bit written; `component` names the buffer
    DRAM_READ = "dram_read"  # one bit read
    DRAM_WRITE = "dram_write"  # one bit written


@dataclass(frozen=True)
class Action:
    """One kind of action at one place. `component` is a column of the tables: array, queue, off_chip, ..."""

    kind: ActionKind
    component: str
    bits: int = 0
    other_bits: int = 0
    stimulus: Stimulus | None = None  # what a MAC lane saw, which decides its energy; None elsewhere


@dataclass(frozen=True)
class Actions:
    """Counts of actions: python ints, 0 or more, exact. Adding two gives the counts of both."""

    counts: Mapping[Action, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for action, count in self.counts.items():
            if not isinstance(count, int) or count < 0:
                raise ValueError(f"count of {action} must be an int of 0 or more, not {count!r}")

    def __add__(self, other: Actions) -> Actions:
        total: Counter[Action] = Counter(self.counts)
        total.update(other.counts)
        return Actions(dict(total))

    def count(self, kind: ActionKind, component: str | None = None, *stimuli: Stimulus) -> int:
        """Sum the counts of one kind, at one component or all, of the given stimuli or all."""
        return sum(
            count
            for action, count in self.counts.items()
            if action.kind is kind
            and component in (None, action.component)
            and (not stimuli or action.stimulus in stimuli)
        )
