"""A netlist of library cells, read from what Yosys's write_json wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pgsim.errors import InputError

ZERO, ONE = 0, 1  # nets of constants


@dataclass(frozen=True)
class Instance:
    """A cell of the netlist: its library name, and the net of each connected pin."""

    cell: str
    pins: Mapping[str, int]


@dataclass(frozen=True)
class Netlist:
    """A flat module. Nets are numbered; ZERO and ONE are constants; ports list their nets, lowest bit first."""

    name: str
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    instances: tuple[Instance, ...]
    nets: int


def read_netlist(path: Path) -> Netlist:
    """Return the one module of a file. Raises InputError for another number of modules."""
    modules = {
        name: module
        for name, module in json.loads(path.read_text(encoding="utf-8"))["modules"].items()
        if module.get("attributes", {}).get("blackbox") is None
    }
    if len(modules) != 1:
        raise InputError(f"{path}: the netlist must hold one flat module, not {len(modules)}")
    ((name, module),) = modules.items()
    numbers: dict[int | str, int] = {"0": ZERO, "1": ONE, "x": ZERO, "z": ZERO}

    def net(bit: int | str) -> int:
        return numbers.setdefault(bit, len(set(numbers.values())))

    ports = {
        direction: {
            port: tuple(net(bit) for bit in of["bits"])
            for port, of in module["ports"].items()
            if of["direction"] == direction
        }
        for direction in ("input", "output")
    }
    instances = tuple(
        Instance(cell["type"], {pin: net(bits[0]) for pin, bits in cell["connections"].items() if bits})
        for cell in module["cells"].values()
        if not cell["type"].startswith("$")  # $scopeinfo carries names alone
    )
    left = sorted({cell["type"] for cell in module["cells"].values() if cell["type"].startswith("$_")})
    if left:
        raise InputError(f"{path}: every cell must be the library's, not {', '.join(left)}")
    return Netlist(name, ports["input"], ports["output"], instances, len(set(numbers.values())))
