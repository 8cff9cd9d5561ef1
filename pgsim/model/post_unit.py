"""What follows the accumulator as work and as hardware: one unit at each column's output port.

    layer.post --post_work--> actions of an image, and the parts a port needs --post_unit--> the widest of all layers
               --parameter_bits--> what each channel and the layer are given: thresholds, multipliers, biases

A port takes one result a cycle, so steps that follow one another have parts of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsim.results.actions import Action, ActionKind
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

COMPONENT = "post"
DEFAULT_FACTOR_BITS = 16


class Work(NamedTuple):
    """One action of a step: how many times an image does it, and how many parts for it a port has."""

    action: Action
    times: int
    parts: int


@dataclass(frozen=True)
class PostUnit:
    """One port's parts by width in bits, widest first, and the bits of parameters.

    `channel_bits` are a channel's, kept at its port twice (one set in use, one arriving); `shared_bits` those of all
    channels of a layer, kept once.
    """

    multipliers: tuple[int, ...]
    adders: tuple[int, ...]
    comparators: tuple[int, ...]
    channel_bits: int
    shared_bits: int


def default_post_unit(psum_bits: int) -> PostUnit:
    """Return the unit of a machine without a trace that says more: a multiply by factors of 16 bits with its bias, the
    addition of a shortcut and a clamp, all as wide as the accumulator (assumed)."""
    product = psum_bits + DEFAULT_FACTOR_BITS
    return PostUnit(
        multipliers=(max(psum_bits, DEFAULT_FACTOR_BITS),),
        adders=(product, psum_bits),
        comparators=(psum_bits, psum_bits),
        channel_bits=DEFAULT_FACTOR_BITS + product,
        shared_bits=0,
    )


def post_unit(layers: Iterable[Layer], psum_bits: int) -> PostUnit | None:
    """Return the unit that does what follows any of `layers`; None where nothing follows any of them.

    Two layers share parts: the unit has as many of a kind as the layer that needs most, each as wide as any needs it.
    """
    widths: dict[ActionKind, list[int]] = {}
    channel = shared = 0
    for layer in layers:
        needs: dict[ActionKind, list[int]] = {}
        for work in post_work(layer, psum_bits):
            needs.setdefault(work.action.kind, []).extend([work.action.bits] * work.parts)
        for kind, wanted in needs.items():
            pairs = zip_longest(widths.get(kind, []), sorted(wanted, reverse=True), fillvalue=0)
            widths[kind] = [max(pair) for pair in pairs]
        of_channel, of_layer = parameter_bits(layer, psum_bits)
        channel, shared = max(channel, of_channel), max(shared, of_layer)
    if not widths:
        return None
    kinds = (ActionKind.MULTIPLY, ActionKind.ADD, ActionKind.COMPARE)
    multipliers, adders, comparators = (tuple(widths.get(kind, ())) for kind in kinds)
    return PostUnit(multipliers, adders, comparators, channel, shared)


def post_work(layer: Layer, psum_bits: int) -> Iterator[Work]:
    """Yield the work of the layer's post steps for one image.

    A requantisation is a binary search over its thresholds, one comparator a level; a pooling window takes each of its
    values with one addition or comparison.
    """
    width = psum_bits
    values, rows, columns = layer.geometry.output_shape

    def work(kind: ActionKind, bits: int, parts: int = 1, other_bits: int = 0) -> Work:
        return Work(Action(kind, COMPONENT, bits, other_bits), parts * values * rows * columns, parts)

    for step in layer.post:
        if isinstance(step, Bias | AddShortcut):
            yield work(ActionKind.ADD, width)
        elif isinstance(step, FixedPoint):
            bits = signed_bits(step.multiplier)
            yield work(ActionKind.MULTIPLY, max(width, bits), other_bits=min(width, bits))
            yield work(ActionKind.ADD, width + bits)
        elif isinstance(step, Clamp):
            yield work(ActionKind.COMPARE, width, 2)
        elif isinstance(step, SaveShortcut):
            width = step.bits
        elif isinstance(step, SumPool | MaxPool):
            rows, columns = pooled(step, rows, columns)
            kind = ActionKind.ADD if isinstance(step, SumPool) else ActionKind.COMPARE
            windows = prod(-(-size // stride) for size, stride in zip(step.kernel, step.stride, strict=True))
            yield Work(Action(kind, COMPONENT, width), values * rows * columns * prod(step.kernel), windows)
        elif isinstance(step, Requantise):
            yield work(ActionKind.COMPARE, width, step.threshold.shape[1].bit_length())
        else:
            assert isinstance(step, Logits)


def pooled(step: SumPool | MaxPool, rows: int, columns: int) -> tuple[int, int]:
    """Return the rows and columns that pooling leaves."""
    top, bottom, left, right = step.padding if isinstance(step, MaxPool) else (0, 0, 0, 0)
    return (
        (rows + top + bottom - step.kernel[0]) // step.stride[0] + 1,
        (columns + left + right - step.kernel[1]) // step.stride[1] + 1,
    )


def parameter_bits(layer: Layer, psum_bits: int) -> tuple[int, int]:
    """Return the bits of the layer's post parameters: a channel's, and those that all channels share.

    Multipliers and biases in as few signed bits as the layer's widest takes; a threshold in one bit more than what it
    is compared with, as T_c, and a bit for the direction. Shifts, clamps and pooling windows are the layer's
    configuration, as its shape is, and not counted.
    """
    bits = [0, 0]  # a channel's, shared

    def add(rows: int, width: int) -> None:
        bits[1 if rows == 1 else 0] += width

    width = psum_bits
    for step in layer.post:
        if isinstance(step, Bias):
            add(len(step.bias), signed_bits(step.bias))
        elif isinstance(step, FixedPoint):
            add(len(step.multiplier), signed_bits(step.multiplier))
            add(len(step.bias), signed_bits(step.bias))
        elif isinstance(step, SaveShortcut):
            width = step.bits
        elif isinstance(step, Requantise):
            add(len(step.threshold), step.threshold.shape[1] * (width + 1))
            add(len(step.direction), 1)
    return bits[0], bits[1]


def signed_bits(values: NDArray[np.int64]) -> int:
    """Return the bits of two's complement that hold each of `values` and its negative."""
    return max(abs(int(values.min())), abs(int(values.max()))).bit_length() + 1
