"""Partial sums in psum_bits: proved to fit, or walked step by step in the order in which the hardware adds.

    prediction phase   psum = 0;          each step: psum <- fit(psum + one word of q_h * w)   --> A_h, mask
    update phase       psum = fit(A_h << l); each step: psum <- fit(psum + one word of q_l * w) --> A
    not gated          psum = 0;          each step: psum <- fit(psum + one word of q * w)     --> A

Reduction order (r, s, c), c fastest: a step adds the products of up to `word` neighbouring input channels of one
tap, D = R * S * ceil((C/G) / word) steps an output; a tap on padding takes its step and adds 0. A word's products are
summed exactly (the adder tree grows), the accumulator holds psum_bits in two's complement and every value that it
takes counts, not just the last. An output that is not updated becomes fit(A_h << l), or 0 by policy ZERO.

`walk` takes every output through its steps. `dense_layer` and `gated_layer` equal it and walk only the outputs that
could overflow: no partial sum of an output, in any order, leaves its `bounds`, two sums through BLAS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pgsim.arith import fast
from pgsim.arith.formats import Encoding, GatePolicy
from pgsim.arith.formats import Overflow as Overflow
from pgsim.arith.reference import GatedValues, check_threshold, contiguous_int64
from pgsim.arith.split import split
from pgsim.arith.window import Window, output_shape
from pgsim.errors import OverflowDetected

FIRST_WALKED = 64  # outputs whose partial sums are looked at first for a layer's extremes
MAX_PSUM_BITS = 48  # of a simulated accumulator; A_h << l and a word's sum then stay within int64


_MODES = {Overflow.ERROR: 0, Overflow.SATURATE: 1, Overflow.WRAP: 2}


@dataclass(frozen=True)
class Accumulator:
    """The register that holds a partial sum, and what reaches it in one step.

    1 <= psum_bits <= 48, two's complement; word >= 1, the input channels of one tap that a step adds (N).
    Raises ValueError for other numbers.
    """

    psum_bits: int
    word: int
    overflow: Overflow = Overflow.ERROR

    def __post_init__(self) -> None:
        if not 1 <= self.psum_bits <= MAX_PSUM_BITS:
            raise ValueError(f"psum_bits must be 1 .. {MAX_PSUM_BITS}, not {self.psum_bits}")
        if self.word < 1:
            raise ValueError(f"word must be >= 1 input channels, not {self.word}")


def bits_needed(value: int) -> int:
    """Return the bits of `value` in two's complement: 1 for 0 and -1, 8 for 127 and -128."""
    return (value if value >= 0 else ~value).bit_length() + 1


def reachable(weight: NDArray[Any], low_code: int, high_code: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what each output channel's sum can reach exactly, (min, max), int64 [K] each.

    `weight` holds integer codes [K, ...], the codes are any of low_code .. high_code, low_code <= 0 <= high_code.
    The extremes are reached: positive weights meet one end of the range, negative weights the other. Partial sums
    cannot pass them, in any order, as each product moves an extreme outward. Raises ValueError where 0, the
    padding, is not in the range.
    """
    if not low_code <= 0 <= high_code:
        raise ValueError(f"0 must be a code: low_code <= 0 <= high_code, not {low_code} .. {high_code}")
    axes = tuple(range(1, weight.ndim))
    positive = np.maximum(weight, 0).sum(axis=axes, dtype=np.int64)
    negative = np.minimum(weight, 0).sum(axis=axes, dtype=np.int64)
    return positive * low_code + negative * high_code, positive * high_code + negative * low_code


def proven_bits(weight: NDArray[Any], low_code: int, high_code: int) -> int:
    """Return the psum_bits that no input of codes low_code .. high_code can overflow, in any reduction order."""
    low, high = reachable(weight, low_code, high_code)
    return max((bits_needed(int(value)) for ends in (low, high) for value in ends), default=1)


def dense_layer(
    activation: NDArray[Any],
    weight: NDArray[Any],
    window: Window,
    accumulator: Accumulator,
    layer_name: str,
) -> NDArray[np.int64]:
    """Return A, int64 [N, K, P, Q], of a layer that is not gated, as accumulators of so many bits compute it.

    `activation` and `weight` as in `fast.dense_layer`; where the codes at hand cannot overflow, so is the result.
    Raises OverflowDetected, with `layer_name`, where they do and the accumulator's mode is ERROR; ValueError or
    TypeError for a wrong call.
    """
    shape = output_shape(activation, weight, window)
    if proven_bits(weight, *_range_with_zero(activation)) <= accumulator.psum_bits:
        return fast.dense_layer(activation, weight, window)
    exact = fast.dense_layer(activation, weight, window)
    wanted = _outside(bounds(activation, None, weight, window, 0), accumulator.psum_bits)
    if not wanted.any():
        return exact
    threshold = np.zeros(shape[1], np.int64)
    walked = walk(
        activation, None, weight, window, threshold, 0, GatePolicy.KEEP, accumulator, layer_name, wanted=wanted
    )
    return np.where(wanted, walked.a, exact)


def gated_layer(
    activation: NDArray[Any],
    weight: NDArray[Any],
    window: Window,
    encoding: Encoding,
    bits: int,
    pred_bits: int,
    threshold: NDArray[np.int64],
    policy: GatePolicy,
    accumulator: Accumulator,
    layer_name: str,
) -> GatedValues:
    """Return A_h, A_l, the mask and A of a gated layer, as accumulators of so many bits compute them.

    Arguments as in `fast.gated_layer`; where the codes at hand cannot overflow, so is the result. After a saturation
    or a wrap A_h, the mask and A are the accumulator's, and A_l is what the update phase changed: A - fit(A_h << l).
    Raises OverflowDetected, with `layer_name`, on an overflow where the accumulator's mode is ERROR; ValueError or
    TypeError for a wrong call.
    """
    output_shape(activation, weight, window)
    check_threshold(threshold, weight)
    q_h, q_l = split(activation, encoding, bits, pred_bits)
    update_bits = bits - pred_bits
    # Every value of both phases is sum(w * x), x one of q_h, q_h << l, or q (a tap whose low part is in already).
    ends = [end for plane in (activation, q_h) for end in _range_with_zero(plane)]
    ends += [end << update_bits for end in _range_with_zero(q_h)]
    exact = fast.gated_layer(activation, weight, window, encoding, bits, pred_bits, threshold, policy)
    if proven_bits(weight, min(ends), max(ends)) <= accumulator.psum_bits:
        return exact
    wanted = _outside(bounds(q_h, q_l, weight, window, update_bits), accumulator.psum_bits)
    if not wanted.any():
        return exact
    walked = walk(q_h, q_l, weight, window, threshold, update_bits, policy, accumulator, layer_name, wanted=wanted)
    return GatedValues(
        a_h=np.where(wanted, walked.a_h, exact.a_h),
        a_l=np.where(wanted, walked.a_l, exact.a_l),
        mask=np.where(wanted, walked.mask, exact.mask),
        a=np.where(wanted, walked.a, exact.a),
    )


def bounds(
    q_h: NDArray[Any], q_l: NDArray[Any] | None, weight: NDArray[Any], window: Window, update_bits: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what no partial sum of an output can pass with the codes at hand, (least, largest), int64 [N, K, P, Q].

    Planes as in `walk`. A tap's contribution is 0 before its step, then q_h * w, (q_h << l) * w and q * w: each lies
    between the products of w with the smallest and the largest of 0 and these codes, in any reduction order.
    """
    if q_l is None:
        low, high = np.minimum(q_h, 0), np.maximum(q_h, 0)
    else:
        q = (q_h << update_bits) + q_l
        low = np.minimum(np.minimum(q_h << update_bits, q), 0)  # q_h lies between 0 and q_h << l
        high = np.maximum(np.maximum(q_h << update_bits, q), 0)
    positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
    downward, upward = fast.dense_layer(high, negative, window), fast.dense_layer(high, positive, window)
    if low.any():
        downward = downward + fast.dense_layer(low, positive, window)
        upward = upward + fast.dense_layer(low, negative, window)
    return downward, upward


def extremes(
    activation: NDArray[Any],
    weight: NDArray[Any],
    window: Window,
    gate: tuple[Encoding, int, int, NDArray[np.int64], GatePolicy] | None,
    word: int,
    known: tuple[int, int] = (0, 0),
) -> tuple[int, int]:
    """Return the smallest and the largest partial sum of a layer that is exact, and of `known` (least, largest).

    Partial sums of words of `word` channels, as `walk` takes them; `gate` is (encoding, bits, pred_bits, threshold,
    policy), None for a layer that is not gated. Walks only the outputs whose bounds pass what is known.
    """
    q_h, q_l, update_bits = activation, None, 0
    threshold, policy = np.zeros(len(weight), np.int64), GatePolicy.KEEP
    if gate is not None:
        encoding, bits, pred_bits, threshold, policy = gate
        q_h, q_l = split(activation, encoding, bits, pred_bits)
        update_bits = bits - pred_bits
    low, high = bounds(q_h, q_l, weight, window, update_bits)
    rounds = [np.ones(low.shape, np.bool_)]
    if np.count_nonzero((low < known[0]) | (high > known[1])) > 8 * FIRST_WALKED:
        promising = np.zeros(low.shape, np.bool_)  # they raise what is known, and most others need no walk
        promising.flat[np.argpartition(low, FIRST_WALKED, axis=None)[:FIRST_WALKED]] = True
        promising.flat[np.argpartition(-high, FIRST_WALKED, axis=None)[:FIRST_WALKED]] = True
        rounds = [promising, ~promising]
    accumulator = Accumulator(MAX_PSUM_BITS, word)
    for candidates in rounds:
        wanted = candidates & ((low < known[0]) | (high > known[1]))
        if wanted.any():
            gating = (threshold, update_bits, policy, accumulator, "", walk_loops, wanted)
            _, least, largest = _walked(q_h, q_l, weight, window, *gating)
            known = min(least, known[0]), max(largest, known[1])
    return known


def _walk_loops(
    q_h: Any,
    q_l: Any,
    weight: Any,
    threshold: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    group_in: int,
    group_out: int,
    gated: bool,
    update_bits: int,
    keep: bool,
    psum_bits: int,
    word: int,
    mode: int,
    wanted: Any,
    a_h: Any,
    a_l: Any,
    mask: Any,
    a: Any,
    first: Any,
    extremes: Any,
) -> None:
    """Walk the wanted accumulators through their steps: one output after the other, prediction before update.

    q_h, q_l int64 [N, C, H, W]; weight int64 [K, C/G, R, S]; threshold int64 [K]; wanted bool, a_h, a_l, a int64 and
    mask bool [N, K, P, Q] (written where wanted). `mode` is 0 error (exact, recorded), 1 saturate, 2 wrap. first
    int64 [7] (written at the first overflow): 1, image, channel, pixel, phase (0 or 1), step (-1: before the phase's
    first), value.
    extremes int64 [2] (written): the smallest and largest value before fit.
    """
    images, out_channels, out_height, out_width = a.shape
    _, _, height, width = q_h.shape
    _, _, taps_high, taps_wide = weight.shape
    largest = 2 ** (psum_bits - 1) - 1
    smallest = -largest - 1
    words = (group_in + word - 1) // word
    lowest = 0
    highest = 0
    for n in range(images):
        for k in range(out_channels):
            first_channel = (k // group_out) * group_in
            for pixel in range(out_height * out_width):
                p = pixel // out_width
                q = pixel % out_width
                if not wanted[n, k, p, q]:
                    continue
                psum = 0
                start = 0
                update = False
                for phase in range(2):
                    # Step -1 is the shift that opens the update phase, or that alone remains for an output that is
                    # not updated; the prediction phase opens with 0.
                    for step in range(-1, taps_high * taps_wide * words):
                        if step == -1:
                            if phase == 0:
                                continue
                            psum = psum * 2**update_bits
                        else:
                            tap = step // words
                            c_from = (step % words) * word
                            c_to = min(c_from + word, group_in)
                            y = p * stride[0] - padding[0] + (tap // taps_wide) * dilation[0]
                            x = q * stride[1] - padding[2] + (tap % taps_wide) * dilation[1]
                            if 0 <= y < height and 0 <= x < width:
                                for c in range(c_from, c_to):
                                    factor = int(weight[k, c, tap // taps_wide, tap % taps_wide])
                                    if phase == 0:
                                        psum += int(q_h[n, first_channel + c, y, x]) * factor
                                    else:
                                        psum += int(q_l[n, first_channel + c, y, x]) * factor
                        lowest = min(lowest, psum)
                        highest = max(highest, psum)
                        if psum < smallest or psum > largest:
                            if first[0] == 0:
                                first[0] = 1
                                first[1] = n
                                first[2] = k
                                first[3] = pixel
                                first[4] = phase
                                first[5] = step
                                first[6] = psum
                            if mode == 1:
                                psum = min(max(psum, smallest), largest)
                            elif mode == 2:
                                psum = (psum - smallest) % (2 * (largest + 1)) + smallest
                        if step == -1:
                            start = psum
                            if not update:
                                break
                    if phase == 0:
                        a_h[n, k, p, q] = psum
                        update = gated and psum > int(threshold[k])
                        mask[n, k, p, q] = update
                        if not gated or not (update or keep):
                            break
                if gated and not update and not keep:
                    psum = 0
                a[n, k, p, q] = psum
                a_l[n, k, p, q] = psum - start if update else 0
    extremes[0] = lowest
    extremes[1] = highest


walk_loops = njit(cache=True)(_walk_loops)


def walk(
    q_h: NDArray[Any],
    q_l: NDArray[Any] | None,
    weight: NDArray[Any],
    window: Window,
    threshold: NDArray[np.int64],
    update_bits: int,
    policy: GatePolicy,
    accumulator: Accumulator,
    layer_name: str,
    loops: Callable[..., None] = walk_loops,
    wanted: NDArray[np.bool_] | None = None,
) -> GatedValues:
    """Walk every accumulator of a layer through its steps, without asking first whether it can overflow.

    `q_h`, `q_l` are planes [N, C, H, W]; q_l None is a layer that is not gated, q_h its codes. The rest is as in
    `gated_layer`. `loops` runs it: `walk_loops`, compiled, or `walk_loops.py_func`, interpreted. With `wanted`, bool
    [N, K, P, Q], the other outputs are left out, 0.
    """
    return _walked(
        q_h, q_l, weight, window, threshold, update_bits, policy, accumulator, layer_name, loops, wanted
    )[0]  # fmt: skip


def _walked(
    q_h: NDArray[Any],
    q_l: NDArray[Any] | None,
    weight: NDArray[Any],
    window: Window,
    threshold: NDArray[np.int64],
    update_bits: int,
    policy: GatePolicy,
    accumulator: Accumulator,
    layer_name: str,
    loops: Callable[..., None],
    wanted: NDArray[np.bool_] | None,
) -> tuple[GatedValues, int, int]:
    """Return what `walk` does, and the smallest and the largest value of an accumulator before it is made to fit."""
    shape = output_shape(q_h, weight, window)
    check_threshold(threshold, weight)
    a_h, a_l, a = (np.zeros(shape, np.int64) for _ in range(3))
    mask = np.zeros(shape, np.bool_)
    first, reached = np.zeros(7, np.int64), np.zeros(2, np.int64)
    gated = q_l is not None
    loops(
        contiguous_int64(q_h),
        contiguous_int64(q_h if q_l is None else q_l),
        contiguous_int64(weight),
        contiguous_int64(threshold),
        window.stride,
        window.padding,
        window.dilation,
        weight.shape[1],
        weight.shape[0] // window.groups,
        gated,
        update_bits,
        policy is GatePolicy.KEEP,
        accumulator.psum_bits,
        accumulator.word,
        _MODES[accumulator.overflow],
        np.ones(shape, np.bool_) if wanted is None else np.array(wanted, order="C"),
        a_h,
        a_l,
        mask,
        a,
        first,
        reached,
    )
    if first[0] and accumulator.overflow is Overflow.ERROR:
        _, image, channel, pixel, phase, step, value = first.tolist()
        needed = max(bits_needed(end) for end in reached.tolist())
        row, column = divmod(pixel, shape[3])
        when = "sum" if not gated else "update phase" if phase else "prediction phase"
        moment = "its start" if step < 0 else f"step {step}"
        raise OverflowDetected(
            f"{layer_name}, channel {channel}: psum_bits must be at least {needed}, not {accumulator.psum_bits}: "
            f"the {when} reaches {value} ({bits_needed(value)} bits) at {moment}, image {image}, "
            f"output pixel ({row}, {column})"
        )
    return GatedValues(a_h, a_l, mask, a), int(reached[0]), int(reached[1])


def _outside(ends: tuple[NDArray[np.int64], NDArray[np.int64]], psum_bits: int) -> NDArray[np.bool_]:
    """Tell which outputs' bounds psum_bits cannot hold."""
    largest = 2 ** (psum_bits - 1) - 1
    outside: NDArray[np.bool_] = (ends[0] < -largest - 1) | (ends[1] > largest)
    return outside


def _range_with_zero(codes: NDArray[Any]) -> tuple[int, int]:
    if codes.size == 0:
        return 0, 0
    return min(int(codes.min()), 0), max(int(codes.max()), 0)
