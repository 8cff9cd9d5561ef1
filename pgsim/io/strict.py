"""Read plain values of a parsed JSON or YAML document strictly: nothing is converted, nothing is ignored."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from pgsim.errors import InputError
from pgsim.workload.names import NAME_RULE, is_name

SHOWN_CHARACTERS = 60


def show(value: object) -> str:
    """Return `value` as one short printable line for an error message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 80:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):  # one of numbers is shown whole, so long as none is huge
        small = len(value) <= 8 and all(isinstance(item, int | float) and abs(item) < 1e18 for item in value)
        return f"a list of {len(value)}" if value and not small else _shorten(ascii(value))
    return _shorten(ascii(value))


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def show_path(path: str | os.PathLike[str]) -> str:
    """Return a file's path as it was given, escaped where it would not print on one line."""
    text = os.fspath(path)
    return text if text and text.isprintable() else ascii(text)


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse, with an InputError, a pipe, which would be waited for, and a device, which may never end."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise InputError(f"{show_path(path)} must be a regular file, not a device or pipe")


def refuse(where: str, what: str, must: str, got: str) -> NoReturn:
    """Raise InputError "<where>: <what> must <must>, not <got>"."""
    raise InputError(f"{where}: {what} must {must}, not {got}")


def key_twice(pairs: Sequence[tuple[str, Any]]) -> str | None:
    """Return the first key that a mapping's pairs have more than once; None where each is there once."""
    if len(dict(pairs)) == len(pairs):
        return None
    keys = [key for key, _ in pairs]
    return next(key for key in keys if keys.count(key) > 1)


class Section:
    """A mapping of a document with its key path; each getter refuses what is not exactly what it asks for.

    `where` is the file as the user named it, `path` the key path of the mapping ("" for the document itself).
    Every method raises InputError, and nothing else, for a document that is wrong.
    """

    def __init__(self, where: str, path: str, value: object, *, required: Iterable[str], optional: Iterable[str] = ()):
        if not isinstance(value, dict):
            refuse(where, path or "the document", "be a mapping", show(value))
        self.where = where
        self.path = path
        self._values: dict[str, Any] = value
        must = list(required)
        for key in must:
            if key not in value:
                raise InputError(f"{where}: {self.at(key)} must be there, not missing")
        known = {*must, *optional}
        for key in value:
            if key not in known:
                raise InputError(f"{where}: {path or 'the document'} must not have the key {show(key)}")

    def at(self, key: str) -> str:
        """Return the key path of `key`."""
        return f"{self.path}.{key}" if self.path else key

    def refuse(self, key: str, must: str) -> NoReturn:
        """Raise InputError: the value of `key` must ..., not what it is."""
        refuse(self.where, self.at(key), must, show(self._values[key]))

    def has(self, key: str) -> bool:
        """Tell whether an optional key is there."""
        return key in self._values

    def raw(self, key: str) -> Any:
        """Return the value of `key` unchecked."""
        return self._values[key]

    def integer(self, key: str, low: int, high: int) -> int:
        """Return an integer in [low, high]; a bool, a float or a string is refused."""
        value = self._values[key]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.refuse(key, f"be an integer from {low} to {high}")
        return value

    def integers(self, key: str, count: int, low: int, high: int) -> tuple[int, ...]:
        """Return `count` integers in [low, high]."""
        values = self._values[key]
        if not isinstance(values, list) or len(values) != count:
            self.refuse(key, f"be a list of {count} integers")
        for position, value in enumerate(values):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                what = f"{self.at(key)}[{position}]"
                refuse(self.where, what, f"be an integer from {low} to {high}", show(value))
        return tuple(values)

    def positive(self, key: str) -> float:
        """Return a finite number > 0; a whole number may be written without a point."""
        value = self._values[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite_positive(value):
            self.refuse(key, "be a finite number above 0")
        return float(value)

    def boolean(self, key: str) -> bool:
        """Return true or false; 0 and 1 are refused."""
        value = self._values[key]
        if not isinstance(value, bool):
            self.refuse(key, "be true or false")
        return value

    def choice(self, key: str, choices: Iterable[str]) -> str:
        """Return one of `choices`."""
        value, allowed = self._values[key], list(choices)
        if not isinstance(value, str) or value not in allowed:
            self.refuse(key, "be " + (" or ".join(allowed) if len(allowed) < 3 else "one of " + ", ".join(allowed)))
        return value

    def identifier(self, key: str) -> str:
        """Return a name: 1 to 200 printable ASCII characters without spaces, quotes or backslashes."""
        value = self._values[key]
        if not isinstance(value, str) or not is_name(value):
            self.refuse(key, f"be {NAME_RULE}")
        return value

    def section(self, key: str, *, required: Iterable[str], optional: Iterable[str] = ()) -> Section:
        """Return the mapping under `key`."""
        return Section(self.where, self.at(key), self._values[key], required=required, optional=optional)

    def items(self, key: str) -> list[tuple[str, Any]]:
        """Return the values of the list under `key`, each with its key path."""
        values = self._values[key]
        if not isinstance(values, list):
            self.refuse(key, "be a list")
        return [(f"{self.at(key)}[{position}]", value) for position, value in enumerate(values)]


def _finite_positive(value: int | float) -> bool:
    try:
        return math.isfinite(value) and float(value) > 0
    except OverflowError:
        return False
