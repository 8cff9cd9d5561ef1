"""The update phase as a sampled dense-dense matrix product: sums of q_l * w only where the mask is 1.

Source: Precision Gating (ICLR 2020), section 4.3 (SDDMM on CPU). No im2col: with the codes in NHWC order a window is
a few contiguous runs of codes, one a kernel row where taps are neighbours and there is one group, else one a tap.

    codes  int16 [N, padded H, padded W * C]   mask bool  [N, K, P, Q]
    weight int16 [K, R, runs, run length]      sums int64 [N, K, P, Q], 0 where mask is 0
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pgsim.arith.window import Window, padded

INT16_MAX = 2**15 - 1
INT32_MAX = 2**31 - 1


def fits(codes: NDArray[Any], weight: NDArray[Any], window: Window) -> bool:
    """Say whether `update_sums` may take these operands: int16 each, and a run's sum within int32.

    `codes` [N, C, H, W] and `weight` [K, C/G, R, S] are integer arrays.
    """
    code = max_abs(codes)
    factor = max_abs(weight)
    _, length = _runs(weight.shape, window)
    return code <= INT16_MAX and factor <= INT16_MAX and code * factor * length <= INT32_MAX


def update_sums(
    codes: NDArray[Any], weight: NDArray[Any], window: Window, mask: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return sum of codes * weight where `mask` is 1 and 0 elsewhere, int64 [N, K, P, Q].

    An empty mask gives zeros at no cost. `codes` [N, C, H, W] and `weight` [K, C/G, R, S] are integer arrays for
    which `fits` holds, `mask` is bool [N, K, P, Q]. Raises ValueError where it does not hold.
    """
    if not fits(codes, weight, window):
        raise ValueError("codes and weight must fit int16, and a run of their products int32: see sddmm.fits")
    sums = np.zeros(mask.shape, np.int64)
    if not mask.any():
        return sums
    out_channels, group_in, taps_high, _ = weight.shape
    runs, length = _runs(weight.shape, window)
    rows = padded(codes, window, np.int16).transpose(0, 2, 3, 1)
    channels = rows.shape[3]
    rows = np.ascontiguousarray(rows).reshape(rows.shape[0], rows.shape[1], -1)
    taps = np.array(weight.transpose(0, 2, 3, 1), dtype=np.int16, order="C")
    taps = taps.reshape(out_channels, taps_high, runs, length)
    wanted = np.array(mask, order="C")  # copies, C-ordered and writable: the one type that the kernel compiles for
    group_out = out_channels // window.groups
    _kernel(rows, taps, wanted, channels, window.stride, window.dilation, group_in, group_out, sums)
    return sums


def max_abs(array: NDArray[Any]) -> int:
    """Return max |array| as a python int, 0 for an empty array: no wrap at the dtype's minimum."""
    return max(-int(array.min()), int(array.max())) if array.size else 0


def _runs(weight_shape: tuple[int, ...], window: Window) -> tuple[int, int]:
    """Runs a kernel row and their length in codes."""
    _, group_in, _, taps_wide = weight_shape
    if window.groups == 1 and window.dilation[1] == 1:
        return 1, taps_wide * group_in
    return taps_wide, group_in


@njit(cache=True, nogil=True)
def _kernel(
    codes: Any,
    weight: Any,
    mask: Any,
    channels: int,
    stride: Any,
    dilation: Any,
    group_in: int,
    group_out: int,
    sums: Any,
) -> None:
    # Output channel outside, pixels inside: one channel's weights (R * S * C/G codes) stay in L1 over all its pixels.
    # The innermost loop stays int16 * int16 into int32, which LLVM turns into multiply-add of pairs (vpmaddwd);
    # the casts keep Numba from widening to int64. |code * weight * run length| <= 2^31 - 1 by `fits`.
    images, out_channels, out_height, out_width = mask.shape
    _, taps_high, runs, length = weight.shape
    for n in range(images):
        for k in range(out_channels):
            first = (k // group_out) * group_in
            for p in range(out_height):
                for q in range(out_width):
                    if mask[n, k, p, q]:
                        total = 0
                        for r in range(taps_high):
                            y = p * stride[0] + r * dilation[0]
                            for j in range(runs):
                                start = (q * stride[1] + j * dilation[1]) * channels + first
                                run = codes[n, y, start : start + length]
                                taps = weight[k, r, j]
                                partial = np.int32(0)
                                for i in range(length):
                                    partial = np.int32(partial + np.int32(np.int32(run[i]) * np.int32(taps[i])))
                                total += int(partial)
                        sums[n, k, p, q] = total
