"""Number formats: code ranges, and what they refuse."""

import numpy as np
import pytest

from pgsim.arith.formats import Encoding, NumberFormat, check_codes
from pgsim.errors import InputError

# (encoding, bits) -> smallest code, largest code, bits in a memory; from the definitions in docs/trace-format.md.
RANGES = [
    (Encoding.UNSIGNED, 1, 0, 1, 1),
    (Encoding.UNSIGNED, 3, 0, 7, 3),
    (Encoding.UNSIGNED, 16, 0, 65535, 16),
    (Encoding.SIGN_MAGNITUDE, 1, -1, 1, 2),
    (Encoding.SIGN_MAGNITUDE, 8, -255, 255, 9),
    (Encoding.TWOS_COMPLEMENT, 1, -1, 0, 1),
    (Encoding.TWOS_COMPLEMENT, 8, -128, 127, 8),
    (Encoding.TWOS_COMPLEMENT, 16, -32768, 32767, 16),
]


@pytest.mark.parametrize(("encoding", "bits", "low", "high", "storage"), RANGES)
def test_a_format_has_the_range_of_its_definition(
    encoding: Encoding, bits: int, low: int, high: int, storage: int
) -> None:
    number_format = NumberFormat(encoding, bits)
    assert (number_format.min_code, number_format.max_code, number_format.storage_bits) == (low, high, storage)


@pytest.mark.parametrize("bits", [-1, 0, 17])
def test_a_format_of_an_impossible_width_is_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=rf"bits must be 1 \.\. 16, not {bits}"):
        NumberFormat(Encoding.UNSIGNED, bits)


@pytest.mark.parametrize(("encoding", "bits", "low", "high", "storage"), RANGES)
def test_codes_are_accepted_up_to_their_format_s_ends_and_no_further(
    encoding: Encoding, bits: int, low: int, high: int, storage: int
) -> None:
    number_format = NumberFormat(encoding, bits)
    check_codes(np.array([low, high, 0]), number_format, "x")
    for code in (low - 1, high + 1):
        with pytest.raises(InputError, match=rf"^conv1 must hold .* codes, {low} \.\. {high}, not {code}$"):
            check_codes(np.array([0, code]), number_format, "conv1")


def test_no_codes_are_fine_and_floats_are_not() -> None:
    check_codes(np.zeros((0, 3), np.int8), NumberFormat(Encoding.UNSIGNED, 3), "x")
    with pytest.raises(TypeError, match="x must be an integer array, not float64"):
        check_codes(np.zeros(3), NumberFormat(Encoding.UNSIGNED, 3), "x")
