"""Read Liberty text, the format of cell libraries, as nested groups. Knows no meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pgsim.errors import InputError

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([{}();:,])|([^\s{}();:,"]+)', re.DOTALL)
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_CELL = re.compile(r'^[ \t]*cell\s*\(\s*"?([^")\s]+)"?\s*\)\s*\{', re.MULTILINE)


@dataclass
class Group:
    """`kind (names) { ... }`: its attributes (the last of a name counts) and the groups inside, in order."""

    kind: str
    names: tuple[str, ...] = ()
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

    def text(self, name: str, default: str = "") -> str:
        """Return a simple attribute's value."""
        return self.attributes.get(name, (default,))[0]

    def number(self, name: str, default: float = 0.0) -> float:
        """Return a simple attribute's value as a number."""
        return float(self.text(name, str(default)))

    def all(self, kind: str) -> list[Group]:
        """Return the groups of a kind inside, in order."""
        return [group for group in self.groups if group.kind == kind]


def split_cells(text: str) -> tuple[str, dict[str, str]]:
    """Return a library's text without its cells, and each cell's own text: libraries are large, few cells are used."""
    text = _COMMENT.sub("", text)
    rest, cells, at = [], {}, 0
    for match in _CELL.finditer(text):
        if match.start() < at:
            raise InputError(f"cell {match[1]} of the library must not stand inside another cell")
        end = _closing(text, match.end(), match[1])
        rest.append(text[at : match.start()])
        cells[match[1]] = text[match.start() : end]
        at = end
    return "".join([*rest, text[at:]]), cells


def parse_group(text: str) -> Group:
    """Return the one group that `text` holds. Raises InputError where it is no Liberty text."""
    tokens = [_token(match) for match in _TOKEN.finditer(_COMMENT.sub("", text).replace("\\\n", " "))]
    outer = Group("")
    position = _statements(tokens, 0, outer, top=True)
    if position != len(tokens) or len(outer.groups) != 1:
        raise InputError(f"Liberty text must hold one group, not {len(outer.groups)}")
    return outer.groups[0]


_Token = tuple[str, bool]  # text, and whether it is a mark of the grammar


def _token(match: re.Match[str]) -> _Token:
    quoted, mark, word = match.groups()
    return (mark, True) if mark else (quoted if quoted is not None else word, False)


def _closing(text: str, start: int, name: str) -> int:
    depth = 1
    for match in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.end()
    raise InputError(f"cell {name} of the library must end with a brace, not with the file")


def _statements(tokens: list[_Token], at: int, group: Group, top: bool = False) -> int:
    """Read statements into `group` up to its brace; return the position after it."""
    while at < len(tokens):
        text, mark = tokens[at]
        if mark and text == "}" and not top:
            return at + 1
        if mark and text == ";":
            at += 1
            continue
        if mark:
            raise InputError(f"Liberty statement must begin with a name, not {text!r}")
        at = _statement(tokens, at, group)
    if not top:
        raise InputError(f"Liberty group {group.kind} must end with a brace, not with the file")
    return at


def _statement(tokens: list[_Token], at: int, group: Group) -> int:
    name, after = tokens[at][0], tokens[at + 1] if at + 1 < len(tokens) else ("", True)
    if after == (":", True):
        if at + 2 >= len(tokens):
            raise InputError(f"Liberty attribute {name} must have a value")
        group.attributes[name] = (tokens[at + 2][0],)
        return at + 3
    if after != ("(", True):
        raise InputError(f"Liberty name {name} must be followed by : or (, not {after[0]!r}")
    close = next((i for i in range(at + 2, len(tokens)) if tokens[i] == (")", True)), None)
    if close is None:
        raise InputError(f"Liberty name {name} must have its closing parenthesis")
    arguments = tuple(_arguments(tokens[at + 2 : close]))
    if close + 1 < len(tokens) and tokens[close + 1] == ("{", True):
        inner = Group(name, arguments)
        group.groups.append(inner)
        return _statements(tokens, close + 2, inner)
    group.attributes[name] = arguments
    return close + 1


def _arguments(tokens: list[_Token]) -> Iterator[str]:
    return (text for text, mark in tokens if not mark)
