"""What follows the accumulator, step by step, in integers (docs/trace-format.md, "What follows a layer").

Every function takes the running value v, int64 [N, K, P, Q], and returns a new one; arrays a channel are int64 [K],
or [1] for all channels. Where a value could leave int64 the step refuses rather than wraps: InputError, as these
numbers come from somebody's trace. Requantisation by integer thresholds is exact where the next code is a function
of A alone; a multiply and shift is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pgsim.arith.gating import INT64_MAX, INT64_MIN
from pgsim.errors import InputError

Integers = NDArray[np.int64]


def add_bias(v: Integers, bias: Integers) -> Integers:
    """Return v + bias[c]. `bias` int64 [K] or [1]. Raises InputError past int64."""
    low, high = _channel_range(v)
    for c, add in enumerate(_each_channel(bias, v, "bias")):
        _check_int64("bias", low[c] + add, high[c] + add)
    return v + _spread(bias)


def fixed_point_value(v: int, multiplier: int, bias: int, shift: int) -> int:
    """Return (multiplier * v + bias + 2^(shift-1)) >> shift on python ints: the scalar reference of `fixed_point`."""
    rounding = 2 ** (shift - 1) if shift else 0
    return (multiplier * v + bias + rounding) // 2**shift


def fixed_point(v: Integers, multiplier: Integers, bias: Integers, shift: int) -> Integers:
    """Return (multiplier[c] * v + bias[c] + 2^(shift-1)) >> shift, arithmetic: round half up.

    At shift 0 there is no rounding term. `multiplier` and `bias` int64 [K] or [1], 0 <= shift <= 62.
    Raises InputError where the sum before the shift could leave int64 for some v of its channel, ValueError for
    another shift.
    """
    if not 0 <= shift <= 62:
        raise ValueError(f"shift must be 0 .. 62, not {shift}")
    rounding = 2 ** (shift - 1) if shift else 0
    low, high = _channel_range(v)
    factors = _each_channel(multiplier, v, "multiplier")
    for c, (factor, add) in enumerate(zip(factors, _each_channel(bias, v, "bias"), strict=True)):
        products = (factor * low[c], factor * high[c])  # one is <= 0 and one >= 0, as low <= 0 <= high
        _check_int64("fixed_point", *products)
        _check_int64("fixed_point", min(products) + add + rounding, max(products) + add + rounding)
    return (v * _spread(multiplier) + (_spread(bias) + rounding)) >> shift


def add_shortcut(v: Integers, shortcut: Integers, stride: int = 1, pad_before: int = 0, pad_after: int = 0) -> Integers:
    """Return v + the shortcut, taken at every `stride`-th row and column, between zero channels.

    `shortcut` int64 [N, K', P', Q'] with K' + pad_before + pad_after = K and its subsampled rows and columns equal
    to P and Q (the option-A shortcut of CIFAR ResNets). Raises InputError where the shapes do not meet or the sum
    could leave int64.
    """
    kept = shortcut[:, :, ::stride, ::stride]
    images, channels, height, width = kept.shape
    shape = (images, pad_before + channels + pad_after, height, width)
    if shape != v.shape:
        raise InputError(f"shortcut, subsampled and padded, must have the shape of v, {v.shape}, not {shape}")
    if v.size and kept.size:
        _check_int64("add", min(int(v.min()) + int(kept.min()), 0), max(int(v.max()) + int(kept.max()), 0))
    result = v.copy()
    result[:, pad_before : pad_before + channels] += kept
    return result


def clamp(v: Integers, low: int, high: int) -> Integers:
    """Return min(max(v, low), high). Raises ValueError where low > high."""
    if low > high:
        raise ValueError(f"low must be <= high = {high}, not {low}")
    return np.clip(v, max(low, INT64_MIN), min(high, INT64_MAX))


def check_width(v: Integers, bits: int, signed: bool, where: str) -> None:
    """Refuse values that a shortcut of `bits` bits, two's complement where `signed`, cannot keep: InputError."""
    if v.size == 0:
        return
    smallest, largest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    for value in (int(v.min()), int(v.max())):
        if not smallest <= value <= largest:
            kind = "signed" if signed else "unsigned"
            raise InputError(f"{where} must fit {bits} {kind} bits, {smallest} .. {largest}, not {value}")


def sum_pool(v: Integers, kernel: tuple[int, int], stride: tuple[int, int]) -> Integers:
    """Return the sum of each window, no padding and no division: int64 [N, K, P', Q'].

    Rows and columns that fill no window are left out. Raises InputError past int64 or where no window fits.
    """
    if v.size:
        count = kernel[0] * kernel[1]
        _check_int64("sum_pool", int(v.min()) * count, int(v.max()) * count)
    return _windows(v, kernel, stride).sum(axis=(4, 5), dtype=np.int64)


def max_pool(
    v: Integers, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> Integers:
    """Return the maximum of each window: int64 [N, K, P', Q']. A padded position never wins.

    `padding` (top, bottom, left, right), each smaller than the kernel on its axis, so that every window holds a value.
    Raises InputError for other padding or where no window fits.
    """
    top, bottom, left, right = padding
    if max(top, bottom) >= kernel[0] or max(left, right) >= kernel[1] or min(padding) < 0:
        raise InputError(f"max_pool padding must be >= 0 and smaller than the kernel {kernel}, not {padding}")
    images, channels, height, width = v.shape
    framed = np.full((images, channels, height + top + bottom, width + left + right), INT64_MIN, np.int64)
    framed[:, :, top : top + height, left : left + width] = v
    return _windows(framed, kernel, stride).max(axis=(4, 5))


def move_channels(codes: Integers, shift: NDArray[np.int8]) -> Integers:
    """Return the codes, int64 [N, K, P, Q], moved by shift[c, 0] rows and shift[c, 1] columns: int8 [K, 2].

    What leaves the map is dropped, and a place to which nothing moves holds code 0 (the shift operation of Wu et al.,
    "Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions", 2018). Raises InputError for another shape
    of `shift`.
    """
    if shift.shape != (codes.shape[1], 2):
        raise InputError(f"shift must have shape {[codes.shape[1], 2]}, not {list(shift.shape)}")
    height, width = codes.shape[2:]
    moved = np.zeros_like(codes)
    for c, (down, right) in enumerate(shift.tolist()):
        if abs(down) < height and abs(right) < width:
            kept = codes[:, c, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
            moved[:, c, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = kept
    return moved


def requantise_code(v: int, thresholds: list[int], direction: int, base: int) -> int:
    """Return base + the number of thresholds that direction * v reaches: the scalar reference of `requantise`."""
    return base + sum(direction * v >= threshold for threshold in thresholds)


def requantise(v: Integers, threshold: Integers, direction: NDArray[np.int8], base: int = 0) -> Integers:
    """Return the next layer's codes, base + #{j : direction[c] * v >= threshold[c, j]}: int64, the shape of v.

    `threshold` int64 [K or 1, levels], each row non-decreasing, levels >= 0; `direction` int8 [K or 1], +1, or -1 where
    batch norm's gamma is negative. A constant channel has its thresholds out of reach. Raises InputError where a
    row decreases, a direction is neither, or v holds -2^63 (its negative is no int64).
    """
    if not np.isin(direction, (-1, 1)).all():
        raise InputError(f"direction must be +1 or -1, not {direction[~np.isin(direction, (-1, 1))][0]}")
    decreasing = np.flatnonzero((threshold[:, 1:] < threshold[:, :-1]).any(axis=1))
    if decreasing.size:
        raise InputError(f"thresholds must not decrease along a row, as row {decreasing[0]} does")
    if v.size and int(v.min()) == INT64_MIN:
        raise InputError(f"v must be above {INT64_MIN} to be requantised, not equal to it")
    channels = v.shape[1]
    for name, rows in (("threshold", len(threshold)), ("direction", len(direction))):
        if rows not in (1, channels):
            raise InputError(f"{name} must have 1 or {channels} rows, not {rows}")
    from pgsim.arith.levels import count_reached  # Numba, which nothing else here needs

    rows = max(len(threshold), len(direction))  # 1: a map is one row
    lines = np.array(np.broadcast_to(threshold, (rows, threshold.shape[1])), np.int64, order="C")
    signs = np.array(np.broadcast_to(direction, rows), np.int64)
    places = v.size // (len(v) * rows) if v.size else 0
    codes = np.empty(v.shape, np.int64)
    count_reached(  # compiled for arrays that are writable and C-ordered alone
        np.require(v, np.int64, ["C", "W"]).reshape(len(v), rows, places),
        signs,
        lines,
        base,
        codes.reshape(len(v), rows, places),
    )
    return codes


def _windows(v: Integers, kernel: tuple[int, int], stride: tuple[int, int]) -> Any:
    if v.shape[2] < kernel[0] or v.shape[3] < kernel[1]:
        raise InputError(f"a pooling window must fit the map of {v.shape[2]} x {v.shape[3]}, not be {kernel}")
    return sliding_window_view(v, kernel, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]


def _spread(per_channel: Integers) -> Integers:
    return per_channel[None, :, None, None]


def _channel_range(v: Integers) -> tuple[list[int], list[int]]:
    """Smallest and largest value of each channel as python ints, 0 included."""
    axes = (0, 2, 3)
    return np.min(v, axis=axes, initial=0).tolist(), np.max(v, axis=axes, initial=0).tolist()


def _each_channel(per_channel: Integers, v: Integers, name: str) -> list[int]:
    channels = v.shape[1]
    if per_channel.shape not in ((1,), (channels,)):
        raise InputError(f"{name} must have 1 or {channels} values, not {per_channel.shape}")
    result: list[int] = np.broadcast_to(per_channel, (channels,)).tolist()
    return result


def _check_int64(step: str, low: int, high: int) -> None:
    for value in (low, high):
        if not INT64_MIN <= value <= INT64_MAX:
            raise InputError(f"{step} must stay within int64, not reach {value}")
