"""docs/calibration.md shows what was measured, and its machines' figures are those that the tables give."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pgsim
from pgsim.hw.prices import Action, Stimulus
from pgsim.io.energy import load_energy_table
from pgsim.io.hardware import load_accelerator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
LIBRARIES = {"SkyWater": "sky130", "ASAP7": "asap7"}
COLUMNS = ("area", "dense", "msb", "lsb", "codes", "idle", "gated")
CUT = {"msb": {1: 3, 2: 3, 3: 4}, "lsb": {1: 3, 2: 4, 3: 4}, "codes": {3: 3, 4: 4, 8: 4}}
"""Bits of the codes behind a figure, by column and lane width."""
MACHINES = ("predictivenet", "dense_uniform", "dense_int8")


def document(library: str) -> dict[str, Any]:
    path = ROOT / "analysis" / "calibration" / f"{LIBRARIES[library]}.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def lanes(library: str, key: str = "lanes") -> dict[int, dict[str, float]]:
    """Lanes with weights of 8 bits by width: area and fJ."""
    return {
        lane["act_bits"]: {"area": lane["area_um2"], **{of: e["total_fj"] for of, e in lane["energies"].items()}}
        for lane in document(library)[key]
        if lane["weight_bits"] == 8
    }


def table_rows(first: str) -> list[list[str]]:
    """Cells of the page's rows whose first cell is `first`."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in PAGE.splitlines() if "|" in line]
    return [row for row in rows if row[0] == first]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_lanes_on_the_page_are_those_measured(library: str) -> None:
    measured = lanes(library)
    rows = table_rows(library)
    assert [int(row[1]) for row in rows] == list(range(1, 9))
    for row in rows:
        bits = int(row[1])
        for name, shown in zip(COLUMNS, row[2:], strict=True):
            if not shown:
                assert name in CUT
                assert bits not in CUT[name]
                continue
            kind = f"{name}_of_{CUT[name][bits]}" if name in CUT else name
            base = "area" if name == "area" else "dense"
            digits = len(shown.split(".")[1])
            assert float(shown) == pytest.approx(measured[bits][kind] / measured[8][base], abs=0.51 * 10**-digits)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_pes_on_the_page_are_those_measured(library: str) -> None:
    whole = lanes(library)
    rows = table_rows(f"PE, {library}")
    assert len(rows) == len(document(library)["pes"]) == 5
    for row, pe in zip(rows, document(library)["pes"], strict=True):
        assert int(row[1]) == pe["act_bits"]
        each = (pe["area_um2"] / pe["lanes"], pe["energies"]["dense"]["total_fj"] / pe["lanes"])
        base = (whole[pe["act_bits"]]["area"], whole[pe["act_bits"]]["dense"])
        shown = [float(cell) for cell in row[2:]]
        assert shown == [pytest.approx(mine / lane, abs=0.0051) for mine, lane in zip(each, base, strict=True)]


@pytest.mark.parametrize(("library", "share", "even"), [("SkyWater", 0.23, "23 %"), ("ASAP7", 0.39, "39 %")])
def test_a_gate_pays_below_the_share_of_updated_outputs_that_the_page_gives(
    library: str, share: float, even: str
) -> None:
    measured = lanes(library)
    saved = measured[3]["codes_of_3"] - measured[2]["msb_of_3"]
    assert saved / measured[1]["lsb_of_3"] == pytest.approx(share, abs=0.005)
    assert even in PAGE


def test_the_terms_and_the_versions_are_on_the_page() -> None:
    for library in LIBRARIES:
        assert document(library)["yosys"] in PAGE
    words = " ".join(PAGE.replace("\n> ", " ").split())
    assert "Copyright 2020 Lawrence T. Clark, Vinay Vashishtha, or Arizona State University" in words
    assert "Copyright 2020 The SkyWater PDK Authors, under the Apache License, Version 2.0" in words
    assert "THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS" in words


def test_a_multiplexer_is_as_much_cheaper_than_its_price_as_the_page_says() -> None:
    unit = next(unit for unit in document("SkyWater")["units"] if unit["unit"] == "multiplexer")
    one = unit["energies"]["use"]["total_fj"] / unit["bits"]
    table = load_energy_table("sky130_calibrated")
    assert table.mux_pj().value * 1000 == pytest.approx(one, rel=1e-4)
    price = table.action_pj(Action.FIFO_POP, 1).value * 1000
    assert (round(one, 1), round(price), round(price / one)) == (12.7, 345, 27)
    assert "345 fJ where a multiplexer costs 12.7 fJ: 27 times" in PAGE


def test_absolute_figures_are_as_far_apart_as_the_page_says() -> None:
    def lane(table: str) -> float:
        return load_energy_table(table).mac_energy_pj(8, 8, Stimulus.DENSE).value

    assert lane("asap7_calibrated") / lane("7nm") == pytest.approx(24, abs=0.5)
    assert lane("45nm_calibrated") / lane("45nm") == pytest.approx(2.5, abs=0.05)
    assert load_energy_table("45nm_calibrated").action_pj(Action.ADD, 24).value > 0


@pytest.mark.parametrize(
    "name", ["45nm_low_leakage", "45nm_calibrated", "45nm_calibrated_codes", "sky130_calibrated", "asap7_calibrated"]
)
def test_the_machines_on_the_page_cost_what_they_cost_with_that_table(name: str) -> None:
    trace = pgsim.load_trace(ROOT / "traces" / "resnet20_3-2_release.npz")
    table = load_energy_table(name)
    (row,) = (row for row in table_rows(f"`{name}`") if "uJ" in row[1])
    base = (0.0, 0.0)
    for machine, cell in zip(MACHINES, row[1:], strict=True):
        accelerator = load_accelerator(machine)
        carried = replace(accelerator, energy_table=name, node_nm=table.node_nm, voltage_v=table.voltage_v)
        result = pgsim.simulate(trace, carried, verify=False)
        energy, area = result.totals().energy.total_pj / result.images / 1e6, sum(result.area_um2.values()) / 1e6
        base = (energy, area) if machine == MACHINES[0] else base
        shown = [float(number) for number in re.findall(r"[\d.]+", cell.replace("mm2", ""))]
        assert shown[:2] == [pytest.approx(energy, abs=0.06), pytest.approx(area, abs=0.006)]
        assert shown[2:] in ([], [pytest.approx(energy / base[0], abs=0.006), pytest.approx(area / base[1], abs=0.006)])
