"""Load an energy table: every figure with its value, unit, node, voltage and source."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator
from pgsim.hw.curve import Curve, Price
from pgsim.hw.prices import Action, Component, EnergyTable, LaneFit, Stimulus
from pgsim.io.energy_keys import ENERGY, FORMAT_KEY, FORMAT_VERSION, FitTerm, SramQuantity
from pgsim.io.keys import check_version, did_you_mean, key_path, read_mapping
from pgsim.io.shipped import find_config
from pgsim.io.strict import show
from pgsim.io.yaml_file import KeyPath, YamlFile, read_yaml

WHAT = "energy table"
FOLDER = "energy"

_GROWTH = {Action.MULTIPLY: 2.0}  # of a price beyond its rows; all other actions and areas grow per bit
_OPTIONAL = (Action.SELECT, Component.MULTIPLEXER)
_AREA_GROWTH = {Component.MULTIPLIER: 2.0}


def load_energy_table(path_or_name: str | os.PathLike[str]) -> EnergyTable:
    """Return the energy table of a file, or a shipped one by name ("45nm").

    Raises InputError, one line with file, line and key path, for a file that is not what docs/energy.md says.
    """
    path = find_config(path_or_name, WHAT, FOLDER)
    file = read_yaml(path, WHAT)
    check_version(file, FORMAT_KEY, FORMAT_VERSION)
    values = read_mapping(file, ENERGY, file.data, (), set())
    rows = _Rows(file, values)
    sram_word = values["sram"]["word"]
    return EnergyTable(
        name=values["name"],
        node_nm=values["node"],
        voltage_v=values["voltage"],
        lane_energy=rows.lanes(),
        lane_area=rows.prices(("lane_areas",), lambda row: (row["act_bits"], row["weight_bits"])),
        lane_energy_fit=rows.fit("lane_energy_fit"),
        lane_area_fit=rows.fit("lane_area_fit"),
        logic_leakage=rows.price(values["logic_leakage"], ("logic_leakage",)),
        actions=rows.curves(("actions",), "action", Action, _GROWTH),
        areas=rows.curves(("areas",), "component", Component, _AREA_GROWTH),
        sram_read=rows.sram(SramQuantity.READ, 1 / sram_word),
        sram_write=rows.sram(SramQuantity.WRITE, 1 / sram_word),
        sram_leakage=rows.sram(SramQuantity.LEAKAGE, values["sram"]["leakage_factor"]),
        sram_area=rows.sram(SramQuantity.AREA, 1),
        dram=rows.prices(("dram",), lambda row: row["kind"]),
        sha256=hashlib.sha256(Path(path).read_bytes()).hexdigest(),
    )


def load_prices(accelerator: Accelerator) -> EnergyTable:
    """Return the energy table that `accelerator` names, checked against it.

    Raises InputError where node or voltage are not the table's, or the DRAM kind is none of its kinds.
    """
    table = load_energy_table(accelerator.energy_table)
    for key, have, want, unit in (
        ("technology.node", accelerator.node_nm, table.node_nm, "nm"),
        ("technology.voltage", accelerator.voltage_v, table.voltage_v, "V"),
    ):
        if have != want:
            problem = f"{key} must be that of energy table {table.name}, {want} {unit}, not {have} {unit}"
            raise InputError(f"{accelerator.name}: {problem}")
    _check_dram(accelerator, table)
    return table


def load_prices_beside(accelerator: Accelerator) -> tuple[EnergyTable, ...]:
    """Return the energy tables that `accelerator` names beside its own, of any node and voltage.

    Raises InputError where the DRAM kind is none of a table's kinds.
    """
    tables = tuple(load_energy_table(name) for name in accelerator.energy_tables_beside)
    for table in tables:
        _check_dram(accelerator, table)
    return tables


def _check_dram(accelerator: Accelerator, table: EnergyTable) -> None:
    try:
        table.dram_pj_per_bit(accelerator.memory.off_chip.kind)
    except InputError as error:
        raise InputError(f"{accelerator.name}: {error}") from error


_K = TypeVar("_K")
_Row = dict[str, Any]


class _Rows:
    """The file's rows as prices: checks what a row says of its source, node and voltage."""

    def __init__(self, file: YamlFile, values: dict[str, Any]):
        self.file = file
        self.values = values
        self.sources: dict[str, str] = {}
        for position, row in enumerate(values["sources"]):
            if row["name"] in self.sources:
                self.refuse(("sources", position, "name"), f"must be given once, not again: {show(row['name'])}")
            self.sources[row["name"]] = row["text"]

    def refuse(self, path: KeyPath, problem: str) -> None:
        raise InputError(f"{self.file.where(path)}: {key_path(path)} {problem}")

    def price(self, row: _Row, path: KeyPath) -> Price:
        """Return a row's price; its note holds the derivation and the reason."""
        for key, unit in (("node", "nm"), ("voltage", "V")):
            want = self.values[key]
            if key in row and row[key] != want:
                must = f"must be that of the table, {want} {unit}, not {row[key]} {unit}"
                self.refuse((*path, key), f"{must} (convert the figure and say how in derivation)")
        if row["assumed"] and not row["reason"]:
            self.refuse((*path, "reason"), "must be given for a figure that is assumed")
        if not row["assumed"] and not row["source"]:
            self.refuse((*path, "source"), "must be given, or assumed: true with a reason")
        if row["source"] and row["source"] not in self.sources:
            names = list(self.sources)
            hint = did_you_mean(row["source"], names) or f" (known: {', '.join(names)})"
            self.refuse((*path, "source"), f"must be a name under sources, not {show(row['source'])}{hint}")
        note = "; ".join(part for part in (row["derivation"], row["reason"]) if part)
        unit = self.unit(path)
        return Price(row["value"], unit, self.sources.get(row["source"], "assumed"), row["assumed"], note)

    def unit(self, path: KeyPath) -> str:
        unit = {"lanes": "pJ", "lane_energy_fit": "pJ", "actions": "pJ", "logic_leakage": "nW/um2", "dram": "pJ/bit"}
        return unit.get(str(path[0]), "um2")

    def prices(self, path: KeyPath, name: Callable[[_Row], _K]) -> dict[_K, Price]:
        """Return the prices of a list of rows by name; two rows of one name are refused."""
        result: dict[_K, Price] = {}
        for position, row in enumerate(self.values[str(path[0])]):
            key, at = name(row), (*path, position)
            if key in result:
                self.refuse(at, "must not price again what an earlier row prices")
            result[key] = self.price(row, at)
        return result

    def lanes(self) -> dict[tuple[int, int, Stimulus], Price]:
        """Return the lanes' energies; every stimulus has a row, and each of its rows a dense row of the same lane."""
        path: KeyPath = ("lanes",)
        result = self.prices(path, lambda row: (row["act_bits"], row["weight_bits"], row["stimulus"]))
        for stimulus in Stimulus:
            if stimulus not in {kind for _, _, kind in result}:
                self.refuse(path, f"must price {stimulus.value}, which no row does")
        for act_bits, weight_bits, _ in result:
            if (act_bits, weight_bits, Stimulus.DENSE) not in result:
                self.refuse(path, f"must price dense for a lane of {act_bits} x {weight_bits} bits, which no row does")
        return result

    def curves(self, path: KeyPath, name: str, members: Any, growth: Mapping[Any, float]) -> dict[Any, Curve]:
        """Return a curve for every member of the enum; one without a row is refused, but for multiplexers'."""
        priced = self.prices(path, lambda row: (row[name], row["bits"]))
        result = {}
        for member in members:
            points = {bits: price for (of, bits), price in priced.items() if of is member}
            if not points and member in _OPTIONAL:
                continue
            if not points:
                self.refuse(path, f"must price {member.value}, which no row does")
            result[member] = Curve(tuple(sorted(points.items())), growth.get(member, 1.0))
        return result

    def sram(self, quantity: SramQuantity, factor: float) -> Curve:
        """Return the curve of one quantity by bank size; energies become a bit's."""
        unit = {SramQuantity.LEAKAGE: "mW", SramQuantity.AREA: "um2"}.get(quantity, "pJ/bit")
        points: dict[int, Price] = {}
        for position, row in enumerate(self.values["sram"]["rows"]):
            at: KeyPath = ("sram", "rows", position)
            if row["size"] in points:
                self.refuse(at, "must not price again what an earlier row prices")
            note = f"times {factor:g}" if quantity is SramQuantity.LEAKAGE and factor != 1 else ""
            price = self.price({**row, "value": row[quantity.value]}, at)
            points[row["size"]] = price.times(factor, note, assumed=bool(note), unit=unit)
        return Curve(tuple(sorted(points.items())), growth=0.0)

    def fit(self, name: str) -> LaneFit:
        """Return the fit of three terms; a term without a row is refused."""
        terms = self.prices((name,), lambda row: row["term"])
        for term in FitTerm:
            if term not in terms:
                self.refuse((name,), f"must give {term.value}, which no row does")
        return LaneFit(terms[FitTerm.PRODUCT], terms[FitTerm.MEAN], terms[FitTerm.CONSTANT])


def table_rows(table: EnergyTable) -> list[tuple[str, Price]]:
    """Return every figure of a table with a name for people."""
    rows = [(f"lane {a} x {w} {kind.value}", price) for (a, w, kind), price in table.lane_energy.items()]
    rows += [(f"lane area {a} x {w}", price) for (a, w), price in table.lane_area.items()]
    for name, fit in (("lane fit", table.lane_energy_fit), ("lane area fit", table.lane_area_fit)):
        rows += [(f"{name} product", fit.product), (f"{name} mean", fit.mean), (f"{name} constant", fit.constant)]
    rows.append(("logic leakage", table.logic_leakage))
    curves = [(action.value, curve) for action, curve in table.actions.items()]
    curves += [(f"{component.value} area", curve) for component, curve in table.areas.items()]
    curves += [("sram read", table.sram_read), ("sram write", table.sram_write)]
    curves += [("sram leakage", table.sram_leakage), ("sram area", table.sram_area)]
    rows += [(f"{name} {bits} bit", price) for name, curve in curves for bits, price in curve.points]
    if Action.SELECT not in table.actions:
        rows.append(("select 1 bit", table.mux_pj()))
    if Component.MULTIPLEXER not in table.areas:
        rows.append(("multiplexer area 1 bit", table.mux_area_um2()))
    return rows + [(f"dram {kind}", price) for kind, price in table.dram.items()]


def energy_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of an energy table, from the table that the loader reads with."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:pgsim:energy:1",
        "title": "pgsim energy table, format 1",
        **ENERGY.schema(),
    }
