"""Prices against figures of the literature, worked out by hand, and the rules between and beyond the rows."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from pgsim.errors import InputError
from pgsim.hw.curve import Curve, Price
from pgsim.hw.prices import Action, Component, EnergyTable, Stimulus
from pgsim.io.energy import load_energy_table

KIB = 8192
DENSE, MSB, LSB, IDLE, GATED = Stimulus


@pytest.fixture(scope="module")
def table() -> EnergyTable:
    return load_energy_table("45nm")


def close(value: float, tolerance: float = 1e-3) -> object:
    return pytest.approx(value, rel=tolerance)


# Lanes: Bit Fusion's synthesised b x b PEs at 45 nm, and whole-MAC factors relative to 8 x 8


@pytest.mark.parametrize(
    ("bits", "pj", "um2"), [(2, 0.0414, 78.9), (4, 0.0794, 171.0), (8, 0.2034, 443.5), (16, 0.6583, 1362.8)]
)
def test_square_lanes_cost_what_was_synthesised(table: EnergyTable, bits: int, pj: float, um2: float) -> None:
    energy, area = table.mac_energy_pj(bits, bits, DENSE), table.lane_area_um2(bits, bits)
    assert (energy.value, energy.unit, energy.assumed) == (pj, "pJ", False)
    assert (area.value, area.unit, area.assumed) == (um2, "um2", False)
    assert "ISCA 2018" in energy.source


@pytest.mark.parametrize(
    ("act_bits", "stimulus", "pj"),
    [
        (2, DENSE, 0.08543),  # 0.2034 x 0.42
        (2, MSB, 0.07322),  # 0.2034 x 0.36
        (2, LSB, 0.08746),  # 0.2034 x 0.43
        (2, IDLE, 0.03661),  # 0.2034 x 0.18
        (3, DENSE, 0.10984),  # 0.2034 x 0.54
        (3, LSB, 0.10780),  # 0.2034 x 0.53
        (4, MSB, 0.11797),  # 0.2034 x 0.58
        (5, DENSE, 0.15052),  # 0.2034 x 0.74
        (5, LSB, 0.14035),  # 0.2034 x 0.69
    ],
)
def test_narrow_lanes_cost_their_share_of_8_x_8(
    table: EnergyTable, act_bits: int, stimulus: Stimulus, pj: float
) -> None:
    price = table.mac_energy_pj(act_bits, 8, stimulus)
    assert price.value == close(pj)
    assert price.assumed  # the factor is measured for the project, not published


@pytest.mark.parametrize(("act_bits", "um2"), [(2, 243.9), (3, 279.4), (4, 319.3), (5, 359.2)])
def test_narrow_lanes_take_their_share_of_8_x_8(table: EnergyTable, act_bits: int, um2: float) -> None:
    assert table.lane_area_um2(act_bits, 8).value == close(um2)


def test_a_lane_without_a_row_takes_the_fit_and_is_assumed(table: EnergyTable) -> None:
    energy, area = table.mac_energy_pj(6, 8, DENSE), table.lane_area_um2(6, 8)
    assert energy.value == close(0.00209 * 48 + 0.00623 * 7 + 0.0206)  # 0.1645
    assert area.value == close(3.81 * 48 + 22.9 * 7 + 17.9)  # 361.1
    assert energy.assumed
    assert area.assumed
    assert "fitted for 6 x 8 bits" in energy.note


def test_a_stimulus_without_a_row_keeps_the_share_of_the_nearest_lane(table: EnergyTable) -> None:
    dense = 0.00209 * 48 + 0.00623 * 7 + 0.0206
    assert table.mac_energy_pj(6, 8, MSB).value == close(dense * 0.65 / 0.74)
    assert table.mac_energy_pj(6, 8, LSB).value == close(dense * 0.69 / 0.74)


def test_an_idle_lane_without_a_row_costs_its_flip_flops(table: EnergyTable) -> None:
    idle_8x8 = 0.2034 * 0.21
    assert table.mac_energy_pj(16, 16, IDLE).value == close(idle_8x8 * (16 + 16 + 24) / (8 + 8 + 24))
    assert table.mac_energy_pj(16, 16, GATED).value == close(0.1 * idle_8x8 * 56 / 40)


def test_more_bits_never_cost_less_and_gating_always_saves(table: EnergyTable) -> None:
    for stimulus in Stimulus:
        energies = [table.mac_energy_pj(bits, 8, stimulus).value for bits in range(1, 17)]
        assert energies == sorted(energies)
    areas = [table.lane_area_um2(bits, 8).value for bits in range(1, 17)]
    assert areas == sorted(areas)
    for bits in range(1, 17):
        gated, idle, msb, dense = (table.mac_energy_pj(bits, 8, kind).value for kind in (GATED, IDLE, MSB, DENSE))
        assert gated < idle < msb < dense


@pytest.mark.parametrize(("act_bits", "weight_bits"), [(0, 8), (8, 0), (-1, 8)])
def test_a_lane_without_bits_is_a_wrong_call(table: EnergyTable, act_bits: int, weight_bits: int) -> None:
    with pytest.raises(ValueError, match=rf"^operand widths must be above 0 bits, not {act_bits} x {weight_bits}$"):
        table.mac_energy_pj(act_bits, weight_bits, DENSE)
    with pytest.raises(ValueError, match=r"^operand widths must be above 0 bits"):
        table.lane_area_um2(act_bits, weight_bits)


# Everything else: Horowitz at 0.9 V, brought to 1.0 V by E(V) = 1.018 V^2 - 0.3107 V + 0.1539

UP = 0.8612 / 0.69885  # E(1.0 V) / E(0.9 V) = 1.2323


@pytest.mark.parametrize(
    ("action", "bits", "pj", "assumed"),
    [
        (Action.ADD, 8, 0.03 * UP, False),
        (Action.ADD, 16, 0.05 * UP, False),
        (Action.ADD, 32, 0.1 * UP, False),
        (Action.ADD, 24, 0.075 * UP, False),  # 16 and 32 bits lie on one line through 0
        (Action.ADD, 64, 0.2 * UP, True),  # beyond the rows: by the bit
        (Action.ADD, 4, 0.015 * UP, True),
        (Action.MULTIPLY, 8, 0.2 * UP, False),
        (Action.MULTIPLY, 16, (0.2 * 3.1) ** 0.5 * UP, False),  # half way in log size: the geometric mean
        (Action.MULTIPLY, 64, 3.1 * 4 * UP, True),  # by the bit squared
        (Action.COMPARE, 32, 0.02947, True),  # Aladdin, 40 nm
        (Action.COMPARE, 24, 0.02947 * 24 / 32, True),
        (Action.REGISTER_WRITE, 24, 0.009 * 24, True),
        (Action.FIFO_PUSH, 40, 0.009 * 40, True),
        (Action.FIFO_POP, 40, 0.009 * 40, True),
    ],
)
def test_actions_cost_what_the_literature_says(
    table: EnergyTable, action: Action, bits: int, pj: float, assumed: bool
) -> None:
    price = table.action_pj(action, bits)
    assert price.value == close(pj)
    assert (price.unit, price.assumed) == ("pJ", assumed)
    assert table.action_pj(action.value, bits) == price


@pytest.mark.parametrize(
    ("component", "bits", "um2"),
    [
        (Component.ADDER, 8, 36),
        (Component.ADDER, 32, 137),
        (Component.MULTIPLIER, 8, 282),
        (Component.MULTIPLIER, 32, 3495),
        (Component.COMPARATOR, 32, 71),
        (Component.REGISTER, 24, 5.98 * 24),
        (Component.FIFO, 1, 5.98 * 1.3),
    ],
)
def test_components_take_what_the_literature_says(
    table: EnergyTable, component: Component, bits: int, um2: float
) -> None:
    assert table.area_um2(component, bits).value == close(um2)


def test_accumulators_and_queues_are_made_of_components(table: EnergyTable) -> None:
    assert table.accumulator_area_um2(32).value == close(137 + 32 * 5.98)
    assert table.queue_area_um2(entry_bits=40, depth=32).value == close(5.98 * 1.3 * 40 * 32)


def test_a_multiplexer_is_what_a_fifo_has_beside_its_registers(table: EnergyTable) -> None:
    area, energy = table.mux_area_um2(), table.mux_pj()
    assert (area.value, area.unit, area.assumed) == (close(5.98 * 0.3), "um2", True)
    assert (energy.value, energy.unit, energy.assumed) == (close(0.009), "pJ", True)
    assert "multiplexer of two inputs" in area.note
    assert "multiplexer of two inputs" in energy.note
    assert "ISCA 2014" in area.source


def test_a_multiplexer_with_rows_takes_them_and_without_is_reached_by_name_too(table: EnergyTable) -> None:
    assert table.action_pj("select", 3).value == close(3 * 0.009)
    assert table.area_um2("multiplexer", 3).value == close(3 * 5.98 * 0.3)
    row = Curve(((24, Price(0.48, "pJ", "measured")),), 1.0)
    measured = replace(table, actions={**table.actions, Action.SELECT: row})
    assert (measured.mux_pj().value, measured.mux_pj().source) == (close(0.02), "measured")
    row = Curve(((24, Price(48, "um2", "measured")),), 1.0)
    measured = replace(table, areas={**table.areas, Component.MULTIPLEXER: row})
    assert (measured.mux_area_um2().value, measured.mux_area_um2().source) == (close(2.0), "measured")


def test_a_multiplexer_of_a_table_whose_fifos_are_bare_takes_a_register(table: EnergyTable) -> None:
    bare = replace(table, areas={**table.areas, Component.FIFO: table.areas[Component.REGISTER]})
    assert bare.mux_area_um2().value == close(5.98)
    assert "a register's bit" in bare.mux_area_um2().note


# SRAM: CACTI, 32-bit words


@pytest.mark.parametrize(
    ("size_bytes", "read_pj", "write_pj", "leakage_mw", "mm2"),
    [
        (128, 0.684, 0.925, 0.25, 0.0015),
        (1024, 1.133, 3.296, 1.79, 0.0088),
        (2048, 1.903, 3.639, 3.23, 0.0151),
        (4096, 3.430, 4.310, 7.30, 0.0301),
        (8192, 6.392, 5.563, 13.7, 0.0575),
        (16384, 9.982, 8.421, 27.1, 0.1086),
    ],
)
def test_sram_banks_cost_what_cacti_says(
    table: EnergyTable, size_bytes: int, read_pj: float, write_pj: float, leakage_mw: float, mm2: float
) -> None:
    bits = size_bytes * 8
    assert table.sram_read_pj_per_bit(bits).value == close(read_pj / 32)
    assert table.sram_write_pj_per_bit(bits).value == close(write_pj / 32)
    assert table.sram_leakage_mw(bits).value == close(leakage_mw, 3e-3)
    assert table.sram_area_um2(bits).value == close(mm2 * 1e6, 4e-3)
    assert not table.sram_read_pj_per_bit(bits).assumed


def test_sram_between_rows_lies_on_the_line_in_logarithms(table: EnergyTable) -> None:
    between = round(2**0.5 * 8 * KIB)  # half way between 8 and 16 KiB in log size
    price = table.sram_read_pj_per_bit(between)
    assert price.value == close((6.392 * 9.982) ** 0.5 / 32)
    assert not price.assumed
    assert table.sram_area_um2(3 * KIB).value == close(0.0151e6 * (0.0301 / 0.0151) ** 0.58496, 4e-3)  # log2(3 / 2)


def test_sram_beyond_the_rows_is_made_of_the_largest_bank(table: EnergyTable) -> None:
    assert table.sram_read_pj_per_bit(64 * KIB).value == close(9.982 / 32)
    assert table.sram_leakage_mw(64 * KIB).value == close(4 * 27.127)
    assert table.sram_area_um2(40 * KIB).value == close((2 * 0.108577 + 0.0575061) * 1e6)
    for price in (table.sram_read_pj_per_bit(64 * KIB), table.sram_area_um2(40 * KIB), table.sram_leakage_mw(64 * KIB)):
        assert price.assumed
    assert table.sram_read_pj_per_bit(64).value == close(0.684 / 32)
    assert table.sram_read_pj_per_bit(64).assumed


# DRAM and leakage


@pytest.mark.parametrize("name", ["45nm", "16nm", "7nm", "45nm_low_leakage"])
def test_dram_never_scales_with_the_logic_node(name: str) -> None:
    table = load_energy_table(name)
    kinds = {kind: price.value for kind, price in table.dram.items()}
    assert kinds == {"lpddr4": 8, "hbm2": 3.9, "gddr5": 14, "hmc": 4.2, "lpddr": 40, "ddr3": 70, "ddr4": 15}


def test_logic_leaks_as_the_8_x_8_lane_does(table: EnergyTable) -> None:
    assert table.logic_leakage_mw(443.5).value == close(0.0156)  # 15.6 uW
    assert table.logic_leakage_mw(443.5).unit == "mW"


def test_the_low_leakage_table_differs_in_leakage_alone(table: EnergyTable) -> None:
    low = load_energy_table("45nm_low_leakage")
    assert low.sram_leakage_mw(16 * KIB).value == close(27.127 / 30)
    assert low.sram_leakage_mw(16 * KIB).assumed
    assert low.logic_leakage_mw(443.5).value == close(0.0156 / 30)
    assert (low.lane_energy, low.lane_area, low.actions) == (table.lane_energy, table.lane_area, table.actions)
    assert (low.sram_read, low.sram_area, low.dram) == (table.sram_read, table.sram_area, table.dram)


def test_unknown_names_are_refused_with_the_known_ones(table: EnergyTable) -> None:
    def message(call: Callable[[], object]) -> str:
        with pytest.raises(InputError) as caught:
            call()
        return str(caught.value)

    assert message(lambda: table.action_pj("divide", 8)) == (
        "the action must be one of add, multiply, compare, register_write, fifo_push, fifo_pop, select, not 'divide'"
    )
    assert message(lambda: table.area_um2("divider", 8)) == (
        "the component must be one of adder, multiplier, comparator, register, fifo, multiplexer, not 'divider'"
    )
    assert message(lambda: table.dram_pj_per_bit("ddr9")) == (
        "memory.off_chip.kind must be a DRAM kind of energy table 45nm "
        "(ddr3, ddr4, gddr5, hbm2, hmc, lpddr, lpddr4), not 'ddr9'"
    )


# Curves and sums of prices


def test_a_curve_through_a_price_of_nothing_is_a_straight_line() -> None:
    curve = Curve(((8, Price(0, "pJ", "a")), (16, Price(2, "pJ", "b"))), growth=1)
    assert curve.at(12).value == 1
    assert curve.at(12).source == "a; b"


def test_a_curve_has_no_price_for_nothing() -> None:
    with pytest.raises(ValueError, match=r"^size must be above 0 bits, not 0$"):
        Curve(((8, Price(1, "pJ", "a")),), growth=1).at(0)


def test_a_sum_of_prices_keeps_sources_and_doubts_and_refuses_two_units() -> None:
    total = Price(1, "pJ", "a", note="x").plus(Price(2, "pJ", "b", assumed=True, note="y"))
    assert total == Price(3, "pJ", "a; b", assumed=True, note="x; y")
    assert total.plus(total).source == "a; b"
    with pytest.raises(ValueError, match=r"^prices must be in one unit, not pJ and um2$"):
        total.plus(Price(1, "um2", "a"))
