"""Read a waveform in VCD (IEEE 1800, section 21.7) as Verilator writes it: two states, no real numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class Scope:
    """A scope opens: a module, or a struct, interface and so on."""

    kind: str
    name: str


@dataclass(frozen=True)
class Variable:
    """A variable of the open scope. Variables with the same code are one signal; bits of its value are MSB first."""

    kind: str
    bits: int
    code: str
    name: str  # with its range, where it has one: "word [31:0]"


@dataclass(frozen=True)
class Up:
    """The open scope ends."""


Entry = Scope | Variable | Up


def read_header(stream: TextIO) -> tuple[str, list[Entry]]:
    """Return the unit of time ("1ps") and the hierarchy in the file's order; the stream is left at the first time."""
    unit, entries = "", list[Entry]()
    for line in stream:
        words = line.split()
        if not words:
            continue
        if words[0] == "$timescale":
            unit = "".join(words[1:-1])
        elif words[0] == "$scope":
            entries.append(Scope(words[1], words[2]))
        elif words[0] == "$upscope":
            entries.append(Up())
        elif words[0] == "$var":
            entries.append(Variable(words[1], int(words[2]), words[3], " ".join(words[4:-1])))
        elif words[0] == "$enddefinitions":
            break
    return unit, entries


def changes(stream: TextIO) -> Iterator[tuple[int, str, str]]:
    """Yield (time, code, value as binary digits) of a stream that stands behind its header, in the file's order."""
    time = 0
    for line in stream:
        first = line[0]
        if first == "b":
            value, code = line[1:].split()
            yield time, code, value
        elif first in "01xz":
            yield time, line[1:-1], first
        elif first == "#":
            time = int(line[1:])


def paths(entries: list[Entry]) -> dict[str, Variable]:
    """Return the variables by their path, scopes and name joined by dots, without the range: "top.machine.word"."""
    found, scopes = dict[str, Variable](), list[str]()
    for entry in entries:
        if isinstance(entry, Scope):
            scopes.append(entry.name)
        elif isinstance(entry, Up):
            scopes.pop()
        else:
            found[".".join([*scopes, entry.name.split(" ")[0]])] = entry
    return found
