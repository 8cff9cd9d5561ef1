"""Number formats of codes, and what the gate does with an output that it leaves alone. Formats are data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from numpy.typing import NDArray

from pgsim.errors import InputError

MAX_BITS = 16  # widest code of any format; the integer kernels rely on it


class Encoding(Enum):
    """How a code's bits are read, for activations and weights alike."""

    UNSIGNED = "unsigned"  # q in [0, 2^B - 1]
    SIGN_MAGNITUDE = "sign_magnitude"  # q in [-(2^B - 1), 2^B - 1]: a sign beside B magnitude bits
    TWOS_COMPLEMENT = "twos_complement"  # q in [-2^(B-1), 2^(B-1) - 1]


class GatePolicy(Enum):
    """What becomes of an output that the gate does not update."""

    KEEP = "keep"  # A = A_h << l: the prediction stands (Precision Gating, equation 3)
    ZERO = "zero"  # A = 0: the zero-prediction policy of PredictiveNet and of Fix-Threshold


class Overflow(Enum):
    """What an accumulator does with a value that psum_bits cannot hold."""

    ERROR = "error"  # the layer is refused: OverflowDetected names layer, channel, value and the width needed
    SATURATE = "saturate"  # after every step the value moves to the nearest that psum_bits holds
    WRAP = "wrap"  # after every step the bits above psum_bits are dropped: the value modulo 2^psum_bits, signed


def check_member(name: str, value: object, kind: type[Enum]) -> None:
    """Raise TypeError unless `value` is a member of the enum `kind`; a member's word, a string, is none."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be one of {', '.join(map(str, kind))}, not {value!r}")


def check_integer(name: str, value: object) -> None:
    """Raise TypeError unless `value` is an int; a bool and 4.0 are none."""
    if type(value) is not int:
        raise TypeError(f"{name} must be an integer, not {value!r}")


@dataclass(frozen=True)
class NumberFormat:
    """Width and encoding of a tensor of codes. `bits`, 1 .. 16, counts magnitude bits for sign_magnitude.

    Raises ValueError for another width, TypeError for one that is no int and for an encoding that is no Encoding.
    """

    encoding: Encoding
    bits: int

    def __post_init__(self) -> None:
        check_member("encoding", self.encoding, Encoding)
        check_integer("bits", self.bits)
        if not 1 <= self.bits <= MAX_BITS:
            raise ValueError(f"bits must be 1 .. {MAX_BITS}, not {self.bits}")

    @property
    def min_code(self) -> int:
        """Smallest code of the format."""
        if self.encoding is Encoding.UNSIGNED:
            return 0
        if self.encoding is Encoding.SIGN_MAGNITUDE:
            return -(2**self.bits - 1)
        return int(-(2 ** (self.bits - 1)))

    @property
    def max_code(self) -> int:
        """Largest code of the format."""
        if self.encoding is Encoding.TWOS_COMPLEMENT:
            return int(2 ** (self.bits - 1) - 1)
        return int(2**self.bits - 1)

    @property
    def storage_bits(self) -> int:
        """Bits that one code takes in a memory: the sign of sign_magnitude is a bit of its own."""
        return self.bits + (self.encoding is Encoding.SIGN_MAGNITUDE)


def check_codes(codes: NDArray[Any], number_format: NumberFormat, where: str) -> None:
    """Refuse codes outside their format.

    An empty array passes. `codes` is an integer array of any shape; `where` names it in the error.
    Raises TypeError for an array that is not of integers, InputError for a code out of range.
    """
    if codes.dtype.kind not in "iu":
        raise TypeError(f"{where} must be an integer array, not {codes.dtype}")
    if codes.size == 0:
        return
    low, high = number_format.min_code, number_format.max_code
    for code in (int(codes.min()), int(codes.max())):
        if not low <= code <= high:
            name = f"{number_format.bits}-bit {number_format.encoding.value}"
            raise InputError(f"{where} must hold {name} codes, {low} .. {high}, not {code}")
