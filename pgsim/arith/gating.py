"""The gating rule: the integer threshold of a real one, the mask, and the output that the mask leaves.

    Delta_c (real) --integer_threshold--> T_c (integer) --gating_mask with A_h--> mask --gated_output with A_l--> A

Source: Precision Gating (ICLR 2020), equations 2 and 3. The mask is taken on the raw sum of the convolution,
before batch norm and bias, and the comparison is strict: an output that equals its threshold is not updated.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.formats import GatePolicy
from pgsim.errors import InputError

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1


def integer_threshold(delta: float, act_scale: float, weight_scale: float, update_bits: int) -> int:
    """Return T = floor(delta / (k * 2^update_bits)), floor toward -inf, k = act_scale * weight_scale.

    Exact: the float64 arguments are taken as the rationals they are, so A_h > T for an integer A_h if and only if
    A_h * 2^update_bits * k > delta. `delta` and the scales are real values, the scales > 0, update_bits >= 0.
    The result is unbounded. Raises ValueError for a scale that is not finite and > 0, a delta that is not finite,
    or negative update_bits.
    """
    if not math.isfinite(delta):
        raise ValueError(f"delta must be finite, not {delta}")
    for name, scale in (("act_scale", act_scale), ("weight_scale", weight_scale)):
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"{name} must be finite and > 0, not {scale}")
    if update_bits < 0:
        raise ValueError(f"update_bits must be >= 0, not {update_bits}")
    unit = Fraction(float(act_scale)) * Fraction(float(weight_scale)) * 2**update_bits
    return math.floor(Fraction(float(delta)) / unit)


def integer_thresholds(
    delta: NDArray[np.float64], act_scale: float, weight_scale: NDArray[np.float64], update_bits: int
) -> NDArray[np.int64]:
    """Return `integer_threshold` of every channel, int64 [K].

    `delta` is float64 [K], `weight_scale` float64 [1] or [K]. A delta of -inf updates every output (T = -2^63),
    one of +inf none (T = 2^63 - 1); a finite T beyond int64 becomes the nearer of these two, and no accumulator
    changes side. Raises ValueError for NaN, and as `integer_threshold` does.
    """
    scales = np.broadcast_to(weight_scale, delta.shape)
    result = np.empty(delta.shape, np.int64)
    for c, (real, scale) in enumerate(zip(delta.tolist(), scales.tolist(), strict=True)):
        if math.isinf(real):
            result[c] = INT64_MIN if real < 0 else INT64_MAX
        else:
            result[c] = min(max(integer_threshold(real, act_scale, scale, update_bits), INT64_MIN), INT64_MAX)
    return result


def clamped_int64(thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return whole numbers, float64 of any shape, as int64, the nearest there is: no accumulator lies between."""
    inside = np.where(np.abs(thresholds) < 2.0**63, thresholds, 0.0).astype(np.int64)
    inside[thresholds >= 2.0**63], inside[thresholds <= -(2.0**63)] = INT64_MAX, INT64_MIN
    return inside


def threshold_register(threshold: int, psum_bits: int, low: int, high: int) -> int:
    """Clamp T_c into its register of psum_bits + 1 bits, two's complement, where that is legal.

    `low` .. `high` is what A_h can reach (overflow.reachable gives it). The register's extremes stand for "all" and
    "none" of the outputs whenever A_h itself fits psum_bits. Raises InputError where some reachable A_h would
    change side.
    """
    smallest, largest = -(2**psum_bits), 2**psum_bits - 1
    clamped = min(max(threshold, smallest), largest)
    between = sorted((clamped, threshold))  # A_h in (between[0], between[1]] changes side
    wrong = max(low, between[0] + 1)
    if wrong > min(high, between[1]):
        return clamped
    raise InputError(
        f"threshold must fit {psum_bits + 1} bits, {smallest} .. {largest}, not {threshold}: A_h = {wrong} is "
        "reachable and would change side"
    )


def gating_mask(a_h: NDArray[np.int64], threshold: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the mask A_h > T_c, strict and signed: bool [N, K, P, Q], 1 where the output is updated.

    `a_h` is int64 [N, K, P, Q], `threshold` int64 [K]. Source: equation 2, on integers.
    """
    mask: NDArray[np.bool_] = a_h > threshold[None, :, None, None]
    return mask


def gated_output(
    a_h: NDArray[np.int64],
    a_l: NDArray[np.int64],
    mask: NDArray[np.bool_],
    update_bits: int,
    policy: GatePolicy,
) -> NDArray[np.int64]:
    """Return A = (A_h << update_bits) + A_l where mask is 1, and what `policy` says where it is 0.

    `a_h`, `a_l` int64 and `mask` bool share any one shape; A has it too, int64. `a_l` is not read where mask is 0.
    Source: equation 3 (keep).
    """
    predicted = a_h << update_bits
    rest = predicted if policy is GatePolicy.KEEP else np.int64(0)
    return np.where(mask, predicted + a_l, rest)
