"""Write hwconfigs/energy/*.yaml: literature figures at 45 nm, and the same carried to other nodes.

    python analysis/energy_tables.py [FOLDER]

Every number below was read in the source named beside it; every derived one is computed here and its derivation
goes into the file. A test runs this and compares with the shipped files.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from pgsim.hw.scaling import NODES, area_factor, energy_factor

BASE_NM, BASE_V = 45, 1.0

SOURCES = {
    "bitfusion": "Sharma et al., Bit Fusion, ISCA 2018 (arXiv 1712.01507): synthesis of b x b-bit PEs with registers, "
    "45 nm, 500 MHz. States no voltage: 1.0 V, the nominal of the node, is taken",
    "cacti": "CACTI, 45 nm ITRS-HP, 360 K, 4-byte word, one read and one write port, as in "
    "bitfusion/sram/cacti_sweep.csv of the Bit Fusion release (github.com/hsharma35/bitfusion). "
    "States no voltage: 1.0 V is taken",
    "horowitz": "Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014: 45 nm, 0.9 V",
    "aladdin": "Shao et al., Aladdin, ISCA 2014: component tables at 40 nm and 1 ns, as in Accelergy's Aladdin plug-in",
    "accelergy": "Accelergy's DRAM plug-in (Wu, Emer and Sze, ICCAD 2019): pJ a bit by kind",
    "bitfusion_dram": "Bit Fusion's release (ISCA 2018): DDR4 energy of a bit",
    "stillmaker": "Stillmaker and Baas, Integration 58 (2017): scaling equations, HP rows",
}

LANE_PJ = {2: 0.0414, 4: 0.0794, 8: 0.2034, 16: 0.6583}  # bitfusion, b x b
LANE_UM2 = {2: 78.9, 4: 171.0, 8: 443.5, 16: 1362.8}
LANE_LEAK_8_UW = 15.6
FIT_PJ = {"product": 0.00209, "mean": 0.00623, "constant": 0.0206}  # within 1 % of the four PEs
FIT_UM2 = {"product": 3.81, "mean": 22.9, "constant": 17.9}

# Whole MAC lanes with weights of 8 bits relative to 8 x 8, measured at gate level for this project (NanGate45 open
# library, typical, 1.1 V, 25 C, event-driven toggles with glitches, no layout): area, then energy by stimulus.
RELATIVE = {
    2: {"area": 0.55, "dense": 0.42, "msb": 0.36, "lsb": 0.43, "idle": 0.18},
    3: {"area": 0.63, "dense": 0.54, "msb": 0.47, "lsb": 0.53, "idle": 0.18},
    4: {"area": 0.72, "dense": 0.68, "msb": 0.58, "lsb": 0.65, "idle": 0.19},
    5: {"area": 0.81, "dense": 0.74, "msb": 0.65, "lsb": 0.69, "idle": 0.19},
}
MEASURED = "factor measured at gate level for this project, not published; includes a 24-bit accumulator a lane"
EXTRAPOLATED = {
    1: (
        {"area": 0.46, "dense": 0.30, "msb": 0.25, "lsb": 0.33, "idle": 0.17},
        "area 369 / 800 um2 measured at gate level; energies continue the straight line through 2 and 3 bits, "
        "idle by flip-flops",
    ),
    8: (
        {"msb": 0.88, "lsb": 0.93, "idle": 0.21},
        "msb and lsb in the proportion to dense that 5-bit lanes have (0.65 / 0.74, 0.69 / 0.74), idle by flip-flops",
    ),
}
GATED_SHARE = 0.1

ADD_PJ_0V9 = {8: 0.03, 16: 0.05, 32: 0.1}
MULTIPLY_PJ_0V9 = {8: 0.2, 32: 3.1}
ADDER_UM2 = {8: 36, 32: 137}
MULTIPLIER_UM2 = {8: 282, 32: 3495}
COMPARE_PJ_32, COMPARATOR_UM2_32 = 0.02947, 71
REGISTER_PJ_1, REGISTER_UM2_1 = 0.009, 5.98

CACTI = (  # bytes, read pJ, write pJ, leakage mW, area mm2
    (128, 0.683701, 0.925317, 0.249588, 0.00149898),
    (512, 1.06097, 2.33869, 1.03183, 0.00760331),
    (1024, 1.13324, 3.29596, 1.78934, 0.00882362),
    (2048, 1.90318, 3.63853, 3.22997, 0.015132),
    (4096, 3.42953, 4.31011, 7.30186, 0.0300607),
    (8192, 6.39163, 5.56268, 13.6943, 0.0575061),
    (16384, 9.9817, 8.4209, 27.127, 0.108577),
)

DRAM = (("lpddr4", 8, "accelergy"), ("hbm2", 3.9, "accelergy"), ("gddr5", 14, "accelergy"), ("hmc", 4.2, "accelergy"),
        ("lpddr", 40, "accelergy"), ("ddr3", 70, "accelergy"), ("ddr4", 15, "bitfusion_dram"))  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A row of a table: what it names, its value, and where that comes from."""

    names: dict[str, int | str]
    value: float
    unit: str
    source: str = ""
    derivation: str = ""
    reason: str = ""  # of an assumed figure


@dataclass(frozen=True)
class Target:
    """A node and voltage to write a table for."""

    name: str
    node: int
    voltage: float
    leakage_factor: float = 1.0

    def carry(self, figure: Figure) -> Figure:
        """Return a 45 nm, 1.0 V figure at this node and voltage, its derivation extended."""
        if (self.node, self.voltage) == (BASE_NM, BASE_V):
            return figure
        what = {"pJ": "energy", "um2": "area", "mm2": "area"}.get(figure.unit, "leakage")
        volts = self.voltage / BASE_V
        factor = {
            "energy": energy_factor(BASE_NM, BASE_V, self.node, self.voltage),
            "area": area_factor(BASE_NM, self.node),
            "leakage": volts if figure.unit == "nW/um2" else volts * area_factor(BASE_NM, self.node),
        }[what]
        how = {
            "energy": f"E({self.node} nm, {self.voltage:g} V) / E(45 nm, 1 V), stillmaker",
            "area": f"area of {self.node} nm / 45 nm, stillmaker",
            "leakage": "voltage" if figure.unit == "nW/um2" else "area and voltage",
        }[what]
        derived = f"{number(figure.value)} {figure.unit} at 45 nm and 1 V x {number(factor)}, {how}"
        derivation = f"{figure.derivation}; {derived}" if figure.derivation else derived
        reason = figure.reason
        if what == "leakage":
            assumed = "leakage scales with area and voltage"
            reason = f"{reason}; {assumed}" if reason else assumed
        return replace(figure, value=figure.value * factor, derivation=derivation, reason=reason)


def number(value: float) -> str:
    """Return a number to 5 significant digits."""
    return f"{value:.5g}" if abs(value) < 1e5 else f"{value:.0f}"


def lanes() -> list[Figure]:
    """Return the energies of whole MAC lanes at 45 nm, 1.0 V."""
    figures = []
    base = LANE_PJ[8]
    for act_bits in (1, 2, 3, 4, 5, 8):
        factors, reason = (RELATIVE[act_bits], MEASURED) if act_bits in RELATIVE else EXTRAPOLATED[act_bits]
        for stimulus in ("dense", "msb", "lsb", "idle"):
            names = {"act_bits": act_bits, "weight_bits": 8, "stimulus": stimulus}
            if stimulus not in factors:
                figures.append(Figure(names, base, "pJ", "bitfusion"))
                continue
            how = f"8 x 8 bits {base} pJ x {factors[stimulus]:.2f}"
            figures.append(Figure(names, base * factors[stimulus], "pJ", "bitfusion", how, reason))
        names = {"act_bits": act_bits, "weight_bits": 8, "stimulus": "gated"}
        how = f"8 x 8 bits {base} pJ x {factors['idle']:.2f} x {GATED_SHARE}"
        why = "a tenth of idle is left for the clock-gating cells and the tree above them"
        figures.append(Figure(names, base * factors["idle"] * GATED_SHARE, "pJ", "bitfusion", how, why))
    for bits in (2, 4, 16):
        names = {"act_bits": bits, "weight_bits": bits, "stimulus": "dense"}
        figures.append(Figure(names, LANE_PJ[bits], "pJ", "bitfusion"))
    return figures


def lane_areas() -> list[Figure]:
    """Return the areas of whole MAC lanes at 45 nm."""
    figures = []
    for act_bits in (1, 2, 3, 4, 5):
        factors, reason = (RELATIVE[act_bits], MEASURED) if act_bits in RELATIVE else EXTRAPOLATED[act_bits]
        names: dict[str, int | str] = {"act_bits": act_bits, "weight_bits": 8}
        how = f"8 x 8 bits {LANE_UM2[8]} um2 x {factors['area']:.2f}"
        figures.append(Figure(names, LANE_UM2[8] * factors["area"], "um2", "bitfusion", how, reason))
    for bits, area in LANE_UM2.items():
        figures.append(Figure({"act_bits": bits, "weight_bits": bits}, area, "um2", "bitfusion"))
    return figures


def fit(terms: dict[str, float], unit: str) -> list[Figure]:
    """Return the terms of a fit through Bit Fusion's PEs."""
    how = "least squares through the PEs of 2, 4, 8 and 16 bits, within 1 %"
    why = "b x b carried to a x w bits: b^2 becomes a w, b becomes (a + w) / 2"
    return [Figure({"term": term}, value, unit, "bitfusion", how, why) for term, value in terms.items()]


def actions() -> list[Figure]:
    """Return the energies of what is not a lane, at 45 nm, 1.0 V."""
    up = energy_factor(45, 0.9, BASE_NM, BASE_V)
    figures = []
    for action, table in (("add", ADD_PJ_0V9), ("multiply", MULTIPLY_PJ_0V9)):
        for bits, value in table.items():
            how = f"{value} pJ at 0.9 V x {number(up)}, E(1 V) / E(0.9 V), stillmaker"
            figures.append(Figure({"action": action, "bits": bits}, value * up, "pJ", "horowitz", how))
    at_40 = "the 40 nm figure is taken for 45 nm as it is: the scaling tables have no 40 nm row"
    figures.append(Figure({"action": "compare", "bits": 32}, COMPARE_PJ_32, "pJ", "aladdin", "", at_40))
    figures.append(Figure({"action": "register_write", "bits": 1}, REGISTER_PJ_1, "pJ", "aladdin", "", at_40))
    fifo = f"a FIFO of registers: a push clocks the entry's bits, a pop's read multiplexer costs as much; {at_40}"
    for action in ("fifo_push", "fifo_pop"):
        figures.append(Figure({"action": action, "bits": 1}, REGISTER_PJ_1, "pJ", "aladdin", "", fifo))
    return figures


def areas() -> list[Figure]:
    """Return the areas of what is not a lane, at 45 nm."""
    at_40 = "the 40 nm figure is taken for 45 nm as it is: the scaling tables have no 40 nm row"
    figures = []
    for component, table in (("adder", ADDER_UM2), ("multiplier", MULTIPLIER_UM2)):
        for bits, value in table.items():
            figures.append(Figure({"component": component, "bits": bits}, value, "um2", "horowitz"))
    figures.append(Figure({"component": "comparator", "bits": 32}, COMPARATOR_UM2_32, "um2", "aladdin", "", at_40))
    figures.append(Figure({"component": "register", "bits": 1}, REGISTER_UM2_1, "um2", "aladdin", "", at_40))
    fifo = f"registers with 30 % on top for the read multiplexer and pointers; {at_40}"
    how = f"{REGISTER_UM2_1} um2 x 1.3"
    figures.append(Figure({"component": "fifo", "bits": 1}, REGISTER_UM2_1 * 1.3, "um2", "aladdin", how, fifo))
    return figures


def row(figure: Figure, target: Target) -> str:
    """Return one figure as a line of the file."""
    figure = target.carry(figure)
    parts = [f"{key}: {value}" for key, value in figure.names.items()]
    parts += [f"value: {number(figure.value)} {figure.unit}", *_origin(figure, target)]
    return f"{{{', '.join(parts)}}}"


def _origin(figure: Figure, target: Target) -> list[str]:
    parts = [f"node: {target.node} nm", f"voltage: {target.voltage} V", f"source: {figure.source}"]
    if figure.derivation:
        parts.append(f"derivation: {json.dumps(figure.derivation)}")
    if figure.reason:
        parts.append(f"assumed: true, reason: {json.dumps(figure.reason)}")
    return parts


def sram_row(entry: tuple[int, float, float, float, float], target: Target) -> str:
    """Return one bank size as a line of the file."""
    size, read, write, leakage, area = entry
    values = {"read": (read, "pJ"), "write": (write, "pJ"), "leakage": (leakage, "mW"), "area": (area, "mm2")}
    parts = [f"size: {size} B" if size < 1024 else f"size: {size // 1024} KiB"]
    factors = []
    for name, (value, unit) in values.items():
        carried = target.carry(Figure({}, value, unit, "cacti"))
        parts.append(f"{name}: {carried.value:.6g} {unit}")
        factors.append(f"{name} {value:.6g} {unit}")
    origin = Figure({}, 0, "pJ", "cacti")
    if (target.node, target.voltage) != (BASE_NM, BASE_V):
        energy, area_by = energy_factor(BASE_NM, BASE_V, target.node, target.voltage), area_factor(BASE_NM, target.node)
        how = (
            f"at 45 nm and 1 V {', '.join(factors)}; energies x {number(energy)}, area x {number(area_by)}, stillmaker"
        )
        how += f"; leakage x {number(area_by * target.voltage / BASE_V)}, area and voltage"
        origin = replace(origin, derivation=how, reason="SRAM scales as logic does, leakage with area and voltage")
    return f"{{{', '.join([*parts, *_origin(origin, target)])}}}"


def table(target: Target) -> str:
    """Return the whole file for a node and voltage."""
    base = (target.node, target.voltage) == (BASE_NM, BASE_V)
    text = [
        "# Written by analysis/energy_tables.py: change figures there, not here.",
        "# DRAM never scales with the logic node.",
        "pgsim_energy: 1",
        f"name: {target.name}",
        f"description: {json.dumps(_description(target, base))}",
        f"node: {target.node} nm",
        f"voltage: {target.voltage} V",
        "sources:",
    ]
    text += [f"  - {{name: {name}, text: {json.dumps(words)}}}" for name, words in SOURCES.items()]
    for name, figures in (
        ("lanes", lanes()),
        ("lane_areas", lane_areas()),
        ("lane_energy_fit", fit(FIT_PJ, "pJ")),
        ("lane_area_fit", fit(FIT_UM2, "um2")),
    ):
        text += [f"{name}:", *(f"  - {row(figure, target)}" for figure in figures)]
    leak = LANE_LEAK_8_UW * 1000 / LANE_UM2[8]
    how = f"{LANE_LEAK_8_UW} uW / {LANE_UM2[8]} um2 of the 8 x 8-bit PE"
    why = "the 8 x 8-bit PE's leakage an area stands for all logic"
    if target.leakage_factor != 1:
        how, leak = f"{how} x {number(target.leakage_factor)}", leak * target.leakage_factor
        why = f"{why}; low-power cells leak 10 to 100 times less than these"
    text += ["logic_leakage:", f"  {row(Figure({}, leak, 'nW/um2', 'bitfusion', how, why), target)}"]
    for name, figures in (("actions", actions()), ("areas", areas())):
        text += [f"{name}:", *(f"  - {row(figure, target)}" for figure in figures)]
    text += ["sram:", "  word: 32 bit"]
    text += [f"  leakage_factor: {target.leakage_factor:.5g}", "  rows:"]
    text += [f"    - {sram_row(entry, target)}" for entry in CACTI]
    text += ["dram:"]
    text += [f"  - {{kind: {kind}, value: {value} pJ/bit, source: {source}}}" for kind, value, source in DRAM]
    return "\n".join(text) + "\n"


def _description(target: Target, base: bool) -> str:
    if target.leakage_factor != 1:
        return (
            "The figures of 45nm with the leakage of SRAM and logic divided by 30: low-power cells at moderate "
            "temperature leak 10 to 100 times less than high-performance cells at 360 K (assumed)."
        )
    if base:
        return (
            "45 nm high-performance logic at 1.0 V: synthesised PEs, CACTI's SRAM at 360 K and arithmetic from the "
            "literature. Leakage is that of high-performance cells at 360 K, which is pessimistic."
        )
    return f"The figures of 45nm carried to {target.node} nm and {target.voltage} V by Stillmaker and Baas's equations."


TARGETS = (
    Target("45nm", 45, 1.0),
    Target("45nm_low_leakage", 45, 1.0, leakage_factor=1 / 30),
    Target("16nm", 16, NODES[16].nominal_v),
    Target("7nm", 7, NODES[7].nominal_v),
)


def main(folder: Path) -> None:
    """Write every table into `folder`."""
    for target in TARGETS:
        (folder / f"{target.name}.yaml").write_text(table(target), encoding="utf-8")


if __name__ == "__main__":
    default = Path(__file__).resolve().parent.parent / "hwconfigs" / "energy"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
