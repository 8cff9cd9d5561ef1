"""Fused element-wise kernels of the training step over matrices, without the interpreter's lock.

A channels-last tensor [N, C, H, W] is a matrix of N*H*W pixels, some side by side in a row (`pgsim.nn.rows`).
Every kernel walks it row by row, so that the inner loop over columns is contiguous; a column is of one channel.
Sums over rows are kept in float32 for `BLOCK` rows at most and then added in float64: the order of the rows is part of
the result and must not change.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pgsim.nn.kernels import BLOCK, F32, F64, U8

I16 = NDArray[np.int16]
I64 = NDArray[np.int64]

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


@njit(cache=True, error_model="numpy", nogil=True)
def accumulator_codes(acc: I64, slope: F64, offset: F64, alpha: float, levels: int, codes: I16) -> None:
    """Write `pgsim.train.frozen.codes_of_accumulator` of acc, in float64: no fast math, no fused multiply-add."""
    factor = levels / alpha
    for i in range(acc.shape[0]):
        for c in range(acc.shape[1]):
            y = min(max(acc[i, c] * slope[c] + offset[c], 0.0), alpha)
            codes[i, c] = np.int16(min(np.rint(y * factor), float(levels)))


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
