"""Names for choices of arithmetic, as the command line and result files write them: `multiply-8+shortcut-12`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from pgsim.arith.formats import GatePolicy, Overflow
from pgsim.arith.overflow import MAX_PSUM_BITS, Accumulator
from pgsim.errors import InputError
from pgsim.workload.arithmetic import Arithmetic, Rounding, Shortcut
from pgsim.workload.arithmetic_forms import FORMS

MAX_BITS = 32


def parse_arithmetic(name: str, word: int) -> Arithmetic:
    """Return the arithmetic of a name; `word` is the input channels that a step of an accumulator adds.

    Raises InputError for a part that there is not, a width out of range, or two parts that say the same thing.
    """
    chosen: dict[str, Any] = {}
    for part in name.split("+"):
        for field, value in _part(part, name, word).items():
            if field in chosen and (field != "rounding" or chosen[field] != value):
                raise InputError(f"option {name!r} must say {field} once, not twice")
            chosen[field] = value
    return Arithmetic(**chosen)


def describe(arithmetic: Arithmetic) -> dict[str, Any]:
    """Return what differs from the exact arithmetic as plain values, for a result file."""
    plain: dict[str, Any] = {}
    for field in fields(arithmetic):
        value = getattr(arithmetic, field.name)
        if value == field.default:
            continue
        if isinstance(value, Accumulator):
            plain |= {"psum_bits": value.psum_bits, "word": value.word, "overflow": value.overflow.value}
        else:
            plain[field.name] = getattr(value, "value", value)
    return plain


def _part(part: str, name: str, word: int) -> dict[str, Any]:
    if part == "zero":
        return {"policy": GatePolicy.ZERO}
    if part == "shortcut-codes":
        return {"shortcut": Shortcut.CODES}
    found = re.fullmatch(r"(multiply|truncate|shortcut|thresholds|saturate|wrap)-([0-9]{1,3})(-blocks|-stream)?", part)
    if not found or (found[3] and found[1] not in ("multiply", "truncate")):
        raise InputError(f"option {name!r} must be of {', '.join(FORMS)}, joined by +, not hold {part!r}")
    bits, where = int(found[2]), found[3] or ""
    most = MAX_PSUM_BITS if found[1] in ("saturate", "wrap") else MAX_BITS
    if not 2 <= bits <= most:
        raise InputError(f"option {name!r} must have 2 .. {most} bits, not {bits}")

    def multiply(rounding: Rounding) -> dict[str, Any]:
        fields = {"-blocks": ["block_bits"], "-stream": ["stream_bits"], "": ["block_bits", "stream_bits"]}[where]
        return {**dict.fromkeys(fields, bits), "rounding": rounding}

    forms: dict[str, Callable[[], dict[str, Any]]] = {
        "multiply": lambda: multiply(Rounding.HALF_UP),
        "truncate": lambda: multiply(Rounding.TRUNCATE),
        "shortcut": lambda: {"shortcut": bits},
        "thresholds": lambda: {"threshold_bits": bits},
        "saturate": lambda: {"accumulator": Accumulator(bits, word, Overflow.SATURATE)},
        "wrap": lambda: {"accumulator": Accumulator(bits, word, Overflow.WRAP)},
    }
    return forms[found[1]]()
