"""The fast exact layer sums: dense ones through BLAS on integer-valued floats, updates through SDDMM.

    activation --split--> q_h --dense_sums (BLAS)--> A_h --> mask --.
                     `--> q_l --------------------------------- update_sums (Numba) --> A_l --> A

A float sum of integers is exact while no partial sum can pass the mantissa: max over output channels of sum |w| times
the largest |code| stays below 2^24 in float32, 2^53 in float64. The bound holds for every order of summation and
with fused multiply-add, so any GEMM will do (no Winograd, FFT, TF32 or bfloat16, none of which numpy's BLAS has).
Same signatures and results as reference.py, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from pgsim.arith import reference, sddmm
from pgsim.arith.formats import Encoding, GatePolicy
from pgsim.arith.gating import gated_output, gating_mask
from pgsim.arith.reference import GatedValues
from pgsim.arith.split import split
from pgsim.arith.window import Window, output_shape, padded

FLOAT32_EXACT = 2**24  # every integer of smaller magnitude is a float32
FLOAT64_EXACT = 2**53
BLOCK_ELEMENTS = 2**18  # im2col elements a GEMM call: the block stays in L2 (1 MiB of float32)


def accumulator_bound(weight: NDArray[Any], max_abs_code: int) -> int:
    """Return max over output channels of sum |w|, times `max_abs_code`: no partial sum is larger in magnitude.

    `weight` holds integer codes [K, ...] of at most 16 bits, `max_abs_code` >= 0. A python int.
    """
    if weight.size == 0:
        return 0
    magnitude = np.abs(weight.reshape(weight.shape[0], -1).astype(np.int64)).sum(axis=1)
    return int(magnitude.max()) * max_abs_code


def dense_layer(activation: NDArray[Any], weight: NDArray[Any], window: Window) -> NDArray[np.int64]:
    """Return A, int64 [N, K, P, Q], of a layer that is not gated: sum of q * w over the receptive field.

    No images give an empty A. `activation` holds integer codes [N, C, H, W], `weight` integer codes
    [K, C/G, R, S], both of at most 16 bits. Raises ValueError or TypeError where they do not make a layer.
    """
    shape = output_shape(activation, weight, window)
    bound = accumulator_bound(weight, sddmm.max_abs(activation))
    if bound < FLOAT32_EXACT:
        return _blas_sums(activation, weight, window, shape, np.float32)
    if bound < FLOAT64_EXACT:
        return _blas_sums(activation, weight, window, shape, np.float64)
    return reference.dense_layer(activation, weight, window)


def gated_layer(
    activation: NDArray[Any],
    weight: NDArray[Any],
    window: Window,
    encoding: Encoding,
    bits: int,
    pred_bits: int,
    threshold: NDArray[np.int64],
    policy: GatePolicy,
) -> GatedValues:
    """Return A_h, A_l, the mask and A of a gated layer (Precision Gating, equations 1 to 3).

    No images give empty arrays. `activation` holds codes [N, C, H, W] of the format (encoding, bits),
    0 < pred_bits < bits; `weight` integer codes [K, C/G, R, S] of at most 16 bits; `threshold` int64 [K], the mask
    is A_h > T_c. Raises ValueError or TypeError where they do not make a layer or a code is out of range.
    """
    reference.check_threshold(threshold, weight)
    q_h, q_l = split(activation, encoding, bits, pred_bits)
    a_h = dense_layer(q_h, weight, window)
    mask = gating_mask(a_h, threshold)
    a_l = masked_sums(q_l, weight, window, mask)
    return GatedValues(a_h, a_l, mask, gated_output(a_h, a_l, mask, bits - pred_bits, policy))


def masked_sums(
    codes: NDArray[Any], weight: NDArray[Any], window: Window, mask: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return sum of codes * weight where `mask` is 1 and 0 elsewhere, int64 [N, K, P, Q].

    By SDDMM where the operands fit its int16 and int32; else the masked dense sums.
    """
    if sddmm.fits(codes, weight, window):
        return sddmm.update_sums(codes, weight, window, mask)
    return np.where(mask, dense_layer(codes, weight, window), 0)


def _blas_sums(
    activation: NDArray[Any],
    weight: NDArray[Any],
    window: Window,
    shape: tuple[int, int, int, int],
    dtype: type[np.floating[Any]],
) -> NDArray[np.int64]:
    """im2col and GEMM in blocks of whole images, or of output rows of one image where that is larger.

    columns [G, C/G * R * S, images * rows * Q]; factors [G, K/G, C/G * R * S]; product [G, K/G, images * rows * Q].
    """
    images, out_channels, out_height, out_width = shape
    _, group_in, taps_high, taps_wide = weight.shape
    groups, reduction = window.groups, group_in * taps_high * taps_wide
    factors = weight.astype(dtype).reshape(groups, out_channels // groups, reduction)
    source = padded(activation, window, dtype)
    image_step, channel_step, row_step, column_step = source.strides
    windows = as_strided(  # a view, [G, C/G, R, S, N, P, Q]: every element lies in `source` by `output_shape`
        source,
        (groups, group_in, taps_high, taps_wide, images, out_height, out_width),
        (
            group_in * channel_step,
            channel_step,
            window.dilation[0] * row_step,
            window.dilation[1] * column_step,
            image_step,
            window.stride[0] * row_step,
            window.stride[1] * column_step,
        ),
        writeable=False,
    )
    result = np.empty(shape, np.int64)
    row_elements = groups * reduction * out_width
    rows = min(out_height, max(1, BLOCK_ELEMENTS // row_elements))
    together = max(1, BLOCK_ELEMENTS // (row_elements * out_height))
    for first in range(0, images, together):
        for top in range(0, out_height, rows):
            block = windows[..., first : first + together, top : top + rows, :]
            columns = block.reshape(groups, reduction, -1)
            product = np.matmul(factors, columns).reshape(out_channels, *block.shape[4:])
            result[first : first + together, :, top : top + rows] = product.transpose(1, 0, 2, 3)
    return result
