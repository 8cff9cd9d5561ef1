"""Turn a waveform in VCD into FST, compressed, with the library of GTKWave (PyPI package `pylibfst`).

Verilator can write FST itself where the headers of lz4 and zlib are installed; a conversion is the same everywhere and
a machine with waves is compiled once for both formats.
"""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pgsim.errors import InputError
from pgsim.rtl.vcd import Scope, Up, changes, read_header


def require_writer() -> None:
    """Raise InputError where the package that writes FST is not installed."""
    if find_spec("pylibfst") is None:
        raise InputError("the Python package pylibfst must be installed to write FST: pip install 'pgsim[fst]'")


def convert(vcd: Path, fst: Path) -> None:
    """Write the VCD file's hierarchy and value changes as FST.

    Raises InputError where pylibfst is not installed, OSError where a file cannot be read or written.
    """
    require_writer()
    library: Any = importlib.import_module("pylibfst")
    lib, ffi = library.lib, library.ffi
    fst.touch()  # raises OSError; the library says nothing more than that it failed
    writer = lib.fstWriterCreate(os.fsencode(fst), 1)
    if writer == ffi.NULL:
        raise OSError(None, "the FST file cannot be written", str(fst))
    kinds = {"parameter": lib.FST_VT_VCD_PARAMETER, "integer": lib.FST_VT_VCD_INTEGER, "reg": lib.FST_VT_VCD_REG}
    with open(vcd, encoding="ascii") as stream:
        try:
            unit, entries = read_header(stream)
            lib.fstWriterSetTimescaleFromString(writer, unit.encode())
            handles: dict[str, tuple[Any, int]] = {}
            for entry in entries:
                if isinstance(entry, Scope):
                    lib.fstWriterSetScope(writer, lib.FST_ST_VCD_MODULE, entry.name.encode(), ffi.NULL)
                elif isinstance(entry, Up):
                    lib.fstWriterSetUpscope(writer)
                else:
                    kind = kinds.get(entry.kind, lib.FST_VT_VCD_WIRE)
                    known = handles.get(entry.code, (0, 0))[0]
                    name = entry.name.encode()
                    made = lib.fstWriterCreateVar(writer, kind, lib.FST_VD_IMPLICIT, entry.bits, name, known)
                    handles.setdefault(entry.code, (made, entry.bits))
            now, written = -1, 0
            for time, code, value in changes(stream):
                written += 1
                if time != now:
                    lib.fstWriterEmitTimeChange(writer, time)
                    now = time
                handle, bits = handles[code]
                lib.fstWriterEmitValueChange(writer, handle, value.rjust(bits, "0").encode())
        finally:
            lib.fstWriterClose(writer)
    if _counted(library, fst) != (len(handles), written):
        raise OSError(None, "the FST file could not be written to its end", str(fst))


def _counted(library: Any, path: Path) -> tuple[int, int]:
    """Read a file back and count signals and value changes; the library reports no error in writing."""
    lib, ffi = library.lib, library.ffi
    reader = lib.fstReaderOpen(os.fsencode(path))
    if reader == ffi.NULL:
        return 0, 0
    try:
        read = 0

        def count(*_: object) -> None:
            nonlocal read
            read += 1

        signals = set()
        lib.fstReaderIterateHierRewind(reader)
        while (entry := lib.fstReaderIterateHier(reader)) != ffi.NULL:
            if entry.htyp == lib.FST_HT_VAR:
                signals.add(entry.u.var.handle)
        lib.fstReaderSetFacProcessMaskAll(reader)
        library.fstReaderIterBlocks(reader, count)
        return len(signals), read
    finally:
        lib.fstReaderClose(reader)
