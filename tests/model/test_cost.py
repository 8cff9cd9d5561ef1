"""Area and energy of whole machines, worked out by hand from the figures of the 45 nm table."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pgsim.hw.accelerator import Organisation
from pgsim.hw.curve import Price
from pgsim.hw.prices import EnergyTable, Stimulus
from pgsim.io.energy import load_energy_table
from pgsim.model.cost import area, energy
from pgsim.model.lanes import LaneWidths
from pgsim.results.actions import Action, ActionKind, Actions
from tests.model.random_machines import make_accelerator

REGISTER_UM2, FIFO_UM2 = 5.98, 5.98 * 1.3  # a bit


@pytest.fixture(scope="module")
def table() -> EnergyTable:
    return load_energy_table("45nm")


def areas_of(table: EnergyTable, organisation: Organisation = Organisation.DECOUPLED) -> Mapping[str, Price]:
    """Area of a machine of 4 x 4 PEs with 4 multipliers, a group of 4 lanes, queues of 8, accumulators of 24 bits."""
    machine = make_accelerator(
        organisation, rows=4, columns=4, multipliers=4, groups=1, lanes=4, queue_depth=8, banks=8, psum_bits=24
    )
    return area(machine, LaneWidths(2, 1, True), table)


def test_a_queue_entry_holds_accumulator_pixel_and_segment(table: EnergyTable) -> None:
    entry = 24 + 16 + 1
    assert areas_of(table)["queue"].value == pytest.approx(4 * 8 * entry * FIFO_UM2, rel=1e-4)


def test_both_parts_of_a_fused_lane_are_paid_for_where_there_is_no_gate(table: EnergyTable) -> None:
    machine = make_accelerator(Organisation.GATED_FUSED)
    counts = {
        Action(ActionKind.MAC, "array", 2, 8, Stimulus.DENSE): 1000,
        Action(ActionKind.MAC, "update_array", 1, 8, Stimulus.DENSE): 1000,
    }
    found = energy(Actions(counts), 0, machine, table, {})
    assert found.dynamic_pj["array"] == pytest.approx(1000 * 0.2034 * 0.42)
    assert found.dynamic_pj["update_array"] == pytest.approx(1000 * 0.2034 * 0.30)
    assert found.assumed == {"array", "update_array"}
    areas = areas_of(table, Organisation.GATED_FUSED)
    assert areas["array"].value == pytest.approx(64 * 443.5 * 0.55, rel=1e-4)
    assert areas["update_array"].value == pytest.approx(64 * 443.5 * 0.46, rel=1e-4)
