"""The calibrated energy tables are those that their generator writes; they load, and price every shipped machine."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from pgsim.hw.prices import Action, Component, EnergyTable, Stimulus
from pgsim.hw.scaling import area_factor, energy_factor
from pgsim.io.energy import load_energy_table, load_prices, table_rows
from pgsim.io.hardware import load_accelerator, shipped_accelerators
from pgsim.io.shipped import shipped_folder
from pgsim.model.cost import area
from pgsim.model.lanes import LaneWidths

ROOT = Path(__file__).parents[2]
NAMES = ["45nm_calibrated", "45nm_calibrated_codes", "asap7_calibrated", "sky130_calibrated"]
DENSE, MSB, LSB, IDLE, GATED = Stimulus


@pytest.fixture(scope="module", params=NAMES)
def table(request: pytest.FixtureRequest) -> EnergyTable:
    return load_energy_table(request.param)


def measurement(name: str) -> dict[str, dict[str, float]]:
    """Lanes of a measurement by width: fJ by stimulus, and the area."""
    document = json.loads((ROOT / "analysis" / "calibration" / f"{name}.json").read_text())
    return {
        f"{lane['act_bits']}x{lane['weight_bits']}": {
            **{stimulus: of["total_fj"] for stimulus, of in lane["energies"].items()},
            "area": lane["area_um2"],
        }
        for lane in document["lanes"]
    }


def test_the_shipped_tables_are_those_that_their_generator_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "analysis"))
    runpy.run_path(str(ROOT / "analysis" / "calibrated_tables.py"))["main"](tmp_path)
    assert sorted(path.stem for path in tmp_path.iterdir()) == NAMES
    for path in tmp_path.iterdir():
        shipped = shipped_folder() / "energy" / path.name
        assert path.read_text(encoding="utf-8") == shipped.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", shipped_accelerators())
def test_a_calibrated_table_prices_every_shipped_machine(table: EnergyTable, name: str) -> None:
    shipped = load_accelerator(name)
    accelerator = replace(shipped, energy_table=table.name, node_nm=table.node_nm, voltage_v=table.voltage_v)
    prices = load_prices(accelerator)
    parts = area(accelerator, LaneWidths(2, 1, True), prices)
    assert all(part.value > 0 for part in parts.values())
    for bits in (accelerator.array.act_bits or 2, 16):
        for stimulus in Stimulus:
            assert prices.mac_energy_pj(bits, 8, stimulus).value > 0


@pytest.mark.parametrize(("name", "library"), [("sky130_calibrated", "sky130"), ("asap7_calibrated", "asap7")])
def test_a_table_at_its_librarys_node_has_the_figures_as_measured(name: str, library: str) -> None:
    table, lanes = load_energy_table(name), measurement(library)
    for width, key in (((2, 8), "2x8"), ((8, 8), "8x8"), ((4, 2), "4x2")):
        for stimulus in (DENSE, IDLE, GATED):
            price = table.mac_energy_pj(*width, stimulus)
            assert price.value == pytest.approx(lanes[key][stimulus.value] / 1000, rel=1e-4)
            assert not price.assumed
            assert price.source.startswith("calibrated: Yosys 0.")
            assert "sha256" in price.source
        assert table.lane_area_um2(*width).value == pytest.approx(lanes[key]["area"], rel=1e-4)
    for bits, stimulus, kind in ((2, MSB, "msb_of_3"), (3, MSB, "msb_of_4"), (1, LSB, "lsb_of_3")):
        price = table.mac_energy_pj(bits, 8, stimulus)
        assert price.value == pytest.approx(lanes[f"{bits}x8"][kind] / 1000, rel=1e-4)
        assert "resnet20_3-2_release sha256" in price.source


def test_the_table_at_45_nm_is_carried_over_and_says_that_this_is_assumed() -> None:
    table, lanes = load_energy_table("45nm_calibrated"), measurement("sky130")
    energy, space = energy_factor(130, 1.8, 45, 1.0), area_factor(130, 45)
    assert (energy, space) == (pytest.approx(0.8612 / 14.06184), 1 / 6.4)
    price = table.mac_energy_pj(3, 8, DENSE)
    assert price.value == pytest.approx(lanes["3x8"]["dense"] / 1000 * energy, rel=1e-4)
    assert table.lane_area_um2(3, 8).value == pytest.approx(lanes["3x8"]["area"] * space, rel=1e-4)
    calibrated = [price for _, price in table_rows(table) if price.source.startswith("calibrated")]
    assert len(calibrated) > 100
    assert all(price.assumed for price in calibrated)
    assert table.logic_leakage.value == pytest.approx(load_energy_table("45nm_low_leakage").logic_leakage.value)


def test_dense_lanes_on_real_codes_differ_in_that_alone() -> None:
    uniform, codes = load_energy_table("45nm_calibrated"), load_energy_table("45nm_calibrated_codes")
    lanes = measurement("sky130")
    assert codes.lane_area == uniform.lane_area
    assert codes.actions == uniform.actions
    for (act_bits, weight_bits, stimulus), price in uniform.lane_energy.items():
        other = codes.mac_energy_pj(act_bits, weight_bits, stimulus).value
        assert (other < price.value) if stimulus is DENSE else (other == price.value)
    share = codes.mac_energy_pj(3, 8, DENSE).value / uniform.mac_energy_pj(3, 8, DENSE).value
    assert share == pytest.approx(lanes["3x8"]["codes_of_3"] / lanes["3x8"]["dense"], rel=1e-4)


def test_sram_and_dram_are_the_literatures(table: EnergyTable) -> None:
    base = load_energy_table("45nm_low_leakage")
    assert {kind: price.value for kind, price in table.dram.items()} == {k: p.value for k, p in base.dram.items()}
    factor = energy_factor(45, 1.0, table.node_nm, table.voltage_v)
    price = table.sram_read_pj_per_bit(8192)
    assert price.value == pytest.approx(base.sram_read_pj_per_bit(8192).value * factor, rel=1e-4)
    assert price.assumed == (table.node_nm != 45)
    assert table.sram_leakage_mw(8192).assumed


def test_gating_saves_and_a_plane_after_relu_costs_less_than_uniform_codes(table: EnergyTable) -> None:
    for bits in (1, 2, 3):
        gated, idle, msb, lsb = (table.mac_energy_pj(bits, 8, kind).value for kind in (GATED, IDLE, MSB, LSB))
        assert gated < idle < msb < lsb
        if not table.name.endswith("codes"):
            assert lsb < table.mac_energy_pj(bits, 8, DENSE).value


def test_prices_between_and_beyond_rows_are_positive(table: EnergyTable) -> None:
    assert table.mac_energy_pj(12, 12, DENSE).value > table.mac_energy_pj(8, 8, DENSE).value
    assert table.lane_area_um2(12, 12).value > table.lane_area_um2(8, 8).value
    for action in Action:
        assert table.action_pj(action, 1).value > 0
        assert table.action_pj(action, 41).value > table.action_pj(action, 20).value
    for component in Component:
        assert table.area_um2(component, 41).value > table.area_um2(component, 20).value
    assert table.mux_area_um2().value < table.area_um2(Component.REGISTER, 1).value
