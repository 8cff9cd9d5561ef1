"""Fused element-wise kernels of the training step over matrices, without the interpreter's lock.

A channels-last tensor [N, C, H, W] is a matrix of N*H*W pixels, some side by side in a row (`pgsim.train.fused.rows`).
Every kernel walks it row by row, so that the inner loop over columns is contiguous; a column is of one channel.
Sums over rows are kept in float32 for `BLOCK` rows at most and then added in float64: the order of the rows is part of
the result and must not change.
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
BELOW, INSIDE, ABOVE = 0, 1, 2
"""States of a value against its clip: y <= 0, 0 < y < alpha, y >= alpha."""


@njit(cache=True, fastmath=True)
def _moment_block(x: F32, first: int, last: int, s: F32, q: F32) -> None:
    for i in range(first, last):
        for c in range(x.shape[1]):
            v = x[i, c]
            s[c] += v
            q[c] += v * v


@njit(cache=True, nogil=True)
def column_moments(x: F32) -> tuple[F64, F64]:
    """Return sum and sum of squares of every column of x [M, D], float64 [D] each."""
    rows, columns = x.shape
    total, square = np.zeros(columns), np.zeros(columns)
    s, q = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
    for first in range(0, rows, BLOCK):
        s[:] = 0
        q[:] = 0
        _moment_block(x, first, min(first + BLOCK, rows), s, q)
        for c in range(columns):
            total[c] += s[c]
            square[c] += q[c]
    return total, square


@njit(cache=True, fastmath=True, error_model="numpy", nogil=True)
def affine_clip(
    x: F32,
    add: F32,
    has_add: bool,
    scale: F32,
    shift: F32,
    alpha: float,
    levels: int,
    clipped: F32,
    codes: F32,
    state: U8,
) -> None:
    """Write y = scale*x + shift (+ add), clipped to [0, alpha], its codes rne(y/alpha*levels) and its state."""
    rows, columns = x.shape
    bound, factor = np.float32(alpha), np.float32(levels / alpha)
    zero = np.float32(0)
    for i in range(rows):
        if has_add:
            for c in range(columns):
                clipped[i, c] = scale[c] * x[i, c] + shift[c] + add[i, c]
        else:
            for c in range(columns):
                clipped[i, c] = scale[c] * x[i, c] + shift[c]
        for c in range(columns):
            y = clipped[i, c]
            state[i, c] = np.uint8(y > zero) + np.uint8(y >= bound)
            z = min(max(y, zero), bound)
            clipped[i, c] = z
            codes[i, c] = np.rint(z * factor)


@njit(cache=True, fastmath=True)
def _clip_block(
    grad: F32, more: F32, has_more: bool, state: U8, first: int, last: int, x: F32, dy: F32, s: F32, q: F32, top: F32
) -> None:
    zero = np.float32(0)
    for i in range(first, last):
        if has_more:
            for c in range(x.shape[1]):
                dy[i, c] = grad[i, c] + more[i, c]
        else:
            for c in range(x.shape[1]):
                dy[i, c] = grad[i, c]
        for c in range(x.shape[1]):
            g = dy[i, c]
            top[c] += g if state[i, c] == 2 else zero
            g = g if state[i, c] == 1 else zero
            dy[i, c] = g
            s[c] += g
            q[c] += g * x[i, c]


@njit(cache=True, nogil=True)
def clip_backward(grad: F32, more: F32, has_more: bool, state: U8, x: F32, dy: F32) -> tuple[F64, F64, float]:
    """Write dy, the gradient (grad + more) where the value was inside the clip; return column sums.

    Returns sum(dy) and sum(dy * x) per column, and the gradient of alpha, the sum over values above the clip.
    """
    rows, columns = x.shape
    total, product, above = np.zeros(columns), np.zeros(columns), 0.0
    s, q, top = (
        np.zeros(columns, np.float32),
        np.zeros(columns, np.float32),
        np.zeros(columns, np.float32),
    )
    for first in range(0, rows, BLOCK):
        s[:] = 0
        q[:] = 0
        top[:] = 0
        _clip_block(grad, more, has_more, state, first, min(first + BLOCK, rows), x, dy, s, q, top)
        for c in range(columns):
            total[c] += s[c]
            product[c] += q[c]
            above += top[c]
    return total, product, above


@njit(cache=True, fastmath=True, nogil=True)
def affine_backward(dy: F32, x: F32, a: F32, b: F32, c0: F32, out: F32) -> None:
    """Write out = a*dy + b*x + c0, per column: batch norm's input gradient."""
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[i, c] = a[c] * dy[i, c] + b[c] * x[i, c] + c0[c]


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


@njit(cache=True, fastmath=True, error_model="numpy", nogil=True)
def gate(
    high: F32, low: F32, threshold: F32, delta: F32, unit: float, up: float, slope: float, factor: float, sparse: bool,
    keep: bool, out: F32, mask: U8, weight: F32,
) -> None:  # fmt: skip
    """Combine the two phases' accumulators [M, D] and note how much each output moves its threshold.

    mask = high > threshold; out = unit*(up*high + mask*low); weight = -factor*slope*m*unit*low*s*(1-s) with
    s = sigmoid(slope*(unit*up*high - delta)) and m = mask if `sparse`, else 1. Without `keep` an output that is not
    updated is 0: out = unit*mask*(up*high + low), and up*high + low takes the place of low in `weight`.
    """
    k_high, k_low = np.float32(unit * up), np.float32(unit)
    steep, scale = np.float32(slope), np.float32(-factor * slope * unit)
    kept, dense = np.float32(keep), np.float32(not sparse)
    from_high = np.float32(up) * np.float32(not keep)
    for i in range(high.shape[0]):
        for c in range(high.shape[1]):
            m = np.float32(high[i, c] > threshold[c])
            mask[i, c] = np.uint8(m)
            out[i, c] = k_high * high[i, c] * max(kept, m) + k_low * low[i, c] * m
            gained = (from_high * high[i, c] + low[i, c]) * max(dense, m)
            weight[i, c] = scale * gained * sigmoid_slope(steep * (k_high * high[i, c] - delta[c]))


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
