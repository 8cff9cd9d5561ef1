"""Read a YAML file as plain data and the line of each key. What YAML leaves to guessing is refused.

PyYAML takes the last of two equal keys, reads `no` as False, `010` as 8 and `1e-9` as text; here equal keys are
refused, `no` is text, `010` is refused and `1e-9` is a number. Anchors, aliases, merge keys, tags and further
documents are refused: a file says what it says, once.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from pgsim.errors import InputError
from pgsim.io.strict import show, show_path

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_DIGITS = 18

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_OTHER_RADIX = re.compile(r"[-+]?(0[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|0b[01]+)")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlFile:
    """A file's plain data: mappings, lists, text, bool, int, float and None. `lines` counts from 1."""

    shown: str  # the path as an error prints it
    data: Any
    lines: dict[KeyPath, int]

    def where(self, path: KeyPath) -> str:
        """Return "file:line" of the key path, or of the nearest mapping around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.shown}:{self.lines.get(path, 1)}"


def read_yaml(path: str | os.PathLike[str], what: str) -> YamlFile:
    """Read the file at `path`; `what` names it in errors ("hardware file").

    An empty file is refused. Raises InputError, and nothing else, for a file that is missing, unreadable, longer than
    1 MiB, not UTF-8, or not one YAML document of plain values.
    """
    shown = show_path(path)
    return plain_yaml(yaml_text(path, what), shown, what)


def plain_yaml(text: str, shown: str, what: str) -> YamlFile:
    """Return the plain data of one YAML document; `shown` and `what` name it in errors, as in `read_yaml`."""
    try:
        node = _Loader(text, shown).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{shown}:{line}: the {what} must be valid YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"the {what} must have no control characters, not U+{ord(text[error.position]):04X}"
        raise InputError(f"{shown}:{line}: {problem}") from error
    if node is None:
        raise InputError(f"{shown}: the {what} must hold keys, not nothing")
    lines: dict[KeyPath, int] = {}
    return YamlFile(shown, _plain(node, (), lines, shown), lines)


def yaml_text(file: str | os.PathLike[str], what: str) -> str:
    """Return a file's text; raises InputError, and nothing else, as `read_yaml` does."""
    path, shown = Path(file), show_path(file)
    if path.is_dir():
        raise InputError(f"{shown}: the {what} must be a file, not a folder")
    if not path.exists():
        raise InputError(f"{shown}: the {what} must be there, not missing")
    if not path.is_file():
        raise InputError(f"{shown}: the {what} must be a regular file, not a device or pipe")
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{shown}: the {what} must be readable, not refused: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"{shown}: the {what} must have at most {MAX_BYTES} bytes, not {path.stat().st_size}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{raw[error.start]:02X}"
        raise InputError(f"{shown}:{line}: the {what} must be UTF-8 text, not {byte}") from error


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses anchors, aliases, tags and deep nesting before they are built."""

    def __init__(self, text: str, shown: str):
        super().__init__(text)
        self.shown = shown
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self.refuse(event, "aliases", f"*{event.anchor}")
        if getattr(event, "anchor", None):
            self.refuse(event, "anchors", f"&{event.anchor}")
        if getattr(event, "tag", None):
            self.refuse(event, "tags", event.tag)
        if self.depth >= MAX_DEPTH:
            self.refuse(event, f"more than {MAX_DEPTH} levels", "deeper nesting")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def refuse(self, event: yaml.Event, what: str, got: str) -> NoReturn:
        line = event.start_mark.line + 1 if event.start_mark else 1
        raise InputError(f"{self.shown}:{line}: the file must have no {what}, not {got}")


def _plain(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], shown: str) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, position), lines, shown) for position, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, shown)
    assert isinstance(node, yaml.MappingNode)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = _scalar(key_node, shown) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise InputError(f"{shown}:{line}: a key must be text, not {_key_words(key_node)}")
        if key in values:
            first = lines[(*path, key)]
            name = ".".join(map(str, (*path, key)))
            raise InputError(f"{shown}:{line}: {name} must be given once, not again (first in line {first})")
        lines[(*path, key)] = line
        values[key] = _plain(value_node, (*path, key), lines, shown)
    return values


def _key_words(node: yaml.Node) -> str:
    return show(node.value) if isinstance(node, yaml.ScalarNode) else "a list or a mapping"


def _scalar(node: yaml.ScalarNode, shown: str) -> Any:
    text: str = node.value
    if node.style is not None:  # quoted or a block: text, whatever it looks like
        return text
    if text in _WORDS:
        return _WORDS[text]
    where = f"{shown}:{node.start_mark.line + 1}"
    if _OTHER_RADIX.fullmatch(text):
        problem = "a number must be decimal without leading zeros (or quoted, where it is text)"
        raise InputError(f"{where}: {problem}, not {text[:40]}")
    if _INTEGER.fullmatch(text):
        if len(text.lstrip("+-")) > MAX_DIGITS:
            raise InputError(f"{where}: a number must have at most {MAX_DIGITS} digits, not {len(text.lstrip('+-'))}")
        return int(text)
    if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".nan", "nan")
                     .replace(".NaN", "nan").replace(".NAN", "nan"))  # fmt: skip
    return text
