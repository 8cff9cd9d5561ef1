"""A run against a baseline, with numbers that can be worked out on paper."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgsim.results.compare import compare
from tests.results.made import made_run


def test_speedup_is_time_not_cycles_and_is_divided_by_bits_and_area() -> None:
    slow = made_run("slow", clock_mhz=100.0, cycles=80)  # 100 cycles in all: 1 us
    fast = replace(
        made_run("fast", clock_mhz=200.0, cycles=80),  # 0.5 us
        multiplier_bits=768,
        area_um2={"array": 3.0e6, "weight": 5.0e6},
    )
    network, gated, others = compare([fast], slow)
    assert (network.layers, gated.layers, others.layers) == ("network", "gated", "not_gated")
    assert (network.accelerator, network.baseline) == ("fast", "slow")
    assert (network.speedup, network.multiplier_bits_ratio, network.area_ratio) == (2.0, 2.0, 4.0)
    assert network.speedup_at_equal_multiplier_bits == 1.0
    assert network.speedup_at_equal_area == 0.5
    assert network.energy_ratio == 1.0


def test_gated_layers_are_compared_with_gated_layers() -> None:
    network, gated, others = compare([made_run("short", cycles=80)], made_run("long", cycles=160))
    assert (network.speedup, gated.speedup, others.speedup) == (1.8, 2.0, 1.0)


def test_a_trace_without_gated_layers_has_no_such_comparison() -> None:
    run = made_run()
    plain = replace(run, layers=run.layers[1:])
    assert [one.layers for one in compare([plain], plain)] == ["network", "not_gated"]


def test_runs_of_different_traces_are_refused() -> None:
    run = made_run("one")
    other = replace(made_run("two"), provenance=replace(made_run("two").provenance, trace_sha256="f" * 64))
    with pytest.raises(ValueError, match=r"^two must have run the trace of one, not another$"):
        compare([other], run)
    with pytest.raises(ValueError, match="must have run the trace"):
        compare([replace(made_run("two"), images=8)], run)
