"""The loops of the masked weight gradient: plain Python, and the same compiled (numba, one thread)."""

from __future__ import annotations

from typing import Any

from numba import njit


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
