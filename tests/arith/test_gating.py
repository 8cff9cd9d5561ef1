"""The gating rule: thresholds as exact rationals, masks at ties, registers at their ends."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsim.arith.formats import GatePolicy
from pgsim.arith.gating import (
    INT64_MAX,
    INT64_MIN,
    clamped_int64,
    gated_output,
    gating_mask,
    integer_threshold,
    integer_thresholds,
    threshold_register,
)
from pgsim.errors import InputError

scales = st.floats(2**-60, 2**20)


@given(st.floats(-1e9, 1e9), scales, scales, st.integers(0, 8), st.integers(-2, 2))
def test_the_integer_comparison_is_the_real_one(
    delta: float, act_scale: float, weight_scale: float, update_bits: int, offset: int
) -> None:
    threshold = integer_threshold(delta, act_scale, weight_scale, update_bits)
    a_h = threshold + offset
    real = Fraction(a_h) * 2**update_bits * Fraction(act_scale) * Fraction(weight_scale)
    assert (a_h > threshold) == (real > Fraction(delta))


@pytest.mark.parametrize(
    ("delta", "act_scale", "weight_scale", "update_bits", "threshold"),
    [
        (0.0, 0.1, 0.3, 2, 0),
        (3.0, 0.5, 0.5, 2, 3),  # k * 2^l = 1: a tie is not above its threshold
        (2.999, 0.5, 0.5, 2, 2),
        (-0.001, 0.5, 0.5, 2, -1),  # toward -inf, not toward zero
        (-3.0, 0.5, 0.5, 2, -3),
        (1.0, 0.1, 1.0, 0, 9),  # float64 0.1 is above a tenth: 1 / 0.1 is below 10, though it rounds to 10.0
        (-1.0, 0.1, 1.0, 0, -10),
        (1e300, 1e-300, 1e-300, 0, None),  # far beyond int64 and even float64
    ],
)
def test_thresholds_worked_by_hand(
    delta: float, act_scale: float, weight_scale: float, update_bits: int, threshold: int | None
) -> None:
    got = integer_threshold(delta, act_scale, weight_scale, update_bits)
    assert got == threshold if threshold is not None else got > 10**890


def test_thresholds_of_a_layer_take_one_scale_or_one_a_channel() -> None:
    delta = np.array([3.0, -0.5, np.inf, -np.inf, 1e300])
    one = integer_thresholds(delta, 0.5, np.array([0.5]), 1)
    each = integer_thresholds(delta, 0.5, np.array([0.5, 1.0, 0.5, 0.5, 0.5]), 1)
    assert one.dtype == each.dtype == np.int64
    assert one.tolist() == [6, -1, INT64_MAX, INT64_MIN, INT64_MAX]
    assert each.tolist() == [6, -1, INT64_MAX, INT64_MIN, INT64_MAX]
    assert integer_thresholds(np.array([3.0, 3.0]), 0.5, np.array([0.5, 1.0]), 1).tolist() == [6, 3]


@pytest.mark.parametrize(
    ("delta", "act_scale", "weight_scale", "update_bits", "message"),
    [
        (float("nan"), 1.0, 1.0, 0, "delta must be finite, not nan"),
        (float("inf"), 1.0, 1.0, 0, "delta must be finite, not inf"),
        (0.0, 0.0, 1.0, 0, "act_scale must be finite and > 0, not 0.0"),
        (0.0, 1.0, -1.0, 0, "weight_scale must be finite and > 0, not -1.0"),
        (0.0, 1.0, float("inf"), 0, "weight_scale must be finite and > 0, not inf"),
        (0.0, 1.0, 1.0, -1, "update_bits must be >= 0, not -1"),
    ],
)
def test_a_threshold_of_no_real_meaning_is_refused(
    delta: float, act_scale: float, weight_scale: float, update_bits: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        integer_threshold(delta, act_scale, weight_scale, update_bits)


def test_not_a_number_is_refused_for_a_layer_too() -> None:
    with pytest.raises(ValueError, match="delta must be finite, not nan"):
        integer_thresholds(np.array([0.0, np.nan]), 1.0, np.array([1.0]), 0)


def test_whole_numbers_beyond_int64_become_the_nearest_there_is() -> None:
    real = np.array([-np.inf, -1e300, -(2.0**63), -3.0, 0.0, 2.0**62, 2.0**63, 1e20, np.inf])
    least, most = -(2**63), 2**63 - 1
    wanted = np.array([least, least, least, -3, 0, 2**62, most, most, most], np.int64)
    found = clamped_int64(real)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, wanted)


def test_a_register_takes_a_threshold_where_no_reachable_sum_changes_side() -> None:
    psum_bits = 3  # a register of -8 .. 7
    for threshold in range(-13, 13):
        for low in range(-12, 12):
            for high in range(low, 12):
                stored = min(max(threshold, -8), 7)
                legal = all((a_h > threshold) == (a_h > stored) for a_h in range(low, high + 1))
                if legal:
                    assert threshold_register(threshold, psum_bits, low, high) == stored
                else:
                    with pytest.raises(InputError, match=r"threshold must fit 4 bits, -8 \.\. 7, not "):
                        threshold_register(threshold, psum_bits, low, high)


def test_the_register_s_ends_mean_all_and_none_of_the_sums_that_fit() -> None:
    low, high = -(2**23), 2**23 - 1
    assert threshold_register(INT64_MIN, 24, low, high) == -(2**24) < low
    assert threshold_register(INT64_MAX, 24, low, high) == 2**24 - 1 > high
    with pytest.raises(InputError, match=r"not 16777217: A_h = 16777216 is reachable and would change side$"):
        threshold_register(2**24 + 1, 24, low, 2**24)


def test_a_mask_is_strict_at_ties_and_signed() -> None:
    a_h = np.array([-6, -5, -4, -1, 0, 1, 4, 5, 6, INT64_MAX], np.int64).reshape(1, 1, 1, 10).repeat(5, axis=1)
    mask = gating_mask(a_h, np.array([-5, 0, 5, INT64_MIN, INT64_MAX], np.int64))
    assert mask.dtype == np.bool_
    assert mask[0, :, 0].astype(int).tolist() == [
        [0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
        [1] * 10,
        [0] * 10,
    ]


def test_an_output_that_is_not_updated_follows_the_policy() -> None:
    a_h = np.array([3, 3, -3, -3], np.int64)
    a_l = np.array([2, 99, -1, 99], np.int64)
    mask = np.array([True, False, True, False])
    assert gated_output(a_h, a_l, mask, 2, GatePolicy.KEEP).tolist() == [14, 12, -13, -12]
    assert gated_output(a_h, a_l, mask, 2, GatePolicy.ZERO).tolist() == [14, 0, -13, 0]
    assert gated_output(a_h, a_l, mask, 2, GatePolicy.ZERO).dtype == np.int64
