"""Evaluate the Boolean expressions of cell libraries: `function`, `when`, `next_state`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pgsim.errors import InputError

_TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_\[\]]*|[01]|[!~'^&*|+()])")


def variables(expression: str) -> set[str]:
    """Return the names that an expression reads."""
    return {token for token in _tokens(expression) if token[0].isalpha() or token[0] == "_"}


def evaluate(expression: str, values: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Return the expression's value: ! ~ and a trailing ' negate; then ^; then & * or nothing; then | +.

    `values` are arrays of one shape. Raises InputError for an expression that is none, or reads an unknown name.
    """
    reader = _Reader(_tokens(expression), values, expression)
    result = reader.either()
    if reader.at != len(reader.tokens):
        raise InputError(f"Boolean expression {expression!r} must end after {' '.join(reader.tokens[: reader.at])}")
    return result


def truth_table(expression: str, names: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return the expression's value for all 2^n values of `names`; bit i of the index is names[i]."""
    index = np.arange(2 ** len(names))
    return evaluate(expression, {name: (index >> bit & 1).astype(bool) for bit, name in enumerate(names)})


def _tokens(expression: str) -> list[str]:
    tokens, at, text = [], 0, expression.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise InputError(f"Boolean expression {expression!r} must not hold {text[at:].strip()[0]!r}")
        tokens.append(match[1])
        at = match.end()
    return tokens


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, tokens: list[str], values: Mapping[str, NDArray[np.bool_]], expression: str):
        self.tokens, self.values, self.expression, self.at = tokens, values, expression, 0

    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def either(self) -> NDArray[np.bool_]:
        result = self.both()
        while self.next() in ("|", "+"):
            self.at += 1
            result = result | self.both()
        return result

    def both(self) -> NDArray[np.bool_]:
        result = self.odd()
        while self.next() and self.next() not in ("|", "+", ")", "^"):
            if self.next() in ("&", "*"):
                self.at += 1
            result = result & self.odd()
        return result

    def odd(self) -> NDArray[np.bool_]:
        result = self.single()
        while self.next() == "^":
            self.at += 1
            result = result ^ self.single()
        return result

    def single(self) -> NDArray[np.bool_]:
        token = self.next()
        self.at += 1
        if token in ("!", "~"):
            result = ~self.single()
        elif token == "(":
            result = self.either()
            if self.next() != ")":
                raise InputError(f"Boolean expression {self.expression!r} must close its parenthesis")
            self.at += 1
        elif token in ("0", "1"):
            some = next(iter(self.values.values()), np.zeros(1, bool))
            result = np.full(some.shape, token == "1")
        elif token in self.values:
            result = self.values[token]
        else:
            raise InputError(f"Boolean expression {self.expression!r} must read a known name, not {token!r}")
        while self.next() == "'":
            self.at += 1
            result = ~result
        return result
