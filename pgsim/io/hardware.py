"""Load a hardware file into an Accelerator, write one back, and state the format as JSON Schema."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator, Buffer, Memory, OffChip, Organisation, PeArray, UpdateArray
from pgsim.hw.check import DECOUPLED_ONLY, FieldError
from pgsim.io.hardware_keys import FORMAT_KEY, FORMAT_VERSION, HARDWARE
from pgsim.io.keys import check_version, key_path, read_mapping
from pgsim.io.shipped import find_config, shipped_names
from pgsim.io.strict import show
from pgsim.io.yaml_file import KeyPath, read_yaml

WHAT = "hardware file"
SCHEMA_ID = "urn:pgsim:hw:1"


@dataclass(frozen=True)
class LoadedAccelerator:
    """An accelerator, the file that it came from, and the key paths that took their defaults."""

    accelerator: Accelerator
    path: Path
    defaulted: frozenset[str]


def load_accelerator(path_or_name: str | os.PathLike[str]) -> Accelerator:
    """Return the accelerator of a hardware file, or of a shipped one by name, with or without `.yaml`.

    Raises InputError, one line with file, line and key path, for a file that is not what docs/hardware.md says.
    """
    return load_with_defaults(path_or_name).accelerator


def load_with_defaults(path_or_name: str | os.PathLike[str]) -> LoadedAccelerator:
    """Return the accelerator as `load_accelerator` does, and which keys its file leaves to their defaults."""
    path = find_config(path_or_name, WHAT)
    file = read_yaml(path, WHAT)
    check_version(file, FORMAT_KEY, FORMAT_VERSION)
    defaulted: set[KeyPath] = set()
    values = read_mapping(file, HARDWARE, file.data, (), defaulted)
    try:
        accelerator = _accelerator(values, path)
    except FieldError as error:
        where = file.where(tuple(error.key.split(".")))
        raise InputError(f"{where}: {error.key} {error.problem}") from error
    return LoadedAccelerator(accelerator, path, frozenset(map(key_path, defaulted)))


def shipped_accelerators() -> list[str]:
    """Return the names of the shipped hardware files, in order."""
    return shipped_names()


def _accelerator(values: dict[str, Any], path: Path) -> Accelerator:
    technology, memory, update = values["technology"], values["memory"], values["update_array"]
    tables = [technology["energy_table"], *technology["beside"]]
    for name in technology["beside"]:
        if tables.count(name) > 1:
            raise FieldError("technology.beside", f"must name other energy tables, each once, not {show(name)} again")
    return Accelerator(
        name=values["name"],
        organisation=values["organisation"],
        gate=values["gate"],
        clock_mhz=values["clock"],
        node_nm=technology["node"],
        voltage_v=technology["voltage"],
        energy_table=_energy_table(technology["energy_table"], path),
        energy_tables_beside=tuple(_energy_table(name, path) for name in technology["beside"]),
        array=PeArray(**values["array"]),
        update=UpdateArray(**update) if update else None,
        memory=Memory(
            activation=_buffer(memory["activation"]),
            activation_lsb=_buffer(memory["activation_lsb"]) if memory["activation_lsb"] else None,
            weight=_buffer(memory["weight"]),
            output=_buffer(memory["output"]),
            off_chip=OffChip(
                width_bits=memory["off_chip"]["width"],
                latency_cycles=memory["off_chip"]["latency"],
                kind=memory["off_chip"]["kind"],
            ),
            feature_maps=memory["feature_maps"],
        ),
        batch=values["batch"],
        cooperative=values["cooperative"],
        depthwise=values["depthwise"],
        clock_gating=values["clock_gating"],
        assumed=values["assumed"],
        description=values["description"],
    )


def _buffer(values: dict[str, Any]) -> Buffer:
    return Buffer(values["size"], values["banks"], values.get("ports", 1), values.get("row_steps", 1))


def _energy_table(name: str, path: Path) -> str:
    """Return a shipped table's name as it is, a path as seen from the hardware file's folder."""
    beside = path.parent / name
    return str(beside) if beside.is_file() else name


def file_values(accelerator: Accelerator) -> dict[str, Any]:
    """Return the plain values of the hardware file that would load as `accelerator`, every default written out."""
    array, update, memory = accelerator.array, accelerator.update, accelerator.memory
    off_chip = memory.off_chip
    buffers = {name: {"size": b.size_bits, "banks": b.banks, "ports": b.ports} for name, b in memory.buffers.items()}
    del buffers["output"]["ports"]  # nothing waits for it
    buffers["weight"]["row_steps"] = memory.weight.row_steps
    values = {
        FORMAT_KEY: FORMAT_VERSION,
        "name": accelerator.name,
        "description": accelerator.description,
        "assumed": accelerator.assumed,
        "organisation": accelerator.organisation,
        "gate": accelerator.gate,
        "clock": accelerator.clock_mhz,
        "technology": {
            "node": accelerator.node_nm,
            "voltage": accelerator.voltage_v,
            "energy_table": accelerator.energy_table,
            "beside": accelerator.energy_tables_beside,
        },
        "array": vars(array),
        "update_array": vars(update) if update else None,
        "memory": {
            "activation_lsb": None,
            **buffers,
            "off_chip": {"width": off_chip.width_bits, "latency": off_chip.latency_cycles, "kind": off_chip.kind},
            "feature_maps": memory.feature_maps,
        },
        "batch": accelerator.batch,
        "cooperative": accelerator.cooperative,
        "depthwise": accelerator.depthwise,
        "clock_gating": accelerator.clock_gating,
    }
    plain: dict[str, Any] = HARDWARE.write(values)
    if not plain["description"]:
        del plain["description"]
    return plain


class _Dumper(yaml.SafeDumper):
    """Quotes all text but plain words: PyYAML would leave `1e-9` bare, which this loader takes for a number."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _WORD.fullmatch(text) or _QUANTITY.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text_node)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_/]*")
_QUANTITY = re.compile(r"[0-9.]+ [A-Za-z/]+")


def accelerator_yaml(accelerator: Accelerator) -> str:
    """Return a hardware file, as text, that loads as `accelerator`; an energy table by path stays as it is."""
    return yaml.dump(file_values(accelerator), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def hardware_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a hardware file, from the table that the loader reads with.

    It says what a schema can: keys, kinds, ranges of plain numbers, units, and what only decoupled has. Ranges of
    quantities and the remaining rules between keys are the loader's.
    """
    schema = HARDWARE.schema()
    only: dict[str, Any] = {}
    never: dict[str, Any] = {}
    for key in DECOUPLED_ONLY:
        nested_only, nested_never = only, never
        *sections, name = key.split(".")
        for section in sections:
            nested_only = nested_only.setdefault("properties", {}).setdefault(section, {})
            nested_never = nested_never.setdefault("properties", {}).setdefault(section, {})
        nested_only.setdefault("required", []).append(name)
        nested_never.setdefault("properties", {})[name] = False
    decoupled = {"properties": {"organisation": {"const": Organisation.DECOUPLED.value}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "pgsim hardware file, format 1",
        **schema,
        "if": decoupled,
        "then": only,
        "else": never,
    }
