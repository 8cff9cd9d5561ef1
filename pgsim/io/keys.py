"""The keys of a file as data: one table of them reads the file, names its defaults and yields its JSON Schema.

A `Kind` says what a value must be. `read` turns a plain YAML value into the program's (or raises Wrong with what it
must be), `schema` states the same as JSON Schema, `write` gives the plain value that would read back.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any

from pgsim.errors import InputError
from pgsim.hw.check import Range
from pgsim.io.strict import show
from pgsim.io.yaml_file import KeyPath, YamlFile

REQUIRED = object()  # the default of a key that has none


class Wrong(Exception):
    """A value that is not what it must be; the message completes "must ..."."""


class Kind:
    """What a value must be."""

    def read(self, value: Any) -> Any:
        """Return the program's value. Raises Wrong."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the value."""
        raise NotImplementedError

    def write(self, value: Any) -> Any:
        """Return the plain YAML value that reads back as `value`."""
        return value


@dataclass(frozen=True)
class Key:
    """A key of a mapping. Without a default it must be there; `about` is one line for people."""

    name: str
    kind: Kind
    about: str
    default: Any = REQUIRED  # the program's value, not the file's text
    absent: bool = False  # may be left out altogether; its value is then None


@dataclass(frozen=True)
class Text(Kind):
    """One line of printable text, or more lines where `lines` is set."""

    longest: int = 200
    lines: bool = False

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or len(value) > self.longest:
            raise Wrong(f"be text of 1 to {self.longest} characters")
        if not value.replace("\n", " " if self.lines else "\n").isprintable():
            raise Wrong("be printable text" if self.lines else "be one line of printable text")
        return value.strip()

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": self.longest}


@dataclass(frozen=True)
class Texts(Kind):
    """A list of lines of text; it may be empty."""

    def read(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise Wrong("be a list of lines of text")
        texts = []
        for position, item in enumerate(value):
            try:
                texts.append(Text(400, lines=True).read(item))
            except Wrong as error:
                hint = "; quote a line that holds a colon" if isinstance(item, dict) else ""
                raise Wrong(f"be a list of lines of text (item {position + 1} must {error}{hint})") from error
        return tuple(texts)

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": Text(400).schema()}

    def write(self, value: Any) -> Any:
        return list(value)


@dataclass(frozen=True)
class Number(Kind):
    """A number in a Range; `word`, where there is one, may stand for it and reads as None."""

    allowed: Range
    word: str = ""

    def read(self, value: Any) -> int | float | None:
        if self.word and value == self.word:
            return None
        if not self.allowed.holds(value):
            raise Wrong(f"be {self.allowed}" + (f", or {self.word}" if self.word else ""))
        number: int | float = value
        return number

    def schema(self) -> dict[str, Any]:
        kind = "integer" if self.allowed.whole else "number"
        number = {"type": kind, "minimum": self.allowed.low, "maximum": self.allowed.high}
        return {"anyOf": [number, {"const": self.word}]} if self.word else number

    def write(self, value: Any) -> Any:
        return self.word if value is None else value


@dataclass(frozen=True)
class Flag(Kind):
    """true or false."""

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise Wrong("be true or false")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Choice(Kind):
    """One member of an enum, by its value."""

    members: type[Enum]

    def read(self, value: Any) -> Enum:
        names = [str(member.value) for member in self.members]
        if not isinstance(value, str) or value not in names:
            raise Wrong(f"be {join_or(names)}{did_you_mean(value, names, show_value=False)}")
        return self.members(value)

    def schema(self) -> dict[str, Any]:
        return {"enum": [member.value for member in self.members]}

    def write(self, value: Any) -> Any:
        return value.value


@dataclass(frozen=True)
class Version(Kind):
    """The one version of a format that this program reads."""

    number: int

    def read(self, value: Any) -> int:
        if isinstance(value, bool) or value != self.number or not isinstance(value, int):
            raise Wrong(f"be {self.number}, the version of the format that this pgsim reads")
        return self.number

    def schema(self) -> dict[str, Any]:
        return {"const": self.number}


_QUANTITY = re.compile(r"([-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?) ?([A-Za-z][A-Za-z0-9/]*)")


def check_version(file: YamlFile, key: str, version: int) -> None:
    """Raise InputError unless the file is a mapping whose `key` is `version`, the format's."""
    # Before all else: a file of another version may have other keys, and its user should hear of the version.
    if not isinstance(file.data, dict):
        raise InputError(f"{file.where(())}: the file must be a mapping of keys, not {show(file.data)}")
    if key not in file.data:
        raise InputError(f"{file.where(())}: {key} must be given as the version of the format, {version}")
    try:
        Version(version).read(file.data[key])
    except Wrong as error:
        where, got = file.where((key,)), show(file.data[key])
        raise InputError(f"{where}: {key} must {error}, not {got}") from error


@dataclass(frozen=True)
class Quantity(Kind):
    """A number and its unit, as in "500 MHz". `units` maps each unit to its size in the program's unit, the first.

    A whole quantity reads as int, any other as float.
    """

    noun: str
    units: tuple[tuple[str, Fraction], ...]
    allowed: Range

    def read(self, value: Any) -> int | float:
        factors = dict(self.units)
        match = _QUANTITY.fullmatch(value) if isinstance(value, str) and len(value) <= 40 else None
        if match is None or match[2] not in factors:
            raise Wrong(f"be {self.noun} in {join_or(sorted(factors, key=factors.__getitem__))}")
        exact = Fraction(match[1]) * factors[match[2]]
        number: int | float = float(exact)
        if self.allowed.whole and exact.denominator == 1:
            number = int(exact)
        if not self.allowed.holds(number):
            raise Wrong(f"be {self.allowed}")
        return number

    def schema(self) -> dict[str, Any]:
        names = "|".join(re.escape(unit) for unit, _ in self.units)
        number = r"\+?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?"
        return {"type": "string", "pattern": f"^{number} ?({names})$"}

    def write(self, value: Any) -> Any:
        """Write in the largest unit that leaves a whole number, else in the program's unit."""
        exact = Fraction(str(value))
        for unit, factor in sorted(self.units, key=lambda item: item[1], reverse=True):
            if exact and (exact / factor).denominator == 1:
                return f"{int(exact / factor)} {unit}"
        return f"{value} {self.units[0][0]}"


@dataclass(frozen=True)
class Mapping(Kind):
    """A mapping of keys. Reading one needs the file's lines: `read_mapping` does it."""

    keys: tuple[Key, ...]

    def schema(self) -> dict[str, Any]:
        properties = {}
        for key in self.keys:
            properties[key.name] = {"description": key.about, **key.kind.schema()}
            if key.default is not REQUIRED:
                properties[key.name]["default"] = key.kind.write(key.default)
        required = [key.name for key in self.keys if key.default is REQUIRED and not key.absent]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def write(self, value: Any) -> Any:
        return {k.name: k.kind.write(value[k.name]) for k in self.keys if not (k.absent and value[k.name] is None)}


@dataclass(frozen=True)
class Rows(Kind):
    """A list of mappings, each of the same keys; at least one."""

    row: Mapping

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "minItems": 1, "items": self.row.schema()}


def read_mapping(file: YamlFile, table: Mapping, value: Any, path: KeyPath, defaulted: set[KeyPath]) -> dict[str, Any]:
    """Return the program's values of a mapping, defaults filled in; `defaulted` collects the paths that were.

    Raises InputError with file, line, key path, what it must be and what it was, for the first of: not a mapping, an
    unknown key, a missing key, a wrong value.
    """
    if not isinstance(value, dict):
        name = f"{key_path(path)} must" if path else "the file must"
        raise InputError(f"{file.where(path)}: {name} be a mapping of keys, not {show(value)}")
    known = [key.name for key in table.keys]
    for name in value:
        if name not in known:
            at = f"{key_path(path)} " if path else "the file "
            hint = did_you_mean(name, known) or f" (known: {', '.join(known)})"
            raise InputError(f"{file.where((*path, name))}: {at}must have no key {show(name)}{hint}")
    result: dict[str, Any] = {}
    for key in table.keys:
        at_path = (*path, key.name)
        if key.name in value:
            result[key.name] = _read(file, key, value[key.name], at_path, defaulted)
        elif key.default is not REQUIRED:
            result[key.name] = key.default
            defaulted.add(at_path)
        elif key.absent:
            result[key.name] = None
        else:
            raise InputError(f"{file.where(path)}: {key_path(at_path)} must be given ({key.about})")
    return result


def _read(file: YamlFile, key: Key, value: Any, path: KeyPath, defaulted: set[KeyPath]) -> Any:
    if isinstance(key.kind, Mapping):
        return read_mapping(file, key.kind, value, path, defaulted)
    if isinstance(key.kind, Rows):
        if not isinstance(value, list) or not value:
            raise InputError(f"{file.where(path)}: {key_path(path)} must be a list of mappings, not {show(value)}")
        row = key.kind.row
        return [read_mapping(file, row, item, (*path, i), defaulted) for i, item in enumerate(value)]
    try:
        return key.kind.read(value)
    except Wrong as error:
        got = _number(value) if isinstance(value, float) else show(value)
        raise InputError(f"{file.where(path)}: {key_path(path)} must {error}, not {got}") from error


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else ("nan" if math.isnan(value) else f"{value}")


def key_path(path: KeyPath) -> str:
    """Return a key path as people write it: "memory.off_chip.width", "rows[3].value"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def join_or(names: list[str]) -> str:
    """Return "a", "a or b" or "a, b or c"."""
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def did_you_mean(name: object, known: list[str], show_value: bool = True) -> str:
    """Return "; did you mean 'x'?" for the closest of `known`, or nothing; in brackets inside a sentence."""
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if not close:
        return ""
    return f"; did you mean {close[0]!r}?" if show_value else f" (did you mean {close[0]!r}?)"
