"""The obvious layer sums: one nested loop over integers, no trick. Everything else is held to these.

The same plain function runs interpreted, on python ints, and compiled by Numba, on int64:
`gated_layer` and `dense_layer` take the compiled one, and `.py_func` of `gated_loops` and `dense_loops` is the
plain one. Formats are at most 16 bits wide, so int64 holds every sum of fewer than 2^30 products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pgsim.arith.formats import Encoding, GatePolicy
from pgsim.arith.split import split
from pgsim.arith.window import Window, output_shape


@dataclass(frozen=True)
class GatedValues:
    """What a gated layer computes, every array [N, K, P, Q]."""

    a_h: NDArray[np.int64]  # the prediction phase's sums, in units of 2^update_bits
    a_l: NDArray[np.int64]  # the update phase's sums where mask is 1; 0 where it is 0, as nobody computed them
    mask: NDArray[np.bool_]  # 1 where the output was updated
    a: NDArray[np.int64]  # the layer's integer output A


def _dense_loops(
    codes: Any, weight: Any, stride: Any, padding: Any, dilation: Any, group_in: int, group_out: int, a: Any
) -> None:
    """A = sum of q * w over the receptive field.

    codes int64 [N, C, H, W], weight int64 [K, C/G, R, S], a int64 [N, K, P, Q] (written).
    """
    images, out_channels, out_height, out_width = a.shape
    _, _, height, width = codes.shape
    _, _, taps_high, taps_wide = weight.shape
    for n in range(images):
        for k in range(out_channels):
            first = (k // group_out) * group_in  # the first input channel of k's group
            for p in range(out_height):
                for q in range(out_width):
                    total = 0
                    for r in range(taps_high):
                        for s in range(taps_wide):
                            y = p * stride[0] - padding[0] + r * dilation[0]
                            x = q * stride[1] - padding[2] + s * dilation[1]
                            if 0 <= y < height and 0 <= x < width:  # a padded code is 0
                                for c in range(group_in):
                                    total += int(codes[n, first + c, y, x]) * int(weight[k, c, r, s])
                    a[n, k, p, q] = total


def _gated_loops(
    q_h: Any,
    q_l: Any,
    weight: Any,
    threshold: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    group_in: int,
    group_out: int,
    update_bits: int,
    keep: bool,
    a_h: Any,
    a_l: Any,
    mask: Any,
    a: Any,
) -> None:
    """Predict, compare, update: one output after the other.

    q_h, q_l int64 [N, C, H, W]; weight int64 [K, C/G, R, S]; threshold int64 [K]; a_h, a_l, a int64 and mask bool
    [N, K, P, Q] (written). `keep` is GatePolicy.KEEP.
    """
    images, out_channels, out_height, out_width = a.shape
    _, _, height, width = q_h.shape
    _, _, taps_high, taps_wide = weight.shape
    for n in range(images):
        for k in range(out_channels):
            first = (k // group_out) * group_in  # the first input channel of k's group
            for p in range(out_height):
                for q in range(out_width):
                    high = 0
                    for r in range(taps_high):
                        for s in range(taps_wide):
                            y = p * stride[0] - padding[0] + r * dilation[0]
                            x = q * stride[1] - padding[2] + s * dilation[1]
                            if 0 <= y < height and 0 <= x < width:  # a padded code is 0 in both planes
                                for c in range(group_in):
                                    high += int(q_h[n, first + c, y, x]) * int(weight[k, c, r, s])
                    update = high > int(threshold[k])
                    low = 0
                    if update:
                        for r in range(taps_high):
                            for s in range(taps_wide):
                                y = p * stride[0] - padding[0] + r * dilation[0]
                                x = q * stride[1] - padding[2] + s * dilation[1]
                                if 0 <= y < height and 0 <= x < width:
                                    for c in range(group_in):
                                        low += int(q_l[n, first + c, y, x]) * int(weight[k, c, r, s])
                    a_h[n, k, p, q] = high
                    a_l[n, k, p, q] = low
                    mask[n, k, p, q] = update
                    a[n, k, p, q] = high * 2**update_bits + low if update or keep else 0


dense_loops = njit(cache=True)(_dense_loops)
gated_loops = njit(cache=True)(_gated_loops)


def dense_layer(
    activation: NDArray[Any], weight: NDArray[Any], window: Window, loops: Callable[..., None] = dense_loops
) -> NDArray[np.int64]:
    """Return A, int64 [N, K, P, Q], of a layer that is not gated: sum of q * w over the receptive field.

    No images give an empty A. `activation` holds integer codes [N, C, H, W], `weight` integer codes
    [K, C/G, R, S], both of at most 16 bits. Raises ValueError or TypeError where they do not make a layer.
    `loops` runs it: `dense_loops`, compiled, or `dense_loops.py_func`, interpreted.
    """
    a = np.zeros(output_shape(activation, weight, window), np.int64)
    operands = (contiguous_int64(activation), contiguous_int64(weight))
    channels = (weight.shape[1], weight.shape[0] // window.groups)
    loops(*operands, window.stride, window.padding, window.dilation, *channels, a)
    return a


def gated_layer(
    activation: NDArray[Any],
    weight: NDArray[Any],
    window: Window,
    encoding: Encoding,
    bits: int,
    pred_bits: int,
    threshold: NDArray[np.int64],
    policy: GatePolicy,
    loops: Callable[..., None] = gated_loops,
) -> GatedValues:
    """Return A_h, A_l, the mask and A of a gated layer (Precision Gating, equations 1 to 3).

    No images give empty arrays. `activation` holds codes [N, C, H, W] of the format (encoding, bits),
    0 < pred_bits < bits; `weight` integer codes [K, C/G, R, S] of at most 16 bits; `threshold` int64 [K], the mask
    is A_h > T_c. Raises ValueError or TypeError where they do not make a layer or a code is out of range.
    `loops` runs it: `gated_loops`, compiled, or `gated_loops.py_func`, interpreted.
    """
    shape = output_shape(activation, weight, window)
    check_threshold(threshold, weight)
    q_h, q_l = split(activation, encoding, bits, pred_bits)
    a_h, a_l, a = (np.zeros(shape, np.int64) for _ in range(3))
    mask = np.zeros(shape, np.bool_)
    operands = (contiguous_int64(array) for array in (q_h, q_l, weight, threshold))
    channels = (weight.shape[1], weight.shape[0] // window.groups)
    gate = (bits - pred_bits, policy is GatePolicy.KEEP)
    loops(*operands, window.stride, window.padding, window.dilation, *channels, *gate, a_h, a_l, mask, a)
    return GatedValues(a_h, a_l, mask, a)


def check_threshold(threshold: NDArray[np.int64], weight: NDArray[Any]) -> None:
    """Raise ValueError unless `threshold` is int64 [K] for a weight [K, ...]."""
    if threshold.dtype != np.int64 or threshold.shape != weight.shape[:1]:
        raise ValueError(f"threshold must be int64 [{weight.shape[0]}], not {threshold.dtype} {threshold.shape}")


def contiguous_int64(array: NDArray[Any]) -> NDArray[np.int64]:
    """Return a copy of an integer array as C-ordered, writable int64: the one type that the loops compile for."""
    return np.array(array, dtype=np.int64, order="C")
