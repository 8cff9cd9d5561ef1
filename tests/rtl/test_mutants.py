"""Faults planted in the RTL, one at a time: the comparison finds each. A check that cannot fail is a defect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from pgsim.errors import InputError, MismatchError
from pgsim.hw.accelerator import Accelerator
from pgsim.rtl.bench import Bench
from pgsim.rtl.cosim import Comparison
from tests.model.random_machines import Case, cases
from tests.model.test_engines import prepare
from tests.rtl.machine_cases import CAPACITY, compare_prepared, needs_compiler
from tests.rtl.test_cosim import MACHINES, case_on


@dataclass(frozen=True)
class Mutant:
    """A text of one source, and what stands there instead."""

    about: str
    machine: str
    source: str
    text: str
    instead: str


MUTANTS = [
    Mutant(
        "a tile goes on from the partial sums of the one before", "dense", "pe.sv",
        ": plain\n    assign from = begins ? '0 : held;", ": plain\n    assign from = held;",
    ),
    Mutant("round robin begins at the FIFO served last", "decoupled", "scheduler.sv", "if (16'(c) > 16'(served)) above",
           "if (16'(c) >= 16'(served)) above"),
    Mutant("round robin never moves on", "decoupled_wide", "scheduler.sv", "else last_served <= served;",
           "else last_served <= last_served;"),
    Mutant("a FIFO is full one entry early", "decoupled", "queue_bank.sv", "full = count == 17'(DEPTH)",
           "full = count >= 17'(DEPTH - 1)"),
    Mutant("a run counts entries of the next segment", "decoupled", "queue_bank.sv", "run = of_slot[head_slot]",
           "run = count"),
    Mutant("later requests go first", "decoupled", "port_arbiter.sv", "for (int r = 0; r < REQUESTS; r++) begin",
           "for (int r = REQUESTS - 1; r >= 0; r--) begin"),
    Mutant("two words of a bank pass for one", "decoupled", "port_arbiter.sv", "served[bank[r]][p] == address[r]",
           "served[bank[r]][p] >> 1 == address[r] >> 1"),
    Mutant("a word that was read is not held", "decoupled", "walker.sv", "next.has_low = now.has_low | got_low;",
           "next.has_low = got_low;"),
    Mutant("a group's last entry is lost", "decoupled", "update_group.sv", "is_last = returned + 16'd1 == entries",
           "is_last = returned + 16'd2 >= entries"),
    Mutant("the last slice has no sign", "two_pass", "slice.sv", "last ? shifted :", "1'b0 ? shifted :"),
    Mutant("the comparator takes the threshold itself", "decoupled", "gate.sv", "(psum) > threshold",
           "(psum) >= threshold"),
    Mutant("a part of K does not read its first row of weights", "dense", "walker.sv",
           " || now.step == segment.first_step;\n  assign ask_high", ";\n  assign ask_high"),
    Mutant("the drain does not see that its port is claimed", "decoupled", "shadow.sv",
           "mask & queue_full | ~mask & port_claimed;", "mask & queue_full;"),
    Mutant("a column is taken for drained after each tile", "decoupled", "shadow.sv", "if (last) finished",
           "if (1'b1) finished"),
    Mutant("slices of weights are not shifted", "two_pass", "pe_array.sv", ".shift(act_shift + weight_shift)",
           ".shift(act_shift)"),
    Mutant("an accumulator saturates after each pass", "two_pass", "accumulator.sv", "to = ends_step ?", "to = 1'b1 ?"),
    Mutant("a part of K starts before the part before is done", "dense", "machine.sv",
           "psums_there = next_segment.first_step == 0 || before_done", "psums_there = 1'b1"),
    Mutant("a segment retires before its write has ended", "decoupled", "off_chip.sv",
           "(done[s] && (!has_write[s] || ended[s]))", "done[s]"),
    Mutant("the channel's latency is a cycle short", "dense", "off_chip.sv", "wait_left[s] <= 20'(LATENCY);",
           "wait_left[s] <= 20'(LATENCY - 1);"),
    Mutant("a sequence's next step does not wait", "dense", "off_chip.sv",
           "!(first_segment.follows && !done[~first_number[0]])", "1'b1"),
    Mutant("dilation is taken for 1", "gated_fused", "walker.sv", "now.tap_x * 20'(layer.dilation_x)",
           "now.tap_x * 20'd1"),
    Mutant("groups read the first column's window in depthwise layers", "decoupled", "update_group.sv",
           "(layer.own_port ? 16'(column) : 16'd0)", "16'd0"),
    Mutant("the LSB part starts from A_h, not A_h << l", "gated_fused", "pe.sv",
           "low_from = low_opens ? WIDE_BITS'(opened) : low_base", "low_from = low_base"),
    Mutant("the update phase adds where the mask is 0", "two_pass", "pe.sv", "updates && !mask_now ? '0 : part",
           "part"),
    Mutant("a cooperative LSB array takes the last tiles too", "cooperative", "scheduler.sv",
           "others_cycles >= 56'(own_cycles)", "1'b1"),
    Mutant("of writes done together the later goes first", "decoupled", "off_chip.sv", "number[1] < number[0]",
           "number[1] > number[0]"),
]  # fmt: skip


def drawn(accelerator: Accelerator, count: int) -> Iterator[Case]:
    """The same cases every time."""
    found: list[Case] = []

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases(accelerator.organisation))
    def gather(case: Case) -> None:
        found.append(case_on(accelerator, case))

    gather()
    yield from found


def first_difference(mutant: Mutant) -> Comparison | str | None:
    """What the comparison says of a fault: the first comparison that is not equal, or that the machine hangs."""
    accelerator = MACHINES[mutant.machine]

    def change(texts: dict[str, str]) -> dict[str, str]:
        assert texts[mutant.source].count(mutant.text) == 1, f"{mutant.source} must have {mutant.text!r} once"
        return texts | {mutant.source: texts[mutant.source].replace(mutant.text, mutant.instead)}

    bench: Bench | None = None
    for case in drawn(accelerator, 150):
        try:
            job, operands, outputs = prepare(case)
        except InputError:
            continue
        bench = bench or Bench(accelerator, operands.widths, CAPACITY, optimise=0, change=change)
        try:
            comparison = compare_prepared(job, operands, outputs, bench=bench)
        except MismatchError as error:
            return str(error)
        if not comparison.equal:
            return comparison
    return None


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.about)
def test_the_comparison_finds_a_planted_fault(mutant: Mutant) -> None:
    assert first_difference(mutant) is not None
