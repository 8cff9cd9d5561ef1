"""The accelerator record checks itself, however it was made."""

import dataclasses
from typing import Any

import pytest

from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator, Buffer, GateSource, Organisation
from pgsim.hw.check import RANGES, FieldError, Range
from pgsim.io.hardware import load_accelerator


def changed(machine: Accelerator, path: str, value: object) -> Accelerator:
    """Return `machine` with one field, at most two levels down, replaced."""
    first, _, rest = path.partition(".")
    if not rest:
        return dataclasses.replace(machine, **{first: value})
    part: Any = getattr(machine, first)
    name, _, last = rest.partition(".")
    inner = dataclasses.replace(getattr(part, name), **{last: value}) if last else value
    return dataclasses.replace(machine, **{first: dataclasses.replace(part, **{name: inner})})


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("array.rows", 0, "array.rows must be a whole number from 1 to 1024, not 0"),
        ("array.rows", True, "array.rows must be a whole number from 1 to 1024, not True"),
        ("array.rows", 1.5, "array.rows must be a whole number from 1 to 1024, not 1.5"),
        ("array.act_bits", 17, "array.act_bits must be a whole number from 1 to 16, not 17"),
        ("array.psum_bits", 64, "array.psum_bits must be a whole number from 8 to 48, not 64"),
        ("update.lanes", 0, "update_array.lanes must be a whole number from 1 to 1024, not 0"),
        ("update.act_bits", 0, "update_array.act_bits must be a whole number from 1 to 16, not 0"),
        ("memory.weight", Buffer(0), "memory.weight.size must be a whole number from 1 to 8589934592 bit, not 0 bit"),
        ("memory.weight", Buffer(10, 3), "memory.weight.size must be a multiple of its 3 banks, not 10 bit"),
        (
            "memory.activation_lsb",
            None,
            "memory.activation_lsb must be given for organisation decoupled, not missing",
        ),
        (
            "memory.off_chip.width_bits",
            -1,
            "memory.off_chip.width must be a whole number from 1 to 65536 bit, not -1 bit",
        ),
        ("clock_mhz", float("nan"), "clock must be a number from 0.001 to 20000 MHz, not nan MHz"),
        ("clock_mhz", float("inf"), "clock must be a number from 0.001 to 20000 MHz, not inf MHz"),
        ("clock_mhz", "500", "clock must be a number from 0.001 to 20000 MHz, not '500'"),
        ("voltage_v", 12.0, "technology.voltage must be a number from 0.3 to 3.3 V, not 12.0 V"),
        ("batch", 0, "batch must be a whole number from 1 to 65536, not 0"),
        ("update", None, "update_array must be given for organisation decoupled, not missing"),
        (
            "organisation",
            Organisation.TWO_PASS,
            "update_array must be left out for organisation two_pass; only decoupled has it",
        ),
    ],
)
def test_a_field_out_of_range_is_refused_in_these_words(path: str, value: object, expected: str) -> None:
    machine = load_accelerator("predictivenet")
    with pytest.raises(InputError) as caught:
        changed(machine, path, value)
    assert str(caught.value) == expected
    assert isinstance(caught.value, FieldError)
    assert expected.startswith(caught.value.key)


FIELD_OF = {
    "clock": "clock_mhz",
    "technology.node": "node_nm",
    "technology.voltage": "voltage_v",
    "memory.off_chip.width": "memory.off_chip.width_bits",
    "memory.off_chip.latency": "memory.off_chip.latency_cycles",
}


@pytest.mark.parametrize("key", RANGES)
def test_the_record_holds_every_field_to_its_range(key: str) -> None:
    path = FIELD_OF.get(key, key.replace("update_array", "update").replace(".size", ".size_bits"))
    for value in (RANGES[key].low - 1, RANGES[key].high + 1):
        with pytest.raises(FieldError) as caught:
            changed(load_accelerator("predictivenet"), path, value)
        assert caught.value.key == key


def test_an_array_has_no_more_lanes_than_any_chip() -> None:
    machine = load_accelerator("predictivenet")
    with pytest.raises(InputError, match=r"^array must have at most 1048576 multipliers in all, not 2097152$"):
        dataclasses.replace(machine.array, rows=1024, columns=1024, multipliers=2)
    update = dataclasses.replace(machine.update, groups=256, lanes=1024)
    with pytest.raises(InputError, match=r"^update_array must have at most 1048576 multipliers in all, not 2097152$"):
        dataclasses.replace(machine, update=update)


@pytest.mark.parametrize("name", ["dense_int8", "gated_fused", "fracbnn_two_pass"])
def test_only_decoupled_is_cooperative(name: str) -> None:
    machine = load_accelerator(name)
    with pytest.raises(InputError, match=r"^cooperative must be false for organisation \w+; only decoupled has it$"):
        dataclasses.replace(machine, cooperative=True)


def test_zero_prediction_is_for_machines_with_a_gate() -> None:
    for name in ("gated_fused", "fracbnn_two_pass"):
        gate = GateSource.ZERO_PREDICTION
        assert dataclasses.replace(load_accelerator(name), gate=gate).gate is gate


@pytest.mark.parametrize("key", RANGES)
def test_a_range_holds_its_ends_and_nothing_beyond(key: str) -> None:
    allowed = RANGES[key]
    assert allowed.holds(allowed.low)
    assert allowed.holds(allowed.high)
    assert not allowed.holds(allowed.low - 1)
    assert not allowed.holds(allowed.high + 1)
    assert not allowed.holds("1")
    assert not allowed.holds(True)


def test_a_range_says_what_it_is() -> None:
    assert str(Range(1, 4, "bit")) == "a whole number from 1 to 4 bit"
    assert str(Range(0.5, 4, whole=False)) == "a number from 0.5 to 4"
