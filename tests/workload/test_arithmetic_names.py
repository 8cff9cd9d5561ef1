"""Names of arithmetics: each part sets its own fields, parts join, and nothing is said twice."""

from __future__ import annotations

import pytest

from pgsim.arith.formats import GatePolicy, Overflow
from pgsim.arith.overflow import Accumulator
from pgsim.errors import InputError
from pgsim.workload.arithmetic import Arithmetic, Rounding, Shortcut
from pgsim.workload.arithmetic_forms import USUAL
from pgsim.workload.arithmetic_names import describe, parse_arithmetic

NAMES = {
    "multiply-8": Arithmetic(block_bits=8, stream_bits=8),
    "truncate-12": Arithmetic(block_bits=12, stream_bits=12, rounding=Rounding.TRUNCATE),
    "multiply-8-blocks": Arithmetic(block_bits=8),
    "truncate-8-stream": Arithmetic(stream_bits=8, rounding=Rounding.TRUNCATE),
    "multiply-8-blocks+multiply-16-stream": Arithmetic(block_bits=8, stream_bits=16),
    "shortcut-12": Arithmetic(shortcut=12),
    "shortcut-codes": Arithmetic(shortcut=Shortcut.CODES),
    "thresholds-8": Arithmetic(threshold_bits=8),
    "saturate-20": Arithmetic(accumulator=Accumulator(20, 4, Overflow.SATURATE)),
    "wrap-16+zero": Arithmetic(policy=GatePolicy.ZERO, accumulator=Accumulator(16, 4, Overflow.WRAP)),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_its_arithmetic(name: str) -> None:
    assert parse_arithmetic(name, 4) == NAMES[name]


def test_the_usual_options_differ_from_one_another_and_from_the_exact_one() -> None:
    found = [parse_arithmetic(name, 8) for name in USUAL]
    assert len({str(x) for x in [*found, Arithmetic()]}) == len(USUAL) + 1


def test_a_description_holds_what_differs_and_no_more() -> None:
    assert describe(Arithmetic()) == {}
    assert describe(parse_arithmetic("truncate-8-stream+shortcut-codes+zero+wrap-16", 4)) == {
        "stream_bits": 8, "rounding": "truncate", "shortcut": "codes", "policy": "zero", "psum_bits": 16, "word": 4,
        "overflow": "wrap",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "option '' must be of multiply-M, truncate-M, "),
        ("multiply", "joined by +, not hold 'multiply'"),
        ("zero+", "joined by +, not hold ''"),
        ("shortcut-8-blocks", "joined by +, not hold 'shortcut-8-blocks'"),
        ("multiply-1", "option 'multiply-1' must have 2 .. 32 bits, not 1"),
        ("thresholds-33", "option 'thresholds-33' must have 2 .. 32 bits, not 33"),
        ("wrap-49", "option 'wrap-49' must have 2 .. 48 bits, not 49"),
        ("multiply-8+multiply-9-stream", "option 'multiply-8+multiply-9-stream' must say stream_bits once, not twice"),
        ("shortcut-8+shortcut-8", "option 'shortcut-8+shortcut-8' must say shortcut once, not twice"),
        ("multiply-8-blocks+truncate-8-stream", "must say rounding once, not twice"),
        ("saturate-8+wrap-8", "must say accumulator once, not twice"),
    ],
)
def test_another_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_arithmetic(name, 8)
    assert message in str(caught.value)
