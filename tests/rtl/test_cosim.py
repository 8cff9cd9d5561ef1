"""The machine's RTL against the engines: every output bit and every event's cycle, over layers of all kinds.

`PGSIM_RTL_CASES=1000 pytest tests/rtl/test_cosim.py -k any_machine` draws a thousand machines, each compiled anew.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, reject, settings

from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator, DepthwisePort, Organisation, OverflowMode
from pgsim.model.clocked import run_clocked
from pgsim.rtl.bench import Bench
from tests.model.random_machines import Case, cases, make_accelerator
from tests.model.test_contract_example import example
from tests.rtl.machine_cases import CAPACITY, compare_prepared, cosimulate, needs_compiler

MACHINES = {
    "decoupled": make_accelerator(
        rows=3, columns=3, multipliers=2, act_bits=2, weight_bits=3, groups=2, lanes=3, lsb_bits=1, queue_depth=3,
        banks=3, activation_banks=2, row_steps=2, channel_bits=8, weight_buffer_bits=1 << 9,
    ),
    "decoupled_wide": make_accelerator(
        rows=5, columns=4, multipliers=3, act_bits=3, weight_bits=9, groups=3, lanes=2, lsb_bits=2, queue_depth=5,
        banks=5, lsb_ports=2, weight_ports=2, channel_bits=4096, latency=0, psum_bits=8, overflow=OverflowMode.WRAP,
    ),
    "decoupled_small": make_accelerator(
        rows=2, columns=4, multipliers=1, act_bits=1, groups=1, lanes=4, queue_depth=2, banks=4, row_steps=3,
        buffer_bits=400, weight_buffer_bits=1 << 8, channel_bits=64,
    ),
    "cooperative": make_accelerator(
        rows=4, columns=2, multipliers=2, act_bits=2, groups=3, lanes=2, lsb_bits=2, queue_depth=2, banks=3,
        cooperative=True, depthwise=DepthwisePort.ONE_COLUMN, psum_bits=8, overflow=OverflowMode.SATURATE,
    ),
    "dense": make_accelerator(
        Organisation.DENSE, rows=4, columns=3, multipliers=2, act_bits=3, weight_bits=8, activation_banks=3,
        row_steps=3, buffer_bits=600, weight_buffer_bits=100,
    ),
    "two_pass": make_accelerator(
        Organisation.TWO_PASS, rows=3, columns=4, multipliers=1, act_bits=2, weight_bits=3, activation_ports=2,
        weight_buffer_bits=1 << 8, psum_bits=8, overflow=OverflowMode.SATURATE,
    ),
    "gated_fused": make_accelerator(
        Organisation.GATED_FUSED, rows=4, columns=2, multipliers=3, act_bits=2, activation_banks=3, row_steps=2,
        buffer_bits=600, weight_buffer_bits=100,
    ),
}  # fmt: skip
SLOW = pytest.mark.slow
FEW = settings(
    max_examples=int(os.environ.get("PGSIM_RTL_LAYERS", "15")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
ANY = settings(
    max_examples=int(os.environ.get("PGSIM_RTL_CASES", "2")), deadline=None, suppress_health_check=list(HealthCheck)
)


def case_on(accelerator: Accelerator, case: Case) -> Case:
    return replace(case, accelerator=accelerator)


@needs_compiler
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW if name.startswith("decoupled_") else ()) for name in MACHINES]
)
def test_rtl_and_engines_agree_in_every_bit_and_cycle(name: str) -> None:
    accelerator = MACHINES[name]

    @FEW
    @given(cases(accelerator.organisation))
    def agree(case: Case) -> None:
        try:
            comparison = cosimulate(case_on(accelerator, case))
        except InputError:
            reject()  # a buffer too small for any tile
        assert comparison.equal, str(comparison.first)

    agree()


@SLOW
@needs_compiler
@ANY
@given(cases())
def test_rtl_of_any_machine_agrees_with_the_clocked_engine(case: Case) -> None:
    try:
        comparison = cosimulate(case, engine="clocked")
    except InputError:
        reject()
    assert comparison.equal, str(comparison.first)


@needs_compiler
def test_rtl_takes_the_cycles_of_the_worked_example() -> None:
    job, operands = example()
    _, outputs = run_clocked(job, operands)
    comparison = compare_prepared(job, operands, outputs, engine="clocked")
    assert comparison.equal, str(comparison.first)
    assert comparison.cycles == 24


@needs_compiler
def test_a_machine_that_was_closed_is_not_used_again() -> None:
    _, operands = example()
    with Bench(operands.accelerator, operands.widths, CAPACITY, optimise=0) as bench:
        pass
    with pytest.raises(ValueError, match="a machine that was closed must not be used again"):
        bench.forget()
    bench.close()
