"""Loops compiled by numba: element-wise kernels of a training step, and the masked weight gradient.

The element-wise ones walk matrices row by row (pgsim.nn.rows), so that the inner loop over columns is contiguous, and
do not hold the interpreter's lock. Sums over rows are kept in float32 for `BLOCK` rows at most and then added in
float64: the order of the rows is part of the result and must not change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

BLOCK = 64
FUSED = {"contract"}
"""Of floating point: a product and a sum may become one instruction, and nothing else may change."""


def weight_gradient_loops(
    grad: Any,
    mask: Any,
    codes: Any,
    channels: int,
    stride: Any,
    dilation: Any,
    group_in: int,
    group_out: int,
    found: Any,
) -> None:
    """Add grad * codes of every updated output to `found`.

    grad float32 and mask bool [N, K, P, Q]; codes float32 [N, padded H, padded W * C], pixels of `channels` codes;
    found float32 [K, R, runs, run length]: a kernel row is one run of S * C codes where taps are neighbours and there
    is one group, else S runs of C/G.
    """
    # Output channel outside: its R*S*C/G sums stay in L1. The innermost loop adds a multiple of one run of codes to one
    # run of sums, which vectorises without reordering any sum.
    images, out_channels, out_height, out_width = mask.shape
    _, taps_high, runs, length = found.shape
    for k in range(out_channels):
        first = k // group_out * group_in
        for n in range(images):
            for p in range(out_height):
                for q in range(out_width):
                    if mask[n, k, p, q]:
                        g = grad[n, k, p, q]
                        for r in range(taps_high):
                            y = p * stride[0] + r * dilation[0]
                            for j in range(runs):
                                start = (q * stride[1] + j * dilation[1]) * channels + first
                                run = codes[n, y, start : start + length]
                                sums = found[k, r, j]
                                for i in range(length):
                                    sums[i] += g * run[i]


compiled_loops = njit(cache=True)(weight_gradient_loops)


@njit(inline="always")
def sigmoid_slope(z: Any) -> Any:
    """s*(1 - s) of s = sigmoid(z), of exp(-|z|/32) to the 32nd: without a call, so the loop around runs in vectors.

    Off by less than 2e-7; beyond |z| = 24 it stays at 4e-11.
    """
    r = min(abs(z), np.float32(24)) * np.float32(-1 / 32)
    e = r * np.float32(1 / 120) + np.float32(1 / 24)
    e = np.float32(1) + r * (np.float32(1) + r * (np.float32(1 / 2) + r * (np.float32(1 / 6) + r * e)))
    for _ in range(5):
        e *= e
    d = np.float32(1) + e
    return e / (d * d)


@njit(cache=True, fastmath=FUSED, error_model="numpy", nogil=True)
def gate(
    high: F32, low: F32, threshold: F32, delta: F32, unit: F32, up: float, slope: float, factor: float, sparse: bool,
    keep: bool, mask: U8,
) -> None:  # fmt: skip
    """Combine the two phases' accumulators [M, D] in place and note how much each output moves its threshold.

    mask = high > threshold; `high` becomes the output unit*(up*high + mask*low), of integers that are exact where they
    are below 2^24; `low` becomes -factor*slope*m*unit*low*s*(1-s) with s = sigmoid(slope*(unit*up*high - delta)) and
    m = mask if `sparse`, else 1. Without `keep` an output that is not updated is 0: unit*mask*(up*high + low), and
    up*high + low takes the place of low in what moves the threshold.
    """
    lift, steep, scale = np.float32(up), np.float32(slope), np.float32(-factor * slope)
    kept, dense, from_high = np.float32(keep), np.float32(not sparse), np.float32(not keep)
    for i in range(high.shape[0]):
        for c in range(high.shape[1]):
            m = np.float32(high[i, c] > threshold[c])
            h, rest = lift * high[i, c], low[i, c]
            mask[i, c] = np.uint8(m)
            high[i, c] = (h * max(kept, m) + rest * m) * unit[c]
            gained = (from_high * h + rest) * max(dense, m) * unit[c]
            low[i, c] = scale * gained * sigmoid_slope(steep * (unit[c] * h - delta[c]))


@njit(cache=True, fastmath=True)
def _gate_block(grad: F32, mask: U8, weight: F32, first: int, last: int, masked: F32, s: F32) -> None:
    zero = np.float32(0)
    for i in range(first, last):
        for c in range(grad.shape[1]):
            g = grad[i, c]
            masked[i, c] = g if mask[i, c] != 0 else zero
            s[c] += g * weight[i, c]


@njit(cache=True, nogil=True)
def gate_backward(grad: F32, mask: U8, weight: F32, masked: F32) -> F64:
    """Write masked = mask*grad and return sum(grad * weight) per column, the gradient of delta."""
    rows, columns = grad.shape
    total, s = np.zeros(columns), np.zeros(columns, np.float32)
    for first in range(0, rows, BLOCK):
        s[:] = 0
        _gate_block(grad, mask, weight, first, min(first + BLOCK, rows), masked, s)
        for c in range(columns):
            total[c] += s[c]
    return total


@njit(cache=True, error_model="numpy", nogil=True)
def clipped_codes(x: F32, factor: float, lowest: int, largest: int, codes: F32) -> None:
    """Write codes rne(x * factor) within [lowest, largest]; NaN stays NaN."""
    least, most, scale = np.float32(lowest), np.float32(largest), np.float32(factor)
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            code = np.rint(x[i, c] * scale)
            code = least if code < least else code
            codes[i, c] = most if code > most else code


@njit(cache=True, fastmath=FUSED | {"reassoc"}, nogil=True)
def clip_codes_backward(grad: F32, x: F32, low: float, high: float, closed: bool, inside: F32) -> float:
    """Write the gradient where low < x < high, or at a bound if `closed`, else 0; return its sum where x >= high."""
    least, most, zero = np.float32(low), np.float32(high), np.float32(0)
    above = 0.0
    for i in range(x.shape[0]):
        part = np.float32(0)
        for c in range(x.shape[1]):
            v, g = x[i, c], grad[i, c]
            open_, at = (v > least) & (v < most), closed & ((v == least) | (v == most))
            inside[i, c] = g if open_ | at else zero
            part += g if v >= most else zero
        above += float(part)
    return above


@njit(cache=True, error_model="numpy", nogil=True)
def narrow(codes: F32, found: U8) -> bool:
    """Write codes as bytes; tell whether every one is an integer in [0, 255]."""
    whole = True
    for i in range(codes.shape[0]):
        for c in range(codes.shape[1]):
            code = codes[i, c]
            inside = (code >= np.float32(0)) & (code <= np.float32(255))
            byte = np.uint8(np.int32(code if inside else np.float32(0)))
            found[i, c] = byte
            whole &= np.float32(byte) == code
    return whole


@njit(cache=True, error_model="numpy", nogil=True)
def split(codes: F32, up: float, toward_zero: bool, high: F32, low: F32) -> None:
    """Write the planes of codes == up * high + low: truncated toward zero, or toward -inf."""
    lift, down = np.float32(up), np.float32(1.0 / up)
    for i in range(codes.shape[0]):
        for c in range(codes.shape[1]):
            part = codes[i, c] * down
            part = np.trunc(part) if toward_zero else np.floor(part)
            high[i, c] = part
            low[i, c] = codes[i, c] - lift * part
