"""The post steps: by hand, against their scalar references, and against torch's pooling."""

from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pgsim.arith import post
from pgsim.arith.gating import INT64_MAX, INT64_MIN
from pgsim.errors import InputError

from .drawn import examples

shapes = st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
values = shapes.flatmap(lambda shape: hnp.arrays(np.int64, shape, elements=st.integers(-(2**30), 2**30)))


def column(numbers: list[int]) -> NDArray[np.int64]:
    """One pixel of so many channels."""
    return np.array(numbers, np.int64).reshape(1, -1, 1, 1)


def per_channel(data: st.DataObject, v: NDArray[np.int64], elements: st.SearchStrategy[int]) -> NDArray[np.int64]:
    """[K] or [1] of them."""
    return data.draw(hnp.arrays(np.int64, data.draw(st.sampled_from([1, v.shape[1]])), elements=elements))


def at(array: NDArray[Any], channel: int) -> Any:
    return array[channel % len(array)]


@examples(60)
@given(v=values, data=st.data())
def test_a_bias_is_added_to_its_channel(v: NDArray[np.int64], data: st.DataObject) -> None:
    bias = per_channel(data, v, st.integers(-(2**40), 2**40))
    result = post.add_bias(v, bias)
    assert result.dtype == np.int64
    for index in np.ndindex(v.shape):
        assert int(result[index]) == int(v[index]) + int(at(bias, index[1]))


@examples(80)
@given(v=values, data=st.data())
def test_fixed_point_is_the_scalar_reference_and_rounds_half_up(v: NDArray[np.int64], data: st.DataObject) -> None:
    multiplier = per_channel(data, v, st.integers(-(2**31), 2**31))
    bias = per_channel(data, v, st.integers(-(2**40), 2**40))
    shift = data.draw(st.integers(0, 40))
    result = post.fixed_point(v, multiplier, bias, shift)
    assert result.dtype == np.int64
    for index in np.ndindex(v.shape):
        m, b = int(at(multiplier, index[1])), int(at(bias, index[1]))
        exact = Fraction(m * int(v[index]) + b, 2**shift)
        assert int(result[index]) == post.fixed_point_value(int(v[index]), m, b, shift) == floor(exact + Fraction(1, 2))


def test_fixed_point_worked_by_hand() -> None:
    v = column([-3, -2, -1, 0, 1, 2, 3])
    one, none = np.array([1], np.int64), np.array([0], np.int64)
    assert post.fixed_point(v, one, none, 0).ravel().tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert post.fixed_point(v, one, none, 1).ravel().tolist() == [-1, -1, 0, 0, 1, 1, 2]  # -1.5 -> -1, 0.5 -> 1
    assert post.fixed_point(v, 5 * one, one, 2).ravel().tolist() == [-3, -2, -1, 0, 2, 3, 4]  # -14/4 ... 16/4


@pytest.mark.parametrize(
    ("v", "multiplier", "bias", "shift", "reached"),
    [
        (2**62, 2, 0, 0, 2**63),
        (-(2**62), 3, 0, 0, -3 * 2**62),
        (-(2**62), -2, 0, 0, 2**63),
        (2**62, 2, -1, 0, 2**63),  # the product alone, though the sum would fit
        (2**62, 1, 2**62, 0, 2**63),
        (-(2**63), 1, -1, 0, -(2**63) - 1),
        (2**63 - 1, 1, 0, 1, 2**63),  # the rounding term alone
        (-(2**63), -1, 0, 0, 2**63),
    ],
)
def test_fixed_point_refuses_what_would_leave_int64(
    v: int, multiplier: int, bias: int, shift: int, reached: int
) -> None:
    arrays = np.array([multiplier], np.int64), np.array([bias], np.int64)
    with pytest.raises(InputError, match=f"^fixed_point must stay within int64, not reach {reached}$"):
        post.fixed_point(column([v]), *arrays, shift)


@pytest.mark.parametrize(
    ("v", "multiplier", "bias", "shift"),
    [(2**62, 1, 2**62 - 1, 0), (-(2**62), 2, 0, 0), (2**63 - 1, 1, -1, 1), (2**63 - 1, -1, -1, 0)],
)
def test_fixed_point_reaches_the_ends_of_int64(v: int, multiplier: int, bias: int, shift: int) -> None:
    result = post.fixed_point(column([v]), np.array([multiplier]), np.array([bias]), shift)
    assert result.item() == post.fixed_point_value(v, multiplier, bias, shift)


def test_fixed_point_checks_each_channel_by_its_own_values() -> None:
    v, multiplier = column([2**40, 1]), np.array([1, 2**40], np.int64)
    assert post.fixed_point(v, multiplier, np.zeros(1, np.int64), 0).ravel().tolist() == [2**40, 2**40]
    with pytest.raises(InputError, match="fixed_point must stay within int64"):
        post.fixed_point(v, multiplier[::-1], np.zeros(1, np.int64), 0)


@pytest.mark.parametrize("shift", [-1, 63])
def test_an_impossible_shift_is_refused(shift: int) -> None:
    with pytest.raises(ValueError, match=rf"shift must be 0 \.\. 62, not {shift}"):
        post.fixed_point(column([1]), np.ones(1, np.int64), np.ones(1, np.int64), shift)


def test_a_bias_beyond_int64_or_of_other_channels_is_refused() -> None:
    with pytest.raises(InputError, match=f"bias must stay within int64, not reach {2**63}"):
        post.add_bias(column([0, 1]), np.array([INT64_MAX], np.int64))
    with pytest.raises(InputError, match=f"bias must stay within int64, not reach {-(2**63) - 1}"):
        post.add_bias(column([-1]), np.array([INT64_MIN], np.int64))
    assert post.add_bias(column([0, 1]), np.array([INT64_MAX, 0], np.int64)).ravel().tolist() == [INT64_MAX, 1]
    with pytest.raises(InputError, match=r"bias must have 1 or 2 values, not \(3,\)"):
        post.add_bias(column([0, 1]), np.zeros(3, np.int64))
    with pytest.raises(InputError, match=r"multiplier must have 1 or 2 values, not \(3,\)"):
        post.fixed_point(column([0, 1]), np.zeros(3, np.int64), np.zeros(2, np.int64), 1)


def test_a_shortcut_is_subsampled_padded_and_added() -> None:
    shortcut = np.arange(2 * 3 * 4, dtype=np.int64).reshape(1, 2, 3, 4)  # channel 0: rows 0-3, 4-7, 8-11
    v = np.full((1, 5, 2, 2), 100, np.int64)
    result = post.add_shortcut(v, shortcut, stride=2, pad_before=1, pad_after=2)
    assert result[0].tolist() == [
        [[100, 100], [100, 100]],
        [[100, 102], [108, 110]],
        [[112, 114], [120, 122]],
        [[100, 100], [100, 100]],
        [[100, 100], [100, 100]],
    ]
    assert (v == 100).all()  # no step edits its input
    assert post.add_shortcut(v, v).tolist() == (2 * v).tolist()


def test_a_shortcut_that_does_not_fit_is_refused() -> None:
    v = np.zeros((1, 4, 2, 2), np.int64)
    with pytest.raises(InputError, match=r"must have the shape of v, \(1, 4, 2, 2\), not \(1, 3, 2, 2\)"):
        post.add_shortcut(v, np.zeros((1, 2, 2, 2), np.int64), pad_before=1)
    with pytest.raises(InputError, match=r"not \(1, 4, 1, 1\)"):
        post.add_shortcut(v, v, stride=2)
    with pytest.raises(InputError, match="add must stay within int64"):
        post.add_shortcut(column([INT64_MAX]), column([1]))


@examples(40)
@given(v=values, ends=st.tuples(st.integers(-(2**31), 2**31), st.integers(-(2**31), 2**31)))
def test_clamping_keeps_values_between_the_ends(v: NDArray[np.int64], ends: tuple[int, int]) -> None:
    low, high = sorted(ends)
    result = post.clamp(v, low, high)
    assert result.dtype == np.int64
    assert result.ravel().tolist() == [min(max(value, low), high) for value in v.ravel().tolist()]


def test_clamping_takes_ends_of_any_size_and_refuses_crossed_ones() -> None:
    assert post.clamp(column([INT64_MIN, 5]), -(2**70), 2**70).ravel().tolist() == [INT64_MIN, 5]
    with pytest.raises(ValueError, match="low must be <= high = 2, not 3"):
        post.clamp(column([1]), 3, 2)


@pytest.mark.parametrize(
    ("bits", "signed", "low", "high"), [(16, False, 0, 65535), (16, True, -32768, 32767), (1, True, -1, 0)]
)
def test_a_kept_value_must_fit_its_bits(bits: int, signed: bool, low: int, high: int) -> None:
    post.check_width(column([low, high]), bits, signed, "x")
    post.check_width(np.zeros((0, 1, 1, 1), np.int64), bits, signed, "x")
    kind = "signed" if signed else "unsigned"
    for value in (low - 1, high + 1):
        with pytest.raises(
            InputError, match=rf"^shortcut s1 must fit {bits} {kind} bits, {low} \.\. {high}, not {value}$"
        ):
            post.check_width(column([0, value]), bits, signed, "shortcut s1")


windows = st.tuples(st.integers(1, 3), st.integers(1, 3))


@examples(40)
@given(v=values, kernel=windows, stride=windows, data=st.data())
def test_pooling_equals_torch(
    v: NDArray[np.int64], kernel: tuple[int, int], stride: tuple[int, int], data: st.DataObject
) -> None:
    torch = pytest.importorskip("torch", reason="the independent oracle is torch's pooling")
    kernel = (min(kernel[0], v.shape[2]), min(kernel[1], v.shape[3]))
    if not len(v):
        v = np.zeros((1, *v.shape[1:]), np.int64)
    real = torch.from_numpy(v.astype(np.float64))
    sums = torch.nn.functional.avg_pool2d(real, kernel, stride, divisor_override=1).numpy()
    result = post.sum_pool(v, kernel, stride)
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, sums.astype(np.int64))
    rows, columns = (data.draw(st.integers(0, size // 2)) for size in kernel)
    maxima = torch.nn.functional.max_pool2d(real, kernel, stride, padding=(rows, columns)).numpy()
    result = post.max_pool(v, kernel, stride, (rows, rows, columns, columns))
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, maxima.astype(np.int64))


def test_pooling_worked_by_hand() -> None:
    v = np.array([[1, -2, 3], [4, 5, -6], [-7, -8, -9]], np.int64).reshape(1, 1, 3, 3)
    assert post.sum_pool(v, (2, 2), (1, 1))[0, 0].tolist() == [[8, 0], [-6, -18]]
    assert post.sum_pool(v, (2, 2), (2, 2))[0, 0].tolist() == [[8]]  # the last row and column fill no window
    assert post.sum_pool(v, (3, 3), (1, 1)).tolist() == [[[[-19]]]]
    assert post.max_pool(v, (2, 2), (2, 2), (0, 1, 0, 1))[0, 0].tolist() == [[5, 3], [-7, -9]]  # padding never wins
    assert post.max_pool(v, (2, 2), (2, 2), (1, 0, 1, 0))[0, 0].tolist() == [[1, 3], [4, 5]]


def test_pooling_that_cannot_be_is_refused() -> None:
    v = np.full((1, 1, 2, 2), 2**61, np.int64)
    with pytest.raises(InputError, match=f"sum_pool must stay within int64, not reach {2**63}"):
        post.sum_pool(v, (2, 2), (1, 1))
    with pytest.raises(InputError, match=r"a pooling window must fit the map of 2 x 2, not be \(3, 1\)"):
        post.sum_pool(v // 4, (3, 1), (1, 1))
    for padding in ((2, 0, 0, 0), (0, 0, 0, 2), (0, -1, 0, 0)):
        with pytest.raises(InputError, match="max_pool padding must be >= 0 and smaller than the kernel"):
            post.max_pool(v, (2, 2), (1, 1), padding)


@examples(80)
@given(v=values, data=st.data())
def test_requantisation_is_the_scalar_reference(v: NDArray[np.int64], data: st.DataObject) -> None:
    levels = data.draw(st.integers(0, 9))
    present = st.sampled_from(v.ravel().tolist() or [0])
    near = present | present.map(lambda value: -value) | st.integers(-(2**31), 2**31)
    rows = data.draw(st.sampled_from([1, v.shape[1]]))
    threshold = np.sort(data.draw(hnp.arrays(np.int64, (rows, levels), elements=near)), axis=1)
    signs = data.draw(hnp.arrays(np.int8, st.sampled_from([1, v.shape[1]]), elements=st.sampled_from([-1, 1])))
    base = data.draw(st.integers(-255, 0))
    codes = post.requantise(v, threshold, signs, base)
    assert codes.dtype == np.int64
    assert codes.shape == v.shape
    for index in np.ndindex(v.shape):
        row, sign = at(threshold, index[1]).tolist(), int(at(signs, index[1]))
        assert int(codes[index]) == post.requantise_code(int(v[index]), row, sign, base)


def test_requantisation_worked_by_hand() -> None:
    v = np.array([[-3, 0, 2, 5], [-3, 0, 2, 5], [-3, 0, 2, 5]], np.int64).reshape(1, 3, 1, 4)
    threshold = np.array([[0, 2, 5], [-5, 0, 3], [INT64_MAX] * 3], np.int64)  # the last channel is constant
    codes = post.requantise(v, threshold, np.array([1, -1, 1], np.int8))
    assert codes[0, :, 0].tolist() == [[0, 1, 2, 3], [3, 2, 1, 1], [0, 0, 0, 0]]  # a tie reaches its threshold
    signed = post.requantise(v, threshold[:1], np.array([1], np.int8), base=-2)
    assert signed[0, :, 0].tolist() == [[-2, -1, 0, 1]] * 3


@pytest.mark.parametrize("direction", [1, -1])
def test_requantisation_of_the_ends_of_int64(direction: int) -> None:
    ends = np.array([-INT64_MAX, -1, 0, INT64_MAX], np.int64).reshape(1, 1, 1, 4)  # further apart than int64 is wide
    codes = post.requantise(ends, np.array([[-INT64_MAX, 0, INT64_MAX]], np.int64), np.array([direction], np.int8))
    assert codes.ravel().tolist() == ([1, 1, 2, 3] if direction > 0 else [3, 2, 2, 1])
    many = np.full((2, 1, 3, 3), direction * INT64_MAX)  # a table that ends where int64 does
    codes = post.requantise(many, np.array([[INT64_MAX]], np.int64), np.array([direction], np.int8))
    assert codes.ravel().tolist() == [1] * 18


@pytest.mark.parametrize(
    ("v", "threshold", "direction", "message"),
    [
        ([1, 2], [[0, 1], [3, 2]], [1], "thresholds must not decrease along a row, as row 1 does"),
        ([1, 2], [[0, 1]], [1, 0], r"direction must be \+1 or -1, not 0"),
        ([1, 2], [[0]] * 3, [1], "threshold must have 1 or 2 rows, not 3"),
        ([1, 2], [[0]], [1] * 3, "direction must have 1 or 2 rows, not 3"),
        ([1, INT64_MIN], [[0]], [-1], f"v must be above {INT64_MIN} to be requantised"),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(
    v: list[int], threshold: list[list[int]], direction: list[int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        post.requantise(column(v), np.array(threshold, np.int64), np.array(direction, np.int8))


@pytest.mark.parametrize(("bits", "gamma"), [(3, 0.7), (5, -0.02), (8, 1.3)])
def test_thresholds_replace_batch_norm_and_quantiser_exactly(bits: int, gamma: float) -> None:
    """Thresholds found by bisection over A give the codes of the float64 formula for every A of a range."""
    top, k, beta, alpha = 2**bits - 1, 1 / 937, 0.4, 2.2

    def code(a: int) -> int:
        return int(np.rint(min(max(gamma * (k * a) + beta, 0.0), alpha) / alpha * top))

    direction = 1 if gamma > 0 else -1
    low, high = -(2**20), 2**20

    def first(level: int) -> int:
        left, right = low, high  # the least direction * A whose code reaches the level
        while left < right:
            middle = (left + right) // 2
            left, right = (left, middle) if code(direction * middle) >= level else (middle + 1, right)
        return left

    threshold = np.array([[first(level) for level in range(1, top + 1)]], np.int64)
    a = np.concatenate([np.arange(-9000, 9000), np.random.default_rng(0).integers(low, high, 2000)])
    codes = post.requantise(a.reshape(1, 1, 1, -1), threshold, np.array([direction], np.int8))
    assert codes.ravel().tolist() == [code(int(value)) for value in a]
