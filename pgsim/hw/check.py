"""Ranges of the accelerator's fields, held once: the record checks itself with them, the file's schema states them.

A field is named by its key path in the hardware file. Knows no file: what is refused here names the key alone,
and the loader puts file and line before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgsim.errors import InputError


class FieldError(InputError):
    """A field that is not what it must be. `key` is its key path, `problem` the rest of the sentence."""

    def __init__(self, key: str, problem: str):
        super().__init__(f"{key} {problem}")
        self.key = key
        self.problem = problem


@dataclass(frozen=True)
class Range:
    """The values from `low` to `high`, both allowed, in `unit`; `whole` allows integers only."""

    low: float
    high: float
    unit: str = ""
    whole: bool = True

    def __str__(self) -> str:
        """Return the range as an error states it: "a whole number from 1 to 1024"."""
        unit = f" {self.unit}" if self.unit else ""
        noun = "a whole number" if self.whole else "a number"
        return f"{noun} from {self.low:.15g} to {self.high:.15g}{unit}"

    def holds(self, value: object) -> bool:
        """Tell whether `value` is a number of the right kind within the range; a bool is no number."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        return self.low <= value <= self.high  # false for nan and the infinities


BYTE_BITS = 8
KIB_BITS = 1024 * BYTE_BITS
GIB_BITS = 1024 * 1024 * KIB_BITS
MAX_LANES = 1 << 20  # multipliers of one array; far beyond any chip that the model means

SIZE = Range(1, GIB_BITS, "bit")
BANKS = Range(1, 1024)
PORTS = Range(1, 8)

RANGES: dict[str, Range] = {
    "clock": Range(0.001, 20_000, "MHz", whole=False),
    "technology.node": Range(3, 250, "nm"),
    "technology.voltage": Range(0.3, 3.3, "V", whole=False),
    "array.rows": Range(1, 1024),
    "array.columns": Range(1, 1024),
    "array.multipliers": Range(1, 1024),
    "array.act_bits": Range(1, 16),
    "array.weight_bits": Range(1, 17),  # 17: a 16-bit sign-magnitude weight in two's complement
    "array.psum_bits": Range(8, 48),
    "update_array.groups": Range(1, 256),
    "update_array.lanes": Range(1, 1024),
    "update_array.act_bits": Range(1, 16),
    "update_array.queue_depth": Range(1, 65_536),
    "memory.activation.size": SIZE,
    "memory.activation.banks": BANKS,
    "memory.activation.ports": PORTS,
    "memory.activation_lsb.size": SIZE,
    "memory.activation_lsb.banks": BANKS,
    "memory.activation_lsb.ports": PORTS,
    "memory.weight.size": SIZE,
    "memory.weight.banks": BANKS,
    "memory.weight.ports": PORTS,
    "memory.weight.row_steps": Range(1, 16),
    "memory.output.size": SIZE,
    "memory.output.banks": BANKS,
    "memory.off_chip.width": Range(1, 65_536, "bit"),
    "memory.off_chip.latency": Range(0, 1_000_000, "cycles"),
    "batch": Range(1, 65_536),
}

DECOUPLED_ONLY = ("update_array", "memory.activation_lsb")  # there in a decoupled file, absent from any other


def check_range(key: str, value: object) -> None:
    """Raise FieldError where `value` is outside the range of `key`."""
    allowed = RANGES[key]
    if not allowed.holds(value):
        unit = f" {allowed.unit}" if allowed.unit and isinstance(value, int | float) else ""
        raise FieldError(key, f"must be {allowed}, not {value!r}{unit}")


def check_lanes(key: str, lanes: int) -> None:
    """Raise FieldError where an array has more than MAX_LANES multipliers."""
    if lanes > MAX_LANES:
        raise FieldError(key, f"must have at most {MAX_LANES} multipliers in all, not {lanes}")
