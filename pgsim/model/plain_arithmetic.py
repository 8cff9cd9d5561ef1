"""The reference of `pgsim.model.arithmetic.run`: a network under another arithmetic, value by value.

Nothing is rewritten: each choice is computed where it stands, on python integers and fractions. Steps that no choice
concerns are those of `pgsim.arith.post`; sums walk every accumulator (`pgsim.arith.overflow.walk`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray

from pgsim.arith import overflow, post
from pgsim.arith.formats import GatePolicy
from pgsim.arith.split import split
from pgsim.model.arithmetic import Values
from pgsim.model.inference import LayerValues, reference_engine
from pgsim.workload.arithmetic import FINEST_SHIFT, Arithmetic, Exported, Line, Rounding, Shortcut
from pgsim.workload.layer import (
    AddShortcut,
    Bias,
    Clamp,
    FixedPoint,
    Layer,
    Logits,
    MaxPool,
    Requantise,
    SaveShortcut,
    SumPool,
)
from pgsim.workload.trace import LayerTensors

Ints = NDArray[np.int64]


def plain_run(network: Exported, arithmetic: Arithmetic, codes: NDArray[np.int16]) -> Values:
    """Return what `pgsim.model.arithmetic.run` does."""
    kept: dict[str, Ints] = {}
    tensors = []
    for layer in network.layers:
        read = codes.astype(np.int64) if layer.input_name is None else kept[layer.input_name]
        read = read.reshape(len(read), *layer.geometry.activation_shape)
        values = _sums(layer, read, arithmetic)
        tensors.append(LayerTensors(read.astype(np.int16), values.output, values.mask))
        _follow(layer, values.output, network, arithmetic, kept)
    return Values(kept["logits"].reshape(len(codes), -1), tuple(tensors))


def _sums(layer: Layer, codes: Ints, arithmetic: Arithmetic) -> LayerValues:
    gate, register = layer.gate, arithmetic.accumulator
    policy = arithmetic.policy or (gate.policy if gate else GatePolicy.KEEP)
    if register is None and gate is None:
        return reference_engine(layer, codes.astype(np.int16))
    q_h, q_l = (codes, None) if gate is None else split(codes, layer.act.encoding, layer.act.bits, gate.pred_bits)
    threshold = np.zeros(len(layer.weight), np.int64) if gate is None else gate.threshold
    wide = overflow.Accumulator(overflow.MAX_PSUM_BITS, 1)
    walked = overflow.walk(
        q_h, q_l, layer.weight, layer.geometry, threshold, layer.update_bits, policy, register or wide, layer.name
    )
    return LayerValues(walked.a, None if gate is None else walked.mask)


def _follow(layer: Layer, v: Ints, network: Exported, arithmetic: Arithmetic, kept: dict[str, Ints]) -> None:
    """Take an accumulator through the layer's steps; `kept` gains codes, shortcuts and logits."""
    stream = any(isinstance(step, SaveShortcut | AddShortcut) for step in layer.post)
    dropped = 0  # bits that the stream's unit is coarser than the trace's
    if isinstance(arithmetic.shortcut, int) and stream:
        (width,) = {s.bits for x in network.layers for s in x.post if isinstance(s, SaveShortcut)}
        dropped = width - arithmetic.shortcut
    in_stream = False
    high = 0
    for position, step in enumerate(layer.post):
        match step:
            case FixedPoint():
                v, in_stream = _onto_stream(v, step, dropped, arithmetic), True
            case AddShortcut():
                v = post.add_shortcut(v, kept[step.source], step.stride, step.pad_before, step.pad_after)
                in_stream = True
            case Clamp():
                high = step.high
                top = min(_nearest(Fraction(high, 2**dropped)), 2 ** (width - dropped) - 1) if dropped else high
                v = post.clamp(v, _nearest(Fraction(step.low, 2**dropped)), top)
            case SaveShortcut():
                if arithmetic.shortcut is Shortcut.CODES:
                    (step_to_codes,) = (s for s in layer.post[position:] if isinstance(s, Requantise))
                    v = _as_codes(v, high, step_to_codes.threshold.shape[1])
                kept[step.name] = v
            case Requantise():
                bits = arithmetic.stream_bits if in_stream else arithmetic.block_bits
                if bits is None:
                    codes = _by_thresholds(v * 2**dropped, step, dropped, arithmetic.threshold_bits)
                else:
                    codes = _by_line(v, step, network.lines[step.name], dropped, bits, arithmetic.rounding)
                kept[step.name] = codes if step.shift is None else post.move_channels(codes, step.shift)
            case Bias():
                v = post.add_bias(v, step.bias)
            case SumPool():
                v = post.sum_pool(v, step.kernel, step.stride)
            case MaxPool():
                v = post.max_pool(v, step.kernel, step.stride, step.padding)
            case Logits():
                kept["logits"] = v


def _nearest(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def _each(v: Ints, function: Callable[[int, int], int]) -> Ints:
    """Return function(channel, value) of every value, [N, K, P, Q]."""
    result = np.zeros(v.shape, np.int64)
    for index in np.ndindex(*v.shape):
        result[index] = function(index[1], int(v[index]))
    return result


def _shift_for(factors: Sequence[Fraction], bits: int, finest: int) -> int:
    """Return the finest shift at which every factor, rounded, fits so many signed bits."""
    return max(s for s in range(finest + 1) if all(abs(round(f * 2**s)) < 2 ** (bits - 1) for f in factors))


def _shifted(product: int, shift: int, rounding: Rounding) -> int:
    exact = Fraction(product, 2**shift)
    return floor(exact) if rounding is Rounding.TRUNCATE else _nearest(exact)


def _onto_stream(v: Ints, step: FixedPoint, dropped: int, arithmetic: Arithmetic) -> Ints:
    factors = [Fraction(int(m), 2 ** (step.shift + dropped)) for m in step.multiplier]
    offsets = [Fraction(int(b), 2 ** (step.shift + dropped)) for b in step.bias]
    shift, rounding = step.shift + dropped, Rounding.HALF_UP
    if arithmetic.stream_bits is not None:
        shift, rounding = _shift_for(factors, arithmetic.stream_bits, shift), arithmetic.rounding
    products = [round(f * 2**shift) for f in factors]
    biases = [round(o * 2**shift) for o in offsets]
    return _each(v, lambda c, a: _shifted(products[c] * a + biases[c], shift, rounding))


def _by_line(v: Ints, step: Requantise, line: Line, dropped: int, bits: int, rounding: Rounding) -> Ints:
    slopes = [Fraction(float(s)) * 2**dropped for s in np.broadcast_to(line.slope, v.shape[1])]
    offsets = [Fraction(float(o)) for o in np.broadcast_to(line.offset, v.shape[1])]
    shift = _shift_for(slopes, bits, FINEST_SHIFT)
    low, high = step.base, step.base + step.threshold.shape[1]

    def code(channel: int, value: int) -> int:
        product = round(slopes[channel] * 2**shift) * value + round(offsets[channel] * 2**shift)
        return min(max(_shifted(product, shift, rounding), low), high)

    return _each(v, code)


def _by_thresholds(v: Ints, step: Requantise, dropped: int, bits: int | None) -> Ints:
    """Compare without the low bits, of thresholds and of what they are compared with; both in units of 2^`dropped`."""
    rows = [[-(-int(t) // 2**dropped) for t in row] for row in step.threshold]
    less = 0
    if bits is not None:
        largest = max((abs(t) for row in rows for t in row), default=0)
        while (largest >> less).bit_length() + 1 > bits:
            less += 1
    kept = [[_nearest(Fraction(t, 2**less)) for t in row] for row in rows]

    def code(channel: int, value: int) -> int:
        signed = int(np.broadcast_to(step.direction, v.shape[1])[channel]) * (value // 2**dropped)
        return step.base + sum(signed // 2**less >= t for t in (kept[channel] if len(kept) > 1 else kept[0]))

    return _each(v, code)


def _as_codes(v: Ints, high: int, levels: int) -> Ints:
    return _each(v, lambda _, r: _nearest(Fraction(_nearest(Fraction(r * levels, high)) * high, levels)))
