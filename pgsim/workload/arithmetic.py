"""What a machine's arithmetic may choose otherwise than a trace, as a rewriting of a network's layers.

A trace requantises by integer thresholds and keeps its residual stream in 16 bits. A machine may multiply and shift
instead, keep fewer bits, zero what is not updated. Each such choice is said in the post steps that there are, so that
a rewritten network is a network like any other: it runs, is written as a trace, and is simulated.

    Exported --rewritten(Arithmetic)--> Exported          (pgsim.model.arithmetic runs it, accumulators included)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.formats import GatePolicy
from pgsim.arith.overflow import Accumulator
from pgsim.errors import InputError
from pgsim.workload.layer import (
    AddShortcut,
    Bias,
    Clamp,
    FixedPoint,
    Layer,
    Logits,
    PostStep,
    Requantise,
    SaveShortcut,
)

FINEST_SHIFT = 40  # of a multiply and shift: products and biases stay far within int64
CODE_SHIFT = 40  # of shortcuts kept as codes


class Rounding(Enum):
    """What a shift does with the bits that it drops."""

    HALF_UP = "half_up"  # adds 2^(shift-1) first: to the nearest integer, halves upwards
    TRUNCATE = "truncate"  # drops them: towards -inf


class Shortcut(Enum):
    """What is kept of the residual stream instead of its fixed-point value."""

    CODES = "codes"  # the next layer's codes alone; a code stands for round(code * high / levels)


@dataclass(frozen=True)
class Line:
    """A requantisation as a line: code = clamp(round(slope[c] * v + offset[c])), float64 [K] or [1] each.

    v is what the thresholds are compared with: the accumulator inside a block, the stream's fixed point behind it.
    """

    slope: NDArray[np.float64]
    offset: NDArray[np.float64]


@dataclass(frozen=True)
class Exported:
    """A network's layers, and the line behind each of its requantisations by the name of its codes."""

    layers: tuple[Layer, ...]
    lines: Mapping[str, Line] = field(default_factory=dict)


@dataclass(frozen=True)
class Arithmetic:
    """What a machine chooses; the default is the exact arithmetic of a trace.

    Attributes:
        block_bits: signed bits of the multipliers that take an accumulator to codes; None compares with thresholds.
        stream_bits: those of the multipliers onto the residual stream, from it to codes and from a pool to codes; None
            keeps the trace's multipliers onto the stream and compares with thresholds behind it.
        rounding: of every shift that these two options change.
        shortcut: bits of the residual stream, or `Shortcut.CODES`; None keeps the trace's.
        threshold_bits: signed bits of the thresholds that requantise: their low bits, and those of the value that
            is compared, are dropped (threshold rounded half up); None keeps every bit.
        policy: what becomes of an output that is not updated; None keeps the network's.
        accumulator: None is wide enough for every sum.

    Raises ValueError for widths below 2 bits.
    """

    block_bits: int | None = None
    stream_bits: int | None = None
    rounding: Rounding = Rounding.HALF_UP
    shortcut: int | Shortcut | None = None
    threshold_bits: int | None = None
    policy: GatePolicy | None = None
    accumulator: Accumulator | None = None

    def __post_init__(self) -> None:
        for name in ("block_bits", "stream_bits", "shortcut", "threshold_bits"):
            bits = getattr(self, name)
            if isinstance(bits, int) and bits < 2:
                raise ValueError(f"{name} must be >= 2, not {bits}")


def rewritten(network: Exported, arithmetic: Arithmetic) -> Exported:
    """Return the network whose exact run is the run of `network` under `arithmetic`, its accumulator aside.

    Raises InputError for a network that cannot be written so: a step that an option does not know, a line or a width
    that is missing, a multiplier that does not fit.
    """
    if isinstance(arithmetic.shortcut, int):  # first: it changes the unit of the lines behind the stream
        network = _narrow_stream(network, arithmetic.shortcut)
    layers = network.layers
    if arithmetic.threshold_bits is not None:
        layers = tuple(_narrow_thresholds(layer, arithmetic.threshold_bits) for layer in layers)
    if arithmetic.block_bits is not None or arithmetic.stream_bits is not None:
        layers = tuple(_multiplied(layer, network.lines, arithmetic) for layer in layers)
    if isinstance(arithmetic.shortcut, Shortcut):
        layers = tuple(_shortcut_as_codes(layer) for layer in layers)
    if arithmetic.policy is not None:
        policy = arithmetic.policy
        layers = tuple(replace(x, gate=replace(x.gate, policy=policy)) if x.gate else x for x in layers)
    return Exported(layers, network.lines)


def multiply_and_shift(line: Line, bits: int, rounding: Rounding, name: str) -> FixedPoint:
    """Return the step that computes a line with one shift and signed multipliers of so many bits.

    The shift is the largest up to 40 at which every multiplier, round(slope * 2^shift), fits; the bias,
    round(offset * 2^shift), has the adder's width. Raises InputError where no multiplier fits.
    """
    largest = 2 ** (bits - 1) - 1
    for shift in range(FINEST_SHIFT, -1, -1):
        multiplier = np.rint(line.slope * 2.0**shift)
        if np.abs(multiplier).max(initial=0) <= largest:
            bias = np.rint(line.offset * 2.0**shift)
            return _rounded(FixedPoint(multiplier.astype(np.int64), bias.astype(np.int64), shift), rounding)
    raise InputError(f"{name}: multipliers must fit {bits} signed bits, not reach {np.abs(line.slope).max()}")


def coarser(step: FixedPoint, bits: int, rounding: Rounding, name: str) -> FixedPoint:
    """Return a fixed-point step with multipliers of at most so many signed bits: its own or, rounded, coarser ones."""
    for shift in range(step.shift, -1, -1):
        scale = 2.0 ** (shift - step.shift)
        multiplier = np.rint(step.multiplier * scale)
        if np.abs(multiplier).max(initial=0) <= 2 ** (bits - 1) - 1:
            bias = np.rint(step.bias * scale)
            return _rounded(FixedPoint(multiplier.astype(np.int64), bias.astype(np.int64), shift), rounding)
    raise InputError(f"{name}: multipliers must fit {bits} signed bits, not need more at shift 0")


def _rounded(step: FixedPoint, rounding: Rounding) -> FixedPoint:
    if rounding is Rounding.HALF_UP or step.shift == 0:
        return step
    return replace(step, bias=step.bias - 2 ** (step.shift - 1))  # cancels what the step adds


def _multiplied(layer: Layer, lines: Mapping[str, Line], arithmetic: Arithmetic) -> Layer:
    post: list[PostStep] = []
    in_stream = False
    for position, step in enumerate(layer.post):
        where = f"{layer.name}, post[{position}]"
        if isinstance(step, FixedPoint):
            in_stream = True
            if arithmetic.stream_bits is not None:
                step = coarser(step, arithmetic.stream_bits, arithmetic.rounding, where)
        in_stream = in_stream or isinstance(step, AddShortcut)
        bits = arithmetic.stream_bits if in_stream else arithmetic.block_bits
        if isinstance(step, Requantise) and bits is not None:
            if position != len(layer.post) - 1:
                raise InputError(f"{where}: requantise must be the last step, to be a multiply and shift")
            if step.name not in lines:
                raise InputError(f"{where}: {step.name} must have a line, to be a multiply and shift")
            post += _codes_by(multiply_and_shift(lines[step.name], bits, arithmetic.rounding, where), step)
        else:
            post.append(step)
    return replace(layer, post=tuple(post))


def _codes_by(scaling: FixedPoint, step: Requantise) -> list[PostStep]:
    """Return the steps after which the value is the code itself: its thresholds are the codes above the lowest."""
    last = step.base + step.threshold.shape[1]
    codes = np.arange(step.base + 1, last + 1, dtype=np.int64)[None, :]
    return [scaling, Clamp(step.base, last), replace(step, threshold=codes, direction=np.ones(1, np.int8))]


def _narrow_thresholds(layer: Layer, bits: int) -> Layer:
    def narrowed(step: PostStep) -> PostStep:
        if not isinstance(step, Requantise) or step.threshold.size == 0:
            return step
        largest = max(abs(int(step.threshold.min())), abs(int(step.threshold.max())))
        dropped = max(0, largest.bit_length() + 1 - bits)
        return replace(step, threshold=((step.threshold + (2**dropped >> 1)) >> dropped) << dropped)

    return replace(layer, post=tuple(narrowed(step) for step in layer.post))


def _narrow_stream(network: Exported, bits: int) -> Exported:
    """Give the residual stream a coarser unit, so that it takes so many bits; codes are those of its coarser value."""
    widths = {step.bits for layer in network.layers for step in layer.post if isinstance(step, SaveShortcut)}
    if len(widths) != 1 or min(widths) < bits:
        raise InputError(f"shortcuts must all have one width of at least {bits} bits, not {sorted(widths)}")
    dropped = widths.pop() - bits
    lines = dict(network.lines)

    def narrowed(layer: Layer) -> Layer:
        if not any(isinstance(step, SaveShortcut | AddShortcut) for step in layer.post):
            return layer
        post: list[PostStep] = []
        for position, step in enumerate(layer.post):
            match step:
                case FixedPoint():
                    step = replace(step, shift=step.shift + dropped)
                case Clamp():
                    step = Clamp(_half_up(step.low, dropped), min(_half_up(step.high, dropped), 2**bits - 1))
                case SaveShortcut():
                    step = replace(step, bits=bits)
                case Requantise():
                    step = replace(step, threshold=-(-step.threshold >> dropped))  # least coarse value that reaches it
                    if step.name in lines:
                        lines[step.name] = replace(lines[step.name], slope=lines[step.name].slope * 2.0**dropped)
                case Bias() | Logits():
                    raise InputError(f"{layer.name}, post[{position}]: no {type(step).__name__} may follow the stream")
            post.append(step)
        return replace(layer, post=tuple(post))

    layers = tuple(narrowed(layer) for layer in network.layers)
    return Exported(layers, lines)


def _half_up(value: int, dropped: int) -> int:
    return (value + (2**dropped >> 1)) >> dropped


def _shortcut_as_codes(layer: Layer) -> Layer:
    """Take the stream to its codes and back before it is kept; a tie between two codes goes up."""
    post: list[PostStep] = []
    for position, step in enumerate(layer.post):
        if isinstance(step, SaveShortcut):
            before = layer.post[position - 1] if position else None
            codes = [after for after in layer.post[position:] if isinstance(after, Requantise)]
            if not (isinstance(before, Clamp) and before.low == 0 and codes):
                must = "a shortcut must stand between a clamp from 0 and its codes"
                raise InputError(f"{layer.name}, post[{position}]: {must}")
            levels = codes[0].threshold.shape[1]
            post += [_scale(levels, before.high), _scale(before.high, levels)]
        post.append(step)
    return replace(layer, post=tuple(post))


def _scale(numerator: int, denominator: int) -> FixedPoint:
    """Return v <- round(v * numerator / denominator), halves upwards; the factor is rounded up at 40 bits."""
    factor = -(-(numerator << CODE_SHIFT) // denominator)
    return FixedPoint(np.array([factor]), np.zeros(1, np.int64), CODE_SHIFT)
