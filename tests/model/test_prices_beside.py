"""The same counts at the prices of several energy tables."""

from __future__ import annotations

from dataclasses import replace

import pgsim
from tests.build_trace import build_trace


def test_a_run_beside_is_the_run_that_names_the_table() -> None:
    trace, machine = build_trace(), pgsim.load_accelerator("predictivenet")
    machine = replace(machine, energy_tables_beside=("45nm", "45nm_calibrated"))
    result = pgsim.simulate(trace, machine)
    assert [one.provenance.energy_table for one in result.beside] == ["45nm", "45nm_calibrated"]
    for one in result.beside:
        alone = pgsim.simulate(trace, machine, prices=pgsim.load_energy_table(one.provenance.energy_table))
        assert alone.beside == ()
        assert one == alone
        assert all(check.holds for check in one.audit)
        assert one.totals().energy.total_pj != result.totals().energy.total_pj
        assert [row.counts for row in one.layers] == [row.counts for row in result.layers]
