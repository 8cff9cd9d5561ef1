"""Area and energy of whole machines, worked out by hand from the figures of the 45 nm table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pgsim.hw.accelerator import Organisation
from pgsim.hw.curve import Price
from pgsim.hw.prices import EnergyTable, Stimulus
from pgsim.io.energy import load_energy_table
from pgsim.model.cost import area, energy
from pgsim.model.lanes import LaneWidths, resolve_widths
from pgsim.model.post_unit import PostUnit, post_unit
from pgsim.results.actions import Action, ActionKind, Actions
from tests.model.random_machines import make_accelerator
from tests.model.test_residency_and_counts import network

REGISTER_UM2, FIFO_UM2 = 5.98, 5.98 * 1.3  # a bit


@pytest.fixture(scope="module")
def table() -> EnergyTable:
    return load_energy_table("45nm")


def areas_of(
    table: EnergyTable, organisation: Organisation = Organisation.DECOUPLED, **changes: Any
) -> Mapping[str, Price]:
    """Area of a machine of 4 x 4 PEs with 4 multipliers, a group of 4 lanes, queues of 8, accumulators of 24 bits.

    Two banks of activations and of weights, eight of the LSB plane.
    """
    shape = {"rows": 4, "columns": 4, "multipliers": 4, "groups": 1, "lanes": 4, "queue_depth": 8, "banks": 8}
    shape |= {"activation_banks": 2, "activation_ports": 1, "weight_banks": 2, "weight_ports": 1}
    machine = make_accelerator(organisation, psum_bits=24, **{**shape, **changes})
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


@pytest.mark.parametrize("organisation", Organisation)
def test_every_organisation_pays_for_the_same_port_where_no_trace_says_more(
    table: EnergyTable, organisation: Organisation
) -> None:
    # Between 8 and 32 bits: 282 x 3^(log4 3495/282) and 36 x 3^(log4 137/36); beyond 32 by the bit.
    multiplier_24, adder_24, adder_40, comparator_24 = 2072.9, 103.82, 137 * 40 / 32, 71 * 24 / 32
    parameters = 2 * (16 + 40) * REGISTER_UM2  # a factor and a bias, the set in use and the next one
    by_hand = 4 * (multiplier_24 + adder_24 + adder_40 + 2 * comparator_24 + parameters)
    post = areas_of(table, organisation)["post"]
    assert post.value == pytest.approx(by_hand, rel=1e-4)
    assert post.assumed


def test_a_port_has_what_the_most_demanding_layer_needs_of_each_part() -> None:
    # stem: 3-bit factors, then 3 levels over 16 bits; middle: 3 levels over 32; last: factors, a shortcut, a pool.
    unit = PostUnit((32,), (32 + 3, 32, 32), (32, 32, 32), channel_bits=3 + 1, shared_bits=7 * 33 + 1)
    assert post_unit(network().layers, 32) == unit
    assert post_unit(network().layers[:1], 32) == PostUnit((32,), (35,), (16, 16, 16), 3 + 1, 7 * 17 + 1)
    assert post_unit(network().layers[1:2], 32) == PostUnit((), (), (32, 32, 32), 0, 7 * 33 + 1)
    assert post_unit((), 32) is None
    for organisation in Organisation:
        assert resolve_widths(make_accelerator(organisation), network()).post == unit


def test_the_unit_s_parts_are_paid_for_at_each_port_and_shared_parameters_once(table: EnergyTable) -> None:
    unit = PostUnit((32,), (32, 8), (32, 32), channel_bits=10, shared_bits=100)
    found = area(make_accelerator(columns=5), LaneWidths(2, 1, True, unit), table)["post"]
    port = 3495 + 137 + 36 + 2 * 71 + 2 * 10 * REGISTER_UM2
    assert found.value == pytest.approx(5 * port + 100 * REGISTER_UM2, rel=1e-4)


def test_post_processing_leaks_over_the_cycles(table: EnergyTable) -> None:
    areas = {"post": Price(443.5e3, "um2", "by hand")}
    found = energy(Actions({}), 500, make_accelerator(), table, areas)  # 500 cycles at 500 MHz: 1 us
    assert found.leakage_pj["post"] == pytest.approx(15.6e3, rel=1e-3)  # 1000 lanes of 15.6 uW
    assert "post leakage" in found.assumed


MUX_UM2 = FIFO_UM2 - REGISTER_UM2  # two inputs of one bit
# Ports x bits x (inputs - 1): MSB words, LSB words to pixels and to lanes, weights, entries, results, output ports.
DECOUPLED_MUXES = 4 * 8 * 1 + 4 * 4 * 7 + 4 * 4 * 7 + 32 * 1 + 4 * (24 + 16 + 1) * 3 + 24 * 3 + 4 * 24 * 1


@pytest.mark.parametrize(
    ("organisation", "muxes"),
    [
        (Organisation.DECOUPLED, DECOUPLED_MUXES),
        (Organisation.DENSE, 4 * 8),
        (Organisation.TWO_PASS, 4 * 8),
        (Organisation.GATED_FUSED, 4 * 8 + 4 * 4),
    ],
)
def test_words_from_any_bank_take_a_tree_of_multiplexers_a_bit(
    table: EnergyTable, organisation: Organisation, muxes: int
) -> None:
    crossbar = areas_of(table, organisation)["crossbar"]
    assert crossbar.value == pytest.approx(muxes * MUX_UM2, rel=1e-4)
    assert crossbar.assumed


def test_more_to_choose_from_takes_more_multiplexers(table: EnergyTable) -> None:
    def muxes(**changes: Any) -> float:
        return areas_of(table, **changes)["crossbar"].value / MUX_UM2 - DECOUPLED_MUXES

    assert muxes(banks=16) == pytest.approx(2 * 4 * 4 * 8, abs=0.1)  # of the LSB plane: pixels and lanes
    assert muxes(lsb_ports=2) == pytest.approx(2 * 4 * 4 * 8, abs=0.1)
    assert muxes(cooperative=True) == pytest.approx(4 * 8, abs=0.1)  # MSB words to the lanes
    assert muxes(weight_banks=16) == pytest.approx(32 * 2, abs=0.1)  # four columns lie in four banks at most
    assert muxes(row_steps=2) == pytest.approx(32, abs=0.1)
    assert muxes(groups=2) == pytest.approx(4 * 4 * 7 + 32 + 4 * 41 * 3 + 24 * 3 + 4 * 24, abs=0.1)


def test_a_single_bank_of_everything_needs_no_multiplexer(table: EnergyTable) -> None:
    assert "crossbar" not in areas_of(table, Organisation.DENSE, activation_banks=1)


def test_a_bit_through_a_multiplexer_costs_a_bit_of_a_pop(table: EnergyTable) -> None:
    found = energy(Actions({Action(ActionKind.SELECT, "crossbar"): 1000}), 0, make_accelerator(), table, {})
    assert found.dynamic_pj["crossbar"] == pytest.approx(9.0)
    assert found.assumed == {"crossbar"}
