"""Write the calibrated energy tables, hwconfigs/energy/*_calibrated*.yaml, from analysis/calibration/*.json.

    python analysis/calibrated_tables.py [FOLDER]

Lanes and the logic around them are measured (analysis/calibrate_lanes.py); SRAM and DRAM, which standard cells cannot
give, are those of analysis/energy_tables.py. Needs neither Yosys nor a cell library. docs/calibration.md says how.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import energy_tables as literature
import numpy as np
from energy_tables import Figure, Target, number

from pgsim.hw.scaling import area_factor, energy_factor

ROOT = Path(__file__).resolve().parent.parent
LOW_LEAKAGE = 1 / 30
STIMULI = {
    "area": "none",
    "leakage": "none",
    "uniform": "independent uniform codes and weights in every cycle",
    "real": "gated layers of {traces}: activations and weights as a lane takes them",
    "idle": "operands held, clock on",
    "gated": "operands held, clock gated by one cell a lane",
    "words": "uniform words",
}
PLANES = {("msb", 1): 3, ("msb", 2): 3, ("msb", 3): 4, ("lsb", 1): 3, ("lsb", 2): 4, ("lsb", 3): 4}
"""Bits of the codes that a plane of so many bits is cut from: the traces' own gates at msb 2 and 3 and lsb 1."""
OWN = {("msb", 2), ("msb", 3), ("lsb", 1)}


@dataclass(frozen=True)
class Table:
    """A table to write: of which measurement, at which node and voltage, dense lanes on uniform or on real codes."""

    name: str
    measurement: str
    node: int
    voltage: float
    real_codes: bool = False
    caution: str = ""


ASAP7 = (
    "The cells' energies are some 24 times what the scaling equations make of 45 nm lanes at 7 nm, and SRAM is carried "
    "by those equations: beside these lanes memory comes out too cheap. Compare lanes, not whole machines."
)
TABLES = (
    Table("sky130_calibrated", "sky130", 130, 1.8),
    Table("asap7_calibrated", "asap7", 7, 0.7, caution=ASAP7),
    Table("45nm_calibrated", "sky130", 45, 1.0),
    Table("45nm_calibrated_codes", "sky130", 45, 1.0, real_codes=True),
)


def lanes(measured: dict[str, Any], real_codes: bool) -> list[Figure]:
    """Return the energies of whole MAC lanes."""
    figures = []
    shares = code_shares(measured)
    for lane in measured["lanes"]:
        width = {"act_bits": lane["act_bits"], "weight_bits": lane["weight_bits"]}
        energies = {name: of["total_fj"] / 1000 for name, of in lane["energies"].items()}
        how = "" if lane["psum_bits"] == 24 else f"with an accumulator of {lane['psum_bits']} bits"
        dense = Figure({**width, "stimulus": "dense"}, energies["dense"], "pJ", "calibrated_uniform", how)
        figures.append(real_dense(dense, lane, energies, shares) if real_codes else dense)
        for stimulus in ("idle", "gated"):
            source = f"calibrated_{stimulus}"
            figures.append(Figure({**width, "stimulus": stimulus}, energies[stimulus], "pJ", source, how))
        for stimulus in ("msb", "lsb"):
            of = PLANES.get((stimulus, lane["act_bits"])) if lane["weight_bits"] == 8 else None
            if of is None:
                continue
            mine = (stimulus, lane["act_bits"]) in OWN
            cut = f"the gate's own plane of {of}-bit codes" if mine else f"{stimulus} plane cut from {of}-bit codes"
            value = energies[f"{stimulus}_of_{of}"]
            figures.append(Figure({**width, "stimulus": stimulus}, value, "pJ", "calibrated_real", cut))
    return figures


def code_shares(measured: dict[str, Any]) -> dict[int, tuple[int, float]]:
    """Return, by lane width, the width of real codes measured on it and their energy as a share of uniform codes'."""
    shares = {}
    for lane in measured["lanes"]:
        energies = lane["energies"]
        codes = sorted(int(name.removeprefix("codes_of_")) for name in energies if name.startswith("codes_of_"))
        if codes:
            share = energies[f"codes_of_{codes[-1]}"]["total_fj"] / energies["dense"]["total_fj"]
            shares[lane["act_bits"]] = (codes[-1], share)
    return shares


def real_dense(
    uniform: Figure, lane: dict[str, Any], energies: dict[str, float], shares: dict[int, tuple[int, float]]
) -> Figure:
    """Return a dense lane's energy on real whole codes; where none were measured, by the nearest lane's share."""
    act_bits = lane["act_bits"]
    if act_bits in shares and lane["weight_bits"] == 8:
        bits = shares[act_bits][0]
        how = f"whole {bits}-bit codes"
        return replace(uniform, value=energies[f"codes_of_{bits}"], source="calibrated_real", derivation=how)
    near = min(shares, key=lambda width: (abs(width - act_bits), width))
    bits, share = shares[near]
    how = f"uniform codes {number(uniform.value)} pJ x {number(share)}"
    why = f"real {bits}-bit codes take the share of uniform codes' energy that they take in a lane of {near} x 8 bits"
    return replace(uniform, value=uniform.value * share, derivation=how, reason=why)


def lane_areas(measured: dict[str, Any]) -> list[Figure]:
    """Return the areas of whole MAC lanes, with an enable of their own rather than a gated clock."""
    return [
        Figure({key: lane[key] for key in ("act_bits", "weight_bits")}, lane["area_um2"], "um2", "calibrated_area")
        for lane in measured["lanes"]
    ]


def fit(measured: dict[str, Any], value: Callable[[dict[str, Any]], float], unit: str, source: str) -> list[Figure]:
    """Return product, mean and constant through all lanes: least squares of relative errors, no term below 0."""
    rows = measured["lanes"]
    values = np.array([value(lane) for lane in rows])
    widths = np.array([(lane["act_bits"], lane["weight_bits"]) for lane in rows], float)
    terms = np.column_stack([widths.prod(1), widths.mean(1), np.ones(len(rows))])
    used = [0, 1, 2]
    while True:
        found, *_ = np.linalg.lstsq(terms[:, used] / values[:, None], np.ones(len(rows)), rcond=None)
        if (found >= 0).all():
            break
        used.remove(used[int(found.argmin())])
    worst = np.abs(terms[:, used] @ found / values - 1).max()
    how = f"least squares of relative errors over {len(rows)} lanes, the worst off by {worst:.0%}"
    why = "lanes without a row lie on the surface through those that have one"
    by_term = dict(zip(used, found, strict=True))
    return [
        Figure({"term": term}, float(by_term.get(place, 0.0)), unit, source, how, why)
        for place, term in enumerate(("product", "mean", "constant"))
    ]


def actions(measured: dict[str, Any]) -> list[Figure]:
    """Return the energies of what is not a lane; what registers and FIFOs cost without work is taken off."""
    names = {"adder": "add", "multiplier": "multiply", "comparator": "compare", "multiplexer": "select"}
    figures: dict[str, list[Figure]] = {
        name: [] for name in (*names.values(), "register_write", "fifo_push", "fifo_pop")
    }
    for unit in measured["units"]:
        energies = {name: of["total_fj"] / 1000 for name, of in unit["energies"].items()}
        if unit["unit"] in names:
            action = names[unit["unit"]]
            row = Figure({"action": action, "bits": unit["bits"]}, energies["use"], "pJ", "calibrated_words")
            figures[action].append(row)
        prefix = {"register": "register_", "fifo": "fifo_"}.get(unit["unit"], "")
        depth = f", of a FIFO of {unit['depth']} entries" if "depth" in unit else ""
        for action in ("write", "push", "pop") if prefix else ():
            if action not in energies:
                continue
            how = f"{number(energies[action])} pJ in the cycle less {number(energies['idle'])} pJ in an idle one{depth}"
            names_of = {"action": prefix + action, "bits": unit["bits"]}
            row = Figure(names_of, energies[action] - energies["idle"], "pJ", "calibrated_words", how)
            figures[prefix + action].append(row)
    return [figure for of in figures.values() for figure in of]


def areas(measured: dict[str, Any]) -> list[Figure]:
    """Return the areas of what is not a lane; a FIFO's by the bits that it stores."""
    figures = []
    for unit in measured["units"]:
        bits = unit["bits"] * unit.get("depth", 1)
        how = f"{unit['bits']} bits x {unit['depth']} entries, clock gated" if "depth" in unit else ""
        names = {"component": unit["unit"], "bits": bits}
        figures.append(Figure(names, unit["area_um2"], "um2", "calibrated_area", how))
    return figures


def carried(figure: Figure, measured: dict[str, Any], table: Table) -> Figure:
    """Return a figure at the table's node and voltage."""
    here = (measured["node_nm"], measured["voltage_v"])
    if here == (table.node, table.voltage):
        return figure
    if figure.unit == "um2":
        factor, how = area_factor(here[0], table.node), f"area of {table.node} nm / {here[0]} nm, stillmaker"
    else:
        factor = energy_factor(*here, table.node, table.voltage)
        how = f"E({table.node} nm, {table.voltage:g} V) / E({here[0]} nm, {here[1]:g} V), stillmaker"
    derived = f"{number(figure.value)} {figure.unit} at {here[0]} nm and {here[1]:g} V x {number(factor)}, {how}"
    derivation = f"{figure.derivation}; {derived}" if figure.derivation else derived
    why = "all logic scales alike"
    if figure.unit != "um2":
        why += f", and the equation of {here[0]} nm holds at {here[1]:g} V, above its nominal 1.3 V"
    reason = f"{figure.reason}; {why}" if figure.reason else why
    return replace(figure, value=figure.value * factor, derivation=derivation, reason=reason)


def leakage(measured: dict[str, Any], table: Table) -> Figure:
    """Return the leakage of logic: the library's, or, away from its node, the literature's divided by 30."""
    if (measured["node_nm"], measured["voltage_v"]) == (table.node, table.voltage):
        lane = next(row for row in measured["lanes"] if (row["act_bits"], row["weight_bits"]) == (8, 8))
        how = f"{number(lane['leakage_nw'])} nW / {number(lane['area_um2'])} um2 of the 8 x 8-bit lane, states' mean"
        why = "the 8 x 8-bit lane's leakage an area stands for all logic"
        return Figure({}, lane["leakage_nw"] / lane["area_um2"], "nW/um2", "calibrated_leakage", how, why)
    value = literature.LANE_LEAK_8_UW * 1000 / literature.LANE_UM2[8] * LOW_LEAKAGE
    how = f"{literature.LANE_LEAK_8_UW} uW / {literature.LANE_UM2[8]} um2 of the 8 x 8-bit PE x {number(LOW_LEAKAGE)}"
    why = "that of 45nm_low_leakage: leakage does not carry over from another node's cells"
    return Figure({}, value, "nW/um2", "bitfusion", how, why)


def line(figure: Figure, table: Table) -> str:
    """Return one figure as a line of the file."""
    parts = [f"{key}: {value}" for key, value in figure.names.items()]
    parts += [f"value: {number(figure.value)} {figure.unit}", f"node: {table.node} nm"]
    parts += [f"voltage: {table.voltage} V", f"source: {figure.source}"]
    if figure.derivation:
        parts.append(f"derivation: {json.dumps(figure.derivation)}")
    if figure.reason:
        parts.append(f"assumed: true, reason: {json.dumps(figure.reason)}")
    return f"{{{', '.join(parts)}}}"


def sources(measured: dict[str, Any]) -> dict[str, str]:
    """Return the citations: one a stimulus, and those of SRAM, DRAM and scaling."""
    flow = f"calibrated: {measured['yosys']}, library {measured['library']}, {measured['temperature_c']:g} C"
    note = f"gate level with glitches, no wires, no clock tree; {measured['cycles']} cycles, docs/calibration.md"
    texts = {
        f"calibrated_{name}": f"{flow}, stimulus {words.format(traces=measured['traces'])}; {note}"
        for name, words in STIMULI.items()
    }
    kept = ("bitfusion", "cacti", "accelergy", "bitfusion_dram", "stillmaker")
    return texts | {name: literature.SOURCES[name] for name in kept}


def text(table: Table, measured: dict[str, Any]) -> str:
    """Return the whole file."""
    target = Target(table.name, table.node, table.voltage, LOW_LEAKAGE)
    at = {"lanes": lanes(measured, table.real_codes), "lane_areas": lane_areas(measured)}

    dense_rows = {tuple(row.names.values())[:2]: row.value for row in at["lanes"] if row.names["stimulus"] == "dense"}

    def dense(lane: dict[str, Any]) -> float:
        return dense_rows[lane["act_bits"], lane["weight_bits"]]

    at["lane_energy_fit"] = fit(measured, dense, "pJ", "calibrated_real" if table.real_codes else "calibrated_uniform")
    at["lane_area_fit"] = fit(measured, lambda lane: lane["area_um2"], "um2", "calibrated_area")
    lines = [
        "# Written by analysis/calibrated_tables.py: change what it reads or how, not this.",
        "# Figures derived from a cell library; docs/calibration.md gives its notice.",
        "pgsim_energy: 1",
        f"name: {table.name}",
        f"description: {json.dumps(description(table, measured))}",
        f"node: {table.node} nm",
        f"voltage: {table.voltage} V",
        "sources:",
    ]
    lines += [f"  - {{name: {name}, text: {json.dumps(words)}}}" for name, words in sources(measured).items()]
    for name, figures in at.items():
        lines += [f"{name}:", *(f"  - {line(carried(figure, measured, table), table)}" for figure in figures)]
    lines += ["logic_leakage:", f"  {line(leakage(measured, table), table)}"]
    for name, figures in (("actions", actions(measured)), ("areas", areas(measured))):
        lines += [f"{name}:", *(f"  - {line(carried(figure, measured, table), table)}" for figure in figures)]
    lines += ["sram:", "  word: 32 bit", f"  leakage_factor: {LOW_LEAKAGE:.5g}", "  rows:"]
    lines += [f"    - {literature.sram_row(entry, target)}" for entry in literature.CACTI]
    lines += ["dram:"]
    lines += [
        f"  - {{kind: {kind}, value: {value} pJ/bit, source: {source}}}" for kind, value, source in literature.DRAM
    ]
    return "\n".join(lines) + "\n"


def description(table: Table, measured: dict[str, Any]) -> str:
    """Return a few words for people."""
    name, where = measured["library"].split()[0], f"{measured['node_nm']} nm, {measured['voltage_v']:g} V"
    words = f"Lanes and the logic around them synthesised to {name} ({where}) and measured at gate level"
    if table.node != measured["node_nm"]:
        words += f", carried to {table.node} nm and {table.voltage} V by Stillmaker and Baas's equations (assumed)"
    words += f"; dense lanes on {'real whole codes' if table.real_codes else 'uniform codes'}."
    words += " SRAM and DRAM are the literature's, SRAM leakage divided by 30 (assumed)."
    return f"{words} {table.caution}".rstrip()


def main(folder: Path) -> None:
    """Write every table into `folder`."""
    for table in TABLES:
        path = ROOT / "analysis" / "calibration" / f"{table.measurement}.json"
        measured = json.loads(path.read_text(encoding="utf-8"))
        (folder / f"{table.name}.yaml").write_text(text(table, measured), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "hwconfigs" / "energy")
