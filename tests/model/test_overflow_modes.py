"""A machine whose accumulators saturate or wrap: told apart from a trace that is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgsim.errors import MismatchError, OverflowDetected
from pgsim.hw.accelerator import OverflowMode
from pgsim.io.energy import load_prices
from pgsim.io.hardware import load_accelerator
from pgsim.model.simulate import simulate
from tests.build_trace import build_trace


@pytest.mark.parametrize("mode", [OverflowMode.SATURATE, OverflowMode.WRAP])
def test_narrow_accumulators_are_named_and_not_the_trace(mode: OverflowMode) -> None:
    machine = load_accelerator("predictivenet")
    narrow = replace(machine, array=replace(machine.array, psum_bits=8, overflow=mode))
    with pytest.raises(MismatchError) as error:
        simulate(build_trace(), narrow, load_prices(machine))
    assert f"with array.psum_bits 8 and array.overflow {mode.value}, output[" in str(error.value)
    result = simulate(build_trace(), narrow, load_prices(machine), verify=False)
    assert all(check.holds for check in result.audit)


def test_an_overflow_that_is_an_error_names_the_width_needed() -> None:
    machine = load_accelerator("predictivenet")
    narrow = replace(machine, array=replace(machine.array, psum_bits=8))
    with pytest.raises(OverflowDetected, match=r"psum_bits must be at least \d+, not 8"):
        simulate(build_trace(), narrow, load_prices(machine))
