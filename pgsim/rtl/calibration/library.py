"""A cell library's cells with what pricing needs: function, area, leakage, capacitance, delay, internal energy.

Units: um2, nW, fF, ps, fJ, V. A table looked up beyond its ends takes its end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.rtl.calibration.liberty import Group, parse_group, split_cells

_PREFIX = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0}
RISE, FALL = 0, 1
EDGES = ("rise", "fall")


class CellKind(Enum):
    """What a cell does between two clock edges."""

    GATE = "gate"  # outputs follow inputs
    FLIP_FLOP = "flip_flop"  # takes its next state at the clock's rise
    CLOCK_GATE = "clock_gate"  # passes the clock while the enable, taken at the low clock, is 1


@dataclass(frozen=True)
class Table:
    """A look-up table by input transition (ps), and by load (fF) where it has a second axis."""

    slew: NDArray[np.float64]
    load: NDArray[np.float64]
    values: NDArray[np.float64]  # [slew, load]

    def at(self, slew_ps: float, load_ff: float) -> float:
        """Return the value between the entries, linear in both axes."""
        by_load = [float(np.interp(load_ff, self.load, row)) for row in self.values]
        return float(np.interp(slew_ps, self.slew, by_load))


@dataclass(frozen=True)
class Arc:
    """One timing or internal-power group: from `related` pin where `when` holds; a table for rise and for fall."""

    related: str
    when: str
    rail: str
    tables: tuple[Table | None, Table | None]
    transitions: tuple[Table | None, Table | None] = (None, None)


@dataclass(frozen=True)
class Pin:
    """A signal pin of a cell."""

    name: str
    output: bool
    capacitance_ff: float
    function: str
    timing: tuple[Arc, ...]
    power: tuple[Arc, ...]


@dataclass(frozen=True)
class Cell:
    """A cell: inputs and outputs in the library's order; a flip-flop's state has the library's names."""

    name: str
    kind: CellKind
    area_um2: float
    leakage_nw: float
    inputs: tuple[Pin, ...]
    outputs: tuple[Pin, ...]
    clock: str = ""
    state: tuple[str, str] = ("", "")  # the state and its complement
    next_state: str = ""


class Library:
    """One library in one or several files; cells are read when asked for."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = tuple(paths)
        self._texts: dict[str, tuple[str, Path]] = {}
        self._headers: dict[Path, Group] = {}
        self._cells: dict[str, Cell] = {}
        for path in self.paths:
            header, cells = split_cells(path.read_text(encoding="utf-8", errors="replace"))
            self._headers[path] = parse_group(header)
            self._texts |= {name: (text, path) for name, text in cells.items()}
        self.header = self._headers[self.paths[0]]
        self.voltage_v = self.header.number("nom_voltage", self._condition("voltage"))
        self.temperature_c = self.header.number("nom_temperature", self._condition("temperature"))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all cells."""
        return tuple(self._texts)

    @property
    def label(self) -> str:
        """The library's own name and the digest of its files."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(path.read_bytes())
        return f"{self.header.names[0]} sha256 {digest.hexdigest()[:16]}"

    def cell(self, name: str) -> Cell:
        """Return a cell. Raises InputError for one that the library lacks, or whose kind is none of CellKind."""
        if name not in self._cells:
            if name not in self._texts:
                raise InputError(f"{self.paths[0]}: the library must hold cell {name}")
            text, path = self._texts[name]
            self._cells[name] = _cell(parse_group(text), _Units(self._headers[path]))
        return self._cells[name]

    def _condition(self, name: str) -> float:
        groups = self.header.all("operating_conditions")
        return groups[0].number(name) if groups else 0.0


class _Units:
    """A library file's units and table templates."""

    def __init__(self, header: Group):
        capacitance = header.attributes.get("capacitive_load_unit", ("1", "pf"))
        self.farad = float(capacitance[0]) * _PREFIX[capacitance[1].lower().removesuffix("f")]
        self.volt = _unit(header.text("voltage_unit", "1V"), "V")
        self.ff, self.ps = self.farad / 1e-15, _unit(header.text("time_unit", "1ns"), "s") / 1e-12
        self.fj = self.farad * self.volt**2 / 1e-15
        self.nw = _unit(header.text("leakage_power_unit", "1nW"), "W") / 1e-9
        self.templates = {
            group.names[0]: group
            for group in header.groups
            if group.kind in ("lu_table_template", "power_lut_template")
        }

    def table(self, group: Group | None, scale: float) -> Table | None:
        """Return a table in this module's units, whichever axis comes first."""
        if group is None:
            return None
        template = self.templates.get(group.names[0] if group.names else "", Group(""))
        values = [[float(v) for v in row.replace(",", " ").split()] for row in group.attributes["values"]]
        first, second = template.text("variable_1"), template.text("variable_2")
        axes = [_axis(group, template, name) for name in ("index_1", "index_2")]
        array = np.array(values, np.float64)
        if array.size == 1:
            axes, array = [np.zeros(1), np.zeros(1)], array.reshape(1, 1)
        elif not second:
            array = array.reshape(1, -1) if "capacitance" in first else array.reshape(-1, 1)
            axes = [np.zeros(1), axes[0]] if "capacitance" in first else [axes[0], np.zeros(1)]
        else:
            array = array.reshape(len(axes[0]), len(axes[1]))
            if "capacitance" in first:
                axes, array = axes[::-1], array.T
        return Table(axes[0] * self.ps, axes[1] * self.ff, array * scale)


def _axis(group: Group, template: Group, name: str) -> NDArray[np.float64]:
    text = group.text(name) or template.text(name)
    return np.array([float(v) for v in text.replace(",", " ").split()] or [0.0])


def _unit(text: str, base: str) -> float:
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return float(number or 1) * _PREFIX[text[len(number) :].removesuffix(base).lower()]


def _cell(group: Group, units: _Units) -> Cell:
    name = group.names[0]
    pins = [_pin(pin, units) for pin in group.all("pin") if pin.text("direction") in ("input", "output")]
    inputs = tuple(pin for pin in pins if not pin.output)
    outputs = tuple(pin for pin in pins if pin.output)
    kind, clock, state, next_state = CellKind.GATE, "", ("", ""), ""
    if group.text("clock_gating_integrated_cell"):
        kind = CellKind.CLOCK_GATE
        clock = next(pin.names[0] for pin in group.all("pin") if pin.text("clock_gate_clock_pin") == "true")
        enables = ("clock_gate_enable_pin", "clock_gate_test_pin")
        names = [pin.names[0] for pin in group.all("pin") if any(pin.text(key) == "true" for key in enables)]
        next_state, state = " | ".join(names), (_held_name(group), "")
    elif group.all("ff"):
        kind, ff = CellKind.FLIP_FLOP, group.all("ff")[0]
        clock, next_state = ff.text("clocked_on").strip("() "), ff.text("next_state")
        state = (ff.names[0], ff.names[1])
        if clock not in {pin.name for pin in inputs} or ff.text("clear") or ff.text("preset"):
            raise InputError(f"cell {name} must take its state at the rise of a pin alone: do not let synthesis use it")
    elif group.all("latch") or group.all("statetable") or group.all("ff_bank"):
        raise InputError(f"cell {name} must be a gate, a flip-flop or a clock gate: do not let synthesis use it")
    return Cell(name, kind, group.number("area"), _leakage(group) * units.nw, inputs, outputs, clock, state, next_state)


def _held_name(group: Group) -> str:
    """The name that a clock gate's conditions know its held enable by."""
    tables = group.all("statetable") or group.all("latch")
    return tables[0].names[-1 if tables[0].kind == "statetable" else 0].split()[0] if tables else "enabled"


def _leakage(group: Group) -> float:
    """The cell's leakage: stated, else of the group without a condition, else the mean of states; rails add up."""
    if group.text("cell_leakage_power"):
        return group.number("cell_leakage_power")
    by_state: dict[str, float] = {}
    for leak in group.all("leakage_power"):
        by_state[leak.text("when")] = by_state.get(leak.text("when"), 0.0) + leak.number("value")
    return by_state.get("", float(np.mean(list(by_state.values()))) if by_state else 0.0)


def _pin(group: Group, units: _Units) -> Pin:
    timing, power = [], []
    for arc in group.all("timing"):
        if arc.text("timing_type") not in ("", "combinational", "rising_edge") or not arc.groups:
            continue
        inner = {table.kind: units.table(table, units.ps) for table in arc.groups}
        delays = (inner.get("cell_rise"), inner.get("cell_fall"))
        edges = (inner.get("rise_transition"), inner.get("fall_transition"))
        timing.append(Arc(arc.text("related_pin"), arc.text("when"), "", delays, edges))
    for arc in group.all("internal_power"):
        inner = {table.kind: units.table(table, units.fj) for table in arc.groups}
        both = inner.get("power")
        tables = (inner.get("rise_power", both), inner.get("fall_power", both))
        power.append(Arc(arc.text("related_pin"), arc.text("when"), arc.text("related_pg_pin"), tables))
    capacitance = group.number("capacitance") * units.ff
    function = group.text("function") or group.text("state_function")
    return Pin(group.names[0], group.text("direction") == "output", capacitance, function, tuple(timing), tuple(power))
