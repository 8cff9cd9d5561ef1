"""Scaling between nodes, against Stillmaker and Baas's equations worked out by hand, and the tables made with it."""

import runpy
from pathlib import Path

import pytest

from pgsim.hw.prices import Action, Component, Stimulus
from pgsim.hw.scaling import area_factor, energy_factor, switching_energy
from pgsim.io.energy import load_energy_table
from pgsim.io.shipped import shipped_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("node_nm", "voltage_v", "energy"),
    [
        (45, 1.0, 0.8612),  # 1.018 - 0.3107 + 0.1539
        (45, 0.9, 0.69885),  # 0.82458 - 0.27963 + 0.1539
        (16, 0.85, 0.138471),  # 0.2137155 - 0.105485 + 0.03024
        (7, 0.7, 0.047815),  # 0.087024 - 0.063679 + 0.02447
        (180, 1.8, 26.372),  # 24.64 * 1.8 - 17.98
    ],
)
def test_switching_energy_is_the_polynomial(node_nm: int, voltage_v: float, energy: float) -> None:
    assert switching_energy(node_nm, voltage_v) == pytest.approx(energy, rel=1e-4)


def test_factors_are_destination_over_source() -> None:
    assert energy_factor(45, 1.0, 7, 0.7) == pytest.approx(0.047815 / 0.8612, rel=1e-4)
    assert energy_factor(45, 1.0, 45, 1.0) == 1
    assert area_factor(45, 16) == 0.19
    assert area_factor(16, 7) == pytest.approx(0.059 / 0.19)


def test_a_node_without_a_row_is_a_wrong_call() -> None:
    with pytest.raises(ValueError, match=r"^node must be one of 180, 130, .*, 7 nm, not 40$"):
        energy_factor(45, 1.0, 40, 1.0)
    with pytest.raises(ValueError, match=r"^node must be one of 180, 130, .*, 7 nm, not 40$"):
        area_factor(40, 45)
    with pytest.raises(ValueError, match=r"^voltage must be one that 180 nm logic runs at, not 0.5 V$"):
        switching_energy(180, 0.5)


@pytest.mark.parametrize(
    ("name", "energy", "area", "voltage"), [("16nm", 0.16079, 0.19, 0.85), ("7nm", 0.055521, 0.059, 0.7)]
)
def test_a_scaled_table_is_the_45_nm_one_times_its_factors(
    name: str, energy: float, area: float, voltage: float
) -> None:
    table, base = load_energy_table(name), load_energy_table("45nm")
    assert table.voltage_v == voltage
    ratios = [table.lane_energy[lane].value / price.value for lane, price in base.lane_energy.items()]
    ratios += [table.action_pj(action, 24).value / base.action_pj(action, 24).value for action in Action]
    ratios += [table.sram_read_pj_per_bit(5000).value / base.sram_read_pj_per_bit(5000).value]
    ratios += [table.sram_write_pj_per_bit(5000).value / base.sram_write_pj_per_bit(5000).value]
    ratios += [table.mac_energy_pj(7, 7, Stimulus.DENSE).value / base.mac_energy_pj(7, 7, Stimulus.DENSE).value]
    assert ratios == pytest.approx([energy] * len(ratios), rel=1e-4)
    rows_of_area = [part for part in Component if part is not Component.MULTIPLEXER]  # the difference of two rows
    areas = [table.lane_area[lane].value / price.value for lane, price in base.lane_area.items()]
    areas += [table.area_um2(part, 24).value / base.area_um2(part, 24).value for part in rows_of_area]
    areas += [table.sram_area_um2(5000).value / base.sram_area_um2(5000).value]
    assert areas == pytest.approx([area] * len(areas), rel=1e-4)
    leaks = table.sram_leakage_mw(5000).value / base.sram_leakage_mw(5000).value
    assert leaks == pytest.approx(area * voltage, rel=1e-4)
    assert table.sram_leakage_mw(5000).assumed
    assert table.logic_leakage.value / base.logic_leakage.value == pytest.approx(voltage, rel=1e-4)


def test_the_shipped_tables_are_those_that_their_generator_writes(tmp_path: Path) -> None:
    module = runpy.run_path(str(ROOT / "analysis" / "energy_tables.py"))
    module["main"](tmp_path)
    shipped = shipped_folder() / "energy"
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["16nm.yaml", "45nm.yaml", "45nm_low_leakage.yaml", "7nm.yaml"]
    assert sorted(path.name for path in shipped.iterdir() if "_calibrated" not in path.name) == written
    for name in written:
        assert (tmp_path / name).read_text(encoding="utf-8") == (shipped / name).read_text(encoding="utf-8")
