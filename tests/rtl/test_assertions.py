"""Machines whose partial sums must not overflow: an assertion of the RTL fails where one does, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgsim.errors import InputError, OverflowDetected
from pgsim.hw.accelerator import Accelerator, Organisation, OverflowMode
from pgsim.model.fast import run_fast
from pgsim.rtl.bench import Bench, Events
from pgsim.rtl.cosim import compare_events
from pgsim.rtl.image import make_image
from tests.model.random_machines import Case
from tests.model.test_engines import prepare
from tests.rtl.machine_cases import CAPACITY, needs_compiler
from tests.rtl.test_cosim import MACHINES, SLOW, case_on
from tests.rtl.test_mutants import drawn


def with_psum(accelerator: Accelerator, bits: int, overflow: OverflowMode) -> Accelerator:
    return replace(accelerator, array=replace(accelerator.array, psum_bits=bits, overflow=overflow))


def overflows(case: Case) -> bool:
    """Whether the model refuses the case. Raises InputError where no schedule exists for it."""
    try:
        prepare(case)
    except OverflowDetected:
        return True
    return False


def run(bench: Bench, case: Case) -> Events:
    """Run a case whose sums wrap in the model on a machine that takes an overflow for an error; timing must agree."""
    job, operands, outputs = prepare(case)
    gate = operands.layer.gate if case.accelerator.organisation is not Organisation.DENSE else None
    bench.load(make_image(operands.layer, gate, job, case.accelerator, operands.activation))
    timing = run_fast(job)
    events = bench.run(2 * timing.cycles + 1000)
    comparison = compare_events(events, job, operands.layer.geometry, timing, outputs)
    if events.assertion_cycle is None:
        assert comparison.equal, str(comparison.first)
    else:  # nothing else differs
        assert comparison.events == 1
        assert str(comparison.first).startswith(f"an assertion of the RTL (cycle {events.assertion_cycle}) is failed")
    return events


@SLOW
@needs_compiler
@pytest.mark.parametrize("name", MACHINES)
def test_an_assertion_fails_where_a_partial_sum_overflows_and_with_a_bit_more_does_not(name: str) -> None:
    """Machines of 8 and 9 bits over the same layers; some overflow the first alone."""
    seen: dict[int, list[bool]] = {}
    for bits in (8, 9):
        checked = with_psum(MACHINES[name], bits, OverflowMode.ERROR)
        bench: Bench | None = None
        for drawn_case in drawn(checked, 60):
            case = case_on(with_psum(checked, bits, OverflowMode.WRAP), drawn_case)
            try:
                expected = overflows(drawn_case)
            except InputError:
                continue
            bench = bench or Bench(checked, prepare(case)[1].widths, CAPACITY, optimise=0, assertions=True)
            events = run(bench, case)
            assert (events.assertion_cycle is not None) == expected
            assert events.assertion_cycle is None or 0 <= events.assertion_cycle < events.cycles
            seen.setdefault(bits, []).append(expected)
    assert sum(seen[8]) > sum(seen[9]) > 0
    assert not all(seen[8])


@SLOW
@needs_compiler
def test_a_machine_without_assertions_says_nothing_of_an_overflow() -> None:
    checked = with_psum(MACHINES["decoupled"], 8, OverflowMode.ERROR)
    case = next(case for case in drawn(checked, 60) if overflows(case))
    wraps = case_on(with_psum(checked, 8, OverflowMode.WRAP), case)
    with Bench(checked, prepare(wraps)[1].widths, CAPACITY, optimise=0) as bench:
        assert run(bench, wraps).assertion_cycle is None
